"""The published noisy-neighbour experiment, as printed, beside the level of ours that is nearest to its dose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench import published
from kvbench.report.grid import SPACE, Cell, Column, Grid, line, shown, three_digits
from kvbench.units import format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.claims import Claims


def share(value: float) -> str:
    """Write a share or a change in percent with one decimal: 0.6349 to "63.5 %"."""
    return f"{100 * value + 0.0:.1f}{SPACE}%"


def as_printed() -> dict[str, str]:
    """Return the figures of the published experiment of this kind, as printed, by their names in that document."""
    claims = published.document("ibm-storage-scale").claims
    found = {one.id: one.value for one in claims.quantities}
    said = next(one for one in claims.derived if one.of == "rps-noisy" and one.over == "rps-g4")
    section = next(one.section for one in claims.quantities if one.id == "rps-noisy")
    return {**found, "said": said.value, "over-recompute": _over_recompute(claims), "section": section,
            "title": claims.title}  # fmt: skip


def _over_recompute(claims: Claims) -> str:
    return next(str(one.value) for one in claims.derived if one.of == "rps-noisy" and one.over == "rps-recompute")


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def the_dose() -> float:
    """Return the published dose: the neighbours' rate over what the storage reads."""
    told = as_printed()
    return _number(told["neighbour-rate"]) / _number(told["storage-read"])


def sentence() -> str:
    """Say what was published of such an experiment, and which of its percentages is which."""
    told = as_printed()
    rates, times = (_number(told["rps-g4"]), _number(told["rps-noisy"])), (told["time-g4"], told["time-noisy"])
    loss, longer = 1 - rates[1] / rates[0], _number(times[1]) / _number(times[0]) - 1
    return (
        f"Published ({told['title']}, {told['section']}): {told['neighbour-rate']} GB/s of neighbours, "
        f"{100 * the_dose():.0f}{SPACE}% of the {told['storage-read']} GB/s that its storage reads. From "
        f"{told['rps-g4']} to {told['rps-noisy']} requests/s is a throughput loss of {share(loss)}; from {times[0]} to "
        f"{times[1]} s is a time increase of {share(longer)}. What is printed there as a reduction in throughput of "
        f"{told['said']}{SPACE}% is the time increase. Whether the load was delivered, and whether storage bound the "
        "quiet run, is not stated there."
    )


def beside(summary: dict[str, Any], levels: Sequence[dict[str, Any]]) -> Grid | None:
    """Put the published experiment beside the levels nearest to its dose; None where no level has a figure."""
    told = as_printed()
    if not levels:
        return None
    columns = (Column("", "name"), Column("Published"), *(Column(one["treatment"]) for one in levels))
    quiet, noisy = _number(told["rps-g4"]), _number(told["rps-noisy"])
    times = _number(told["time-g4"]), _number(told["time-noisy"])
    rows: list[tuple[str, str, str, Callable[[dict[str, Any]], str]]] = [
        ("Neighbours", f"{told['neighbour-rate']} GB/s", "printed, delivered not stated",
         lambda one: shown(one["delivered_bytes_per_s"]["mean"], format_rate)),
        ("Of capacity", share(the_dose()), f"of {told['storage-read']} GB/s",
         lambda one: shown(one["of_capacity"], share)),
        ("Requests/s, quiet to noisy", f"{told['rps-g4']} to {told['rps-noisy']}", "printed",
         lambda one: _from_to(one, summary, "requests_per_s")),
        ("Total time, quiet to noisy", f"{told['time-g4']} to {told['time-noisy']} s", "printed",
         lambda one: _from_to(one, summary, "total_time")),
        ("Throughput loss (1 - noisy / quiet)", share(1 - noisy / quiet), f"{told['said']} % is printed",
         lambda one: share(one["throughput_loss"]["value"])),
        ("Time increase (noisy / quiet - 1)", share(times[1] / times[0] - 1), "derived",
         lambda one: shown(one["time_increase"]["value"], share)),
        ("Requests/s over recompute", f"{told['over-recompute']}x", "printed",
         lambda one: shown(one["requests_over_recompute"]["value"], lambda value: f"{three_digits(value)}x")),
    ]  # fmt: skip
    lines = [
        line(Cell(name, mark="key"), Cell(text, below, "published"), *(form(one) for one in levels))
        for name, text, below, form in rows
    ]
    return Grid(columns, tuple(lines))


def _from_to(level: dict[str, Any], summary: dict[str, Any], metric: str) -> str:
    figures = [summary["treatments"][name]["metrics"][metric]["value"] for name in (level["quiet"], level["treatment"])]
    form = format_duration if metric == "total_time" else three_digits
    return " to ".join(shown(value, form) for value in figures)
