"""A comparison as the terminal shows it: what differed between two results, then what changed, then the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.metrics import METRICS
from kvbench.report.figure_text import SHOWN, value_text
from kvbench.report.grid import NOTHING
from kvbench.report.metric_tables import ranks_text
from kvbench.units import format_count

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"slower": "red", "lower": "red", "faster": "green", "higher": "green"}
_VERDICTS = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_LEFT_OUT = ("ttft_max", "latency_from_schedule_p50")  # these are in the JSON
_SHORT = 3  # facts of a group that only one side has; more would bury the others
_GATES = {"passed": "green", "tripped": "bold red", "cannot be judged": "bold yellow"}


def print_comparison(found: dict[str, Any], console: Console) -> None:
    """Print what differed before what changed."""
    for side, key in (("A", "base"), ("B", "other")):
        _print_side(side, found[key], console)
    if found["same_result"]:
        console.print(Text("A and B are the same result: nothing can differ.", style="bold yellow"))
    if found["question"]:
        console.print(_differences("Asked differently: the figures below are not of one question", found["question"]))
    if found["facts"]:
        console.print(_differences("What differed around them", found["facts"]))
    elif not found["same_result"]:
        console.print("What differed around them: no fact that kvbench keeps")
    console.print(_figures(found))
    _print_ranks(found, console)
    for gate in found["gates"]:
        line = Text.assemble("gate ", (gate["expression"], "bold"), ": ", (gate["word"], _GATES[gate["word"]]))
        console.print(line.append(f", {gate['reason']}"))


def _print_side(side: str, about: dict[str, Any], console: Console) -> None:
    text = Text(f"{side}  {about['scenario']} {about['result']}  ").append(
        about["verdict"], style=_VERDICTS[about["verdict"]]
    )
    text.append(f", {about['runs_used']} of {about['runs']} runs used")
    text.append("" if about["complete"] else ", not finished")
    text.append(f", imported from {about['imported']}" if about["imported"] else "")
    console.print(text)


def _differences(title: str, found: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold", max_width=34)
    for side in ("A", "B"):
        table.add_column(side, overflow="fold", max_width=32)
    for one in found:
        table.add_row(Text(one["name"]), *(Text(_fact(one[key])) for key in ("base", "other")))
    return table


def _fact(value: Any) -> str:
    if value is None:
        return "not told"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        short = ", ".join(f"{key} {item}" for key, item in value.items() if not isinstance(item, dict | list))
        return short if len(value) <= _SHORT else f"{len(value)} facts, in the JSON"
    return str(value)


def _figures(found: dict[str, Any]) -> Table:
    """Return a row for each figure that at least one side has; times by prompt length where lengths are known."""
    table = Table(title="What changed: B over A", title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("treatment", no_wrap=True)
    for heading in ("A", "B", "B / A", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("said")
    before = ""
    for one in _shown(found["figures"]):
        label = METRICS[one["metric"]].label
        table.add_row("" if label == before else label, *_cells(one))
        before = label
    table.caption, table.caption_justify = _caption(found), "left"
    return table


def _shown(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the table holds: TTFT at each length, other figures over all of them; none that no side has."""
    rows = []
    for name in (name for name in SHOWN if name not in _LEFT_OUT):
        own = [one for one in figures if one["metric"] == name]
        rows += [one for one in own if (one["is_length"] if name == "ttft_p50" else one["length"] is None)]
    return [one for one in rows if one["base"]["value"] or one["other"]["value"]]


def _cells(one: dict[str, Any]) -> list[str | Text]:
    unit = METRICS[one["metric"]].unit
    values = [value_text(unit, one[side]["value"]) for side in ("base", "other")]
    length = "all" if one["length"] is None else format_count(one["length"])
    ratio = NOTHING if one["ratio"] is None else f"{one['ratio']:.3f}"
    interval = f"{one['low']:.3f}\N{EN DASH}{one['high']:.3f}" if one["low"] is not None else "n/a"
    return [length, Text(one["treatment"]), *values, ratio, interval, Text(one["word"], _STYLES.get(one["word"], ""))]


def _caption(found: dict[str, Any]) -> str:
    of_ttft = [one for one in found["figures"] if one["metric"] == "ttft_p50" and one["is_length"]]
    floors = [one["noise_floor"] for one in of_ttft if one["noise_floor"] is not None]
    notes = ["Intervals of two samples of rounds; Holm's correction over the rows of one figure."]
    if floors and not found["same_result"]:
        notes.append(f"Noise floor of TTFT (A/A): up to {max(floors):.3f}x.")
    elif not found["same_result"]:
        notes.append("No A/A pair: what drifted between the two results is not known.")
    reasons = {one["reason"] for one in _shown(found["figures"]) if one["low"] is None}
    return " ".join([*notes, *(f"n/a: {reason}." for reason in sorted(reasons) if not found["same_result"])])


def _print_ranks(found: dict[str, Any], console: Console) -> None:
    """Say what ranks show where there are too few rounds for an interval."""
    for one in _shown(found["figures"]):
        if one["rank"] is not None:
            label, length = METRICS[one["metric"]].label, one["length"]
            place = one["treatment"] + ("" if length is None else f", {format_count(length)} tokens")
            console.print(Text(f"by rank, {label} of {place}: {ranks_text(one['rank'])}", style="dim"))
