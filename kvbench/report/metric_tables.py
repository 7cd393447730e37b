"""The metrics of each treatment over all its prompt lengths, and what they are worth against the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.metrics import METRICS
from kvbench.report.figure_text import SHOWN, interval_text, short_word, value_text, value_with_interval, worth_showing
from kvbench.report.grid import NOTHING, SPACE, Cell, Column, Grid, line, percent, ratio, shown
from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMN = 28  # characters that a treatment takes at most; what does not fit beside the others goes below
_LABELS = 16


def metric_tables(summary: dict[str, Any], width: int = 100) -> Iterator[Table]:
    """Yield tables of as many treatments as fit the width, a metric a row."""
    names = list(summary["treatments"])
    shown_metrics, abreast = _shown(summary), max(1, (width - _LABELS) // _COLUMN)
    for start in range(0, len(names), abreast):
        own = names[start : start + abreast]
        table = Table(
            title="Metrics, all lengths together" if len(summary["lengths"]) > 1 else "Metrics",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("", style="dim", no_wrap=True)
        for name in own:
            table.add_column(Text(name), justify="right")
        for metric in shown_metrics:
            figures = [summary["treatments"][name]["metrics"][metric] for name in own]
            unit = METRICS[metric].unit
            table.add_row(METRICS[metric].label, *(value_with_interval(unit, figure) for figure in figures))
        table.add_row("failed requests", *(_failed(summary["treatments"][name]) for name in own))
        if start + abreast >= len(names):
            table.caption, table.caption_justify = _caption(summary), "left"
        yield table


def _shown(summary: dict[str, Any]) -> list[str]:
    found = [item["metrics"] for item in summary["treatments"].values()]
    return [name for name in SHOWN if worth_showing(name, found)]


def _failed(item: dict[str, Any]) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in item["failures"].items()) or "0"


def _caption(summary: dict[str, Any]) -> str:
    notes = [
        "In brackets the 95 % interval, over requests for percentiles, over rounds for the rest; n=4 < 5: too few."
    ]
    if summary["scale"]:
        notes.append("Times and rates are those of the scale model.")
    return " ".join(notes)


def comparison_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what stands below the tables: rates against the baseline, the noise floor, rounds that would be needed."""
    for name, base in summary["baselines"].items():
        if base is not None and summary["concurrencies"][name] != 1:
            yield from _against(name, base, summary)
    yield from _floors(summary)
    yield from _needed(summary)
    yield from _ranks(summary)
    for name, item in summary["treatments"].items():
        if item["touches"] is not None:
            yield from _touches(name, item["touches"])
    for row in summary["lengths"]:
        for name, cell in row["cells"].items():
            if cell["influence"] is not None:
                yield f"{name}{_at(row)}: {cell['influence']}"


def _against(name: str, base: str, summary: dict[str, Any]) -> Iterator[str]:
    """Yield one line of what a treatment's rates are against the baseline's."""
    found = summary["treatments"][name]["comparisons"]
    told = []
    for metric in ("requests_per_s", "total_time"):
        one = found.get(metric)
        if one is not None:
            interval = f" ({ratio(one['low'])} to {ratio(one['high'])})" if one["low"] is not None else ""
            told.append(f"{METRICS[metric].label} {ratio(one['ratio'])}{interval}, {one['word']}")
    if told:
        yield f"{name} against {base}, above 1x is better: {'; '.join(told)}"


def _floors(summary: dict[str, Any]) -> Iterator[str]:
    floors = [
        cell["comparison"]["noise_floor"]
        for row in summary["lengths"]
        for cell in row["cells"].values()
        if cell["comparison"] is not None and cell["comparison"]["noise_floor"] is not None
    ]
    if floors:
        pairs = ", ".join(f"{other} against {one}" for one, other in summary["same_pairs"])
        ends = [f"{end:.3f}x" for end in (min(floors), max(floors))]
        span = f"{ends[0]} to {ends[1]} by length" if len(summary["lengths"]) > 1 else ends[1]
        yield f"noise floor (A/A, {pairs}): {span}; no smaller difference is claimed"


