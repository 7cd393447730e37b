"""Prints a comparison of two results: facts before figures, what is said below them, and the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvbench.analysis.metrics import METRICS
from kvbench.report.render.to_rich import print_table
from kvbench.report.tables.comparison import (
    compared_figures,
    differing_facts,
    differing_questions,
    is_one_sided,
    shown_figures,
)
from kvbench.report.text import short_word
from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from kvbench.analysis.comparison_types import ComparedFigure, ComparedResult, ResultComparison

_VERDICTS = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_GATES = {"passed": "green", "tripped": "bold red", "cannot be judged": "bold yellow"}
_MOST_LABELS = 3  # figures of a reason that are named; of more, their number


def print_comparison(comparison: ResultComparison, console: Console) -> None:
    """Print what differed before what changed."""
    for side, result in (("A", comparison.base), ("B", comparison.other)):
        _print_side(side, result, console)
    if comparison.same_result:
        console.print(Text("A and B are the same result: nothing can differ.", style="bold yellow"))
    if (questions := differing_questions(comparison)) is not None:
        console.print()
        print_table(questions, console)
    _print_facts(comparison, console)
    console.print()
    print_table(compared_figures(comparison), console)
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
    table = differing_facts(comparison)
    if table is not None:
        console.print()
        print_table(table, console)
    elif not comparison.same_result:
        console.print("What differed around them: no fact that both of them tell")
    if lone := [one.name for one in comparison.facts if is_one_sided(one)]:
        console.print(Text(f"Told by one of them alone: {', '.join(lone)} (values with --json)", style="dim"))


def _notes(comparison: ResultComparison) -> list[str]:
    """Say what the columns are, how far a result differs from itself, why intervals are missing, what ranks show."""
    rows = shown_figures(comparison.figures)
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
    return f" ({', '.join(names)})" if len(names) <= _MOST_LABELS else f" ({len(names)} figures)"


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
