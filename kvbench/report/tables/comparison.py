"""The tables of a comparison: what differed between two results, what changed, and the gates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.analysis.metrics import METRICS
from kvbench.report.tables.metrics import SHOWN
from kvbench.report.text import NOTHING, length_text, short_word, value_text
from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from kvbench.analysis.comparison_types import ComparedFigure, ComparedResult, Difference, ResultComparison

_STYLES = {"slower": "red", "lower": "red", "faster": "green", "higher": "green"}
_VERDICTS = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_LEFT_OUT = ("ttft_max",)  # in the JSON
_SHORT = 3  # facts of a group, or figures of a reason, that are named; more would bury the others
_GATES = {"passed": "green", "tripped": "bold red", "cannot be judged": "bold yellow"}
_COMMIT = re.compile("[0-9a-f]{40}")
_WIDE = 100  # characters of a terminal in which a figure's name has a column of its own
_MAY_BE_NONE = ("slo.", "calibration.", "setting.tiers.")  # where nothing is a setting too


def print_comparison(comparison: ResultComparison, console: Console) -> None:
    """Print what differed before what changed."""
    for side, result in (("A", comparison.base), ("B", comparison.other)):
        _print_side(side, result, console)
    if comparison.same_result:
        console.print(Text("A and B are the same result: nothing can differ.", style="bold yellow"))
    if comparison.question:
        title = "Asked differently: the figures below are not of one question"
        console.print(_differences(title, comparison.question, console.width))
    _print_facts(comparison, console)
    console.print(_figures(comparison, wide=console.width >= _WIDE))
    for text in _notes(comparison):
        console.print(Text(text, style="dim"))
    for gate in comparison.gates:
        line = Text.assemble("gate ", (gate.expression, "bold"), ": ", (gate.word, _GATES[gate.word]))
        console.print(line.append(f", {gate.reason}"))
        if gate.remedy:
            console.print(Text(f"  {gate.remedy}", style="dim"))


def _print_side(side: str, about: ComparedResult, console: Console) -> None:
    text = Text(f"{side}  {about.scenario} {about.result}  ").append(about.verdict, style=_VERDICTS[about.verdict])
    text.append(f", {about.runs_used} of {about.runs} runs used")
    text.append("" if about.complete else ", not finished")
    text.append(f", imported from {about.imported}" if about.imported else "")
    console.print(text)


def _print_facts(comparison: ResultComparison, console: Console) -> None:
    """Print what differed around both; of what only one of them tells (an older one has less) the names are enough."""
    title = "What differed around them"
    both = [one for one in comparison.facts if not _is_one_sided(one)]
    lone = [one.name for one in comparison.facts if _is_one_sided(one)]
    if both:
        console.print(_differences(title, both, console.width))
    elif not comparison.same_result:
        console.print(f"{title}: no fact that both of them tell")
    if lone:
        console.print(Text(f"Told by one of them alone: {', '.join(lone)} (values with --json)", style="dim"))


def _is_one_sided(difference: Difference) -> bool:
    return None in (difference.base, difference.other) and not difference.name.startswith(_MAY_BE_NONE)


def _differences(title: str, differences: Sequence[Difference], width: int) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    name = min(36, max(len(one.name) for one in differences), (width - 4) * 2 // 5)
    table.add_column("", overflow="fold", max_width=name)
    for side in ("A", "B"):
        table.add_column(side, overflow="fold", max_width=(width - 4 - name) // 2)
    for one in differences:
        table.add_row(Text(one.name), Text(_fact(one.base)), Text(_fact(one.other)))
    return table


def _fact(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        short = ", ".join(f"{key} {item}" for key, item in value.items() if not isinstance(item, dict | list))
        return short if len(value) <= _SHORT else f"{len(value)} facts, in the JSON"
    return str(value)[:12] if _COMMIT.fullmatch(str(value)) else str(value)


def _figures(comparison: ResultComparison, *, wide: bool) -> Table:
    """Return a row for each figure that at least one side has; its name stands above its rows where width is scarce."""
    table = Table(title="What changed: B over A", title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in ("figure",) * wide:
        table.add_column(heading, no_wrap=True)
    table.add_column("treatment", overflow="fold")
    for heading in ("tokens", "A", "B", "B / A", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("said")
    before = ""
    for one in _shown(comparison.figures):
        label = METRICS[one.metric].label
        if wide:
            table.add_row(label if label != before else "", *_cells(one))
        else:
            if label != before:
                table.add_row(Text(label, style="bold"))
            table.add_row(*_cells(one, indent="  "))
        before = label
    return table


def _shown(figures: Sequence[ComparedFigure]) -> list[ComparedFigure]:
    """Return what the table holds: TTFT at each length, other figures over all of them; none that no side has."""
    rows = []
    for name in (name for name in SHOWN if name not in _LEFT_OUT):
        own = [one for one in figures if one.metric == name]
        rows += [one for one in own if (one.is_length if name == "ttft_p50" else one.length is None)]
    return [one for one in rows if one.base.value or one.other.value]


def _cells(figure: ComparedFigure, indent: str = "") -> list[str | Text]:
    unit = METRICS[figure.metric].unit
    values = figure.over_rounds or (figure.base.value, figure.other.value)
    ratio = NOTHING if figure.ratio is None else f"{figure.ratio:.3f}"
    interval = f"{figure.low:.3f}\N{EN DASH}{figure.high:.3f}" if figure.low is not None else NOTHING
    word = Text(short_word(figure.word), _STYLES.get(figure.word, ""))
    figures = [value_text(unit, value) for value in values]
    return [Text(indent + figure.treatment), length_text(figure.length), *figures, ratio, interval, word]


def _notes(comparison: ResultComparison) -> list[str]:
    """Say what the columns are, how far a result differs from itself, why intervals are missing, what ranks show."""
    rows = _shown(comparison.figures)
    columns = "A and B: geometric mean over rounds, so that B over A is the ratio. Interval of two samples of rounds;"
    notes = [f"{columns} said with Holm's correction over the rows of a figure."]
    if any(one.over_rounds is None for one in rows):
        notes.append("Without a ratio, A and B are the figures over all requests, or over those rounds that have one.")
    if comparison.same_result:
        return notes
    reasons: dict[str, list[str]] = {}
    for one in rows:
        if one.low is None:
            reasons.setdefault(f"{short_word(one.word)}: {one.reason}", []).append(METRICS[one.metric].label)
    notes.append(_floor_note(comparison))
    notes += [f"{reason}{_listed(labels, reason)}." for reason, labels in reasons.items()]
    return notes + _ranks(rows)


def _listed(labels: list[str], reason: str) -> str:
    """Name the figures that a reason holds for, unless it does so itself; their number where they are many."""
    names = list(dict.fromkeys(label for label in labels if label not in reason))
    if not names:
        return ""
    return f" ({', '.join(names)})" if len(names) <= _SHORT else f" ({len(names)} figures)"


def _floor_note(comparison: ResultComparison) -> str:
    of_ttft = [one for one in comparison.figures if one.metric == "ttft_p50" and one.is_length]
    floors = [one.noise_floor for one in of_ttft if one.noise_floor is not None]
    if not floors:
        return "No A/A pair: what drifted between the two results is not known."
    rounds_of_pairs = (comparison.base.same_pair_rounds, comparison.other.same_pair_rounds)
    counts = [count for count in rounds_of_pairs if count]
    rounds = f"{min(counts)} round{'s' if min(counts) > 1 else ''}"
    return f"Noise floor of TTFT (A/A, {rounds}): up to {max(floors):.3f}x; no smaller difference is claimed."


def _ranks(rows: Sequence[ComparedFigure]) -> list[str]:
    """Name the places where all TTFTs of one side lie beyond all of the other, where rounds are too few to say more."""
    found: dict[str, list[str]] = {}
    for one in rows:
        if one.metric == "ttft_p50" and one.rank is not None and one.rank.is_separate:
            place = one.treatment + ("" if one.length is None else f" {format_count(one.length)}")
            side = "above" if one.rank.superiority == 0 else "below"
            found.setdefault(side, []).append(f"{place} (n={one.rank.n_b} and {one.rank.n_a})")
    told = "Each TTFT of B is {} each of A, in these runs alone: {}."
    return [told.format(side, ", ".join(places)) for side, places in found.items()]