def _needed(summary: dict[str, Any]) -> Iterator[str]:
    """Yield for each compared treatment how many rounds would show a difference of 5 %, at its noisiest length."""
    for name in summary["treatments"]:
        known = [
            (row, row["cells"][name]["comparison"])
            for row in summary["lengths"]
            if row["cells"][name]["comparison"] is not None and row["cells"][name]["comparison"]["sd_log"] is not None
        ]
        known = [(row, found) for row, found in known if found["refusal"] is None]
        if known:
            row, worst = max(known, key=lambda one: one[1]["sd_log"])
            rounds = worst["rounds_needed"]
            needed = f"{rounds} rounds" if rounds is not None else "more than 10,000 rounds"
            limit = _rounded(worst["detectable"])
            yield (
                f"{name}{_at(row)}, where rounds vary most: these {worst['rounds']} rounds show differences from"
                f" {limit} on; 5 % needs {needed} (power 80 %)"
            )


def _ranks(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what ranks show at the longest prompt where there are too few rounds for an interval."""
    for name in summary["treatments"]:
        for row in reversed(summary["lengths"]):
            cell = row["cells"][name]
            if cell["rank"] is not None and cell["comparison"] is not None:
                if cell["comparison"]["low"] is None:
                    yield f"by rank{_at(row)}: {ranks_text(cell['rank'])}"
                break


def ranks_text(rank: dict[str, Any]) -> str:
    """Write what ranks show with its p-value, unless the sentence itself says that it cannot be small enough."""
    told: str = rank["sentence"]
    return told if "p is at least" in told else f"{told} (p = {rank['p_value']:.2g})"


def _touches(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield both populations of an empty start, and where the hit rate changed."""
    told = []
    for key, words in (("first_touch", "first touches"), ("repeat_touch", "repeat touches")):
        one = found[key]
        median = shown(one["median_s"], format_duration, "no figure")
        hits = shown(one["hit_rate"], lambda share: f", hit rate {_rounded(share)}", "")
        told.append(f"{one['n']} {words} (median TTFT {median}{hits})" if one["n"] else f"no {words}")
    yield f"{name} started empty: {', '.join(told)}"
    for change in found["changes"]:
        rates = " to ".join(_rounded(change[key]) for key in ("before", "after"))
        place = f"at request {change['index'] + 1} of {change['requests']}"
        yield f"{change['run_id']}: the hit rate changed from {rates} {place}"


def _rounded(share: float) -> str:
    return percent(float(f"{share:.3g}")).replace(SPACE, " ")


def _at(row: dict[str, Any]) -> str:
    return "" if row["isl"] is None else f" at {format_count(row['isl'])} tokens"


# -- the page ----------------------------------------------------------------------------------------------------------


def metrics_grid(summary: dict[str, Any]) -> Grid:
    """Give one row for each metric and one column for each treatment; its interval or refusal stands below."""
    names = list(summary["treatments"])
    columns = (Column("Metric", "name"), *(Column(name) for name in names))
    lines = [
        line(
            Cell(METRICS[metric].label, mark="key"),
            *(_page_cell(metric, summary["treatments"][name], name in _compared(summary)) for name in names),
        )
        for metric in _shown(summary)
    ]
    failed = [_failed(summary["treatments"][name]) for name in names]
    cells = [Cell(text, mark="" if text == "0" else "suspect") for text in failed]
    return Grid(columns, (*lines, line(Cell("failed requests", mark="key"), *cells)))


def _compared(summary: dict[str, Any]) -> list[str]:
    return [name for name, base in summary["baselines"].items() if base is not None]


def _page_cell(metric: str, item: dict[str, Any], compared: bool) -> Cell:  # noqa: FBT001
    unit, figure = METRICS[metric].unit, item["metrics"][metric]
    if figure["value"] is None:
        return Cell(figure["refusal"] or NOTHING, mark="quiet")
    below = [interval_text(unit, figure)]
    found = item["comparisons"].get(metric) if compared else None
    if found is not None:
        low = f", {ratio(found['low'])} to {ratio(found['high'])}" if found["low"] is not None else ""
        below.append(f"{ratio(found['ratio'])}{low}: {short_word(found['word'])}")
    return Cell(value_text(unit, figure["value"]), "; ".join(filter(None, below)))
