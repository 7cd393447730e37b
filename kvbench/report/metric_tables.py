"""The metrics of each treatment over all its prompt lengths, and what they are worth against the baseline."""

from __future__ import annotations

import itertools
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.analysis.stats.ratios import FEWEST_ROUNDS
from kvbench.metrics import METRICS
from kvbench.report.figure_text import (
    SHOWN,
    dependence_note,
    interval_text,
    mark_note,
    marked,
    short_word,
    value_text,
    value_with_interval,
    worth_showing,
)
from kvbench.report.grid import (
    NOTHING,
    SPACE,
    Cell,
    Column,
    Grid,
    line,
    percent,
    ratio,
    served_cell,
    shown,
    three_digits,
)
from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMN = 28  # characters that a treatment takes at most; what does not fit beside the others goes below
_LABELS = 16
_ABREAST = 4  # treatments beside one another on a page


def metric_tables(summary: dict[str, Any], width: int = 100) -> Iterator[Table | Text]:
    """Yield tables of as many treatments as fit the width, a metric a row, and at the end what their columns are."""
    names = list(summary["treatments"])
    shown_metrics, abreast = _shown(summary), max(1, (width - _LABELS) // _COLUMN)
    for start in range(0, len(names), abreast):
        own = names[start : start + abreast]
        table = Table(
            title=_title(summary, is_first=start == 0),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("", style="dim", no_wrap=True)
        for name in own:
            table.add_column(Text(marked(name, summary)), justify="right")
        table.add_row("answered requests", *(_answered(summary["treatments"][name]) for name in own))
        for metric in shown_metrics:
            figures = [summary["treatments"][name]["metrics"][metric] for name in own]
            unit = METRICS[metric].unit
            table.add_row(METRICS[metric].label, *(value_with_interval(unit, figure) for figure in figures))
        table.add_row("failed requests", *(_failed(summary["treatments"][name]) for name in own))
        yield table
    yield Text(_caption(summary), style="dim italic")


def _title(summary: dict[str, Any], *, is_first: bool) -> str:
    if not is_first:
        return "Metrics, more treatments"
    return "Metrics, all lengths together" if len(summary["lengths"]) > 1 else "Metrics"


def _shown(summary: dict[str, Any]) -> list[str]:
    found = [item["metrics"] for item in summary["treatments"].values()]
    return [name for name in SHOWN if worth_showing(name, found)]


def _answered(item: dict[str, Any]) -> str:
    """Return the n that stands behind every figure of a treatment: its requests and its rounds."""
    return f"{item['requests']} in {item['runs_used']} round{'' if item['runs_used'] == 1 else 's'}"


def _failed(item: dict[str, Any]) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in item["failures"].items()) or "0"


def _caption(summary: dict[str, Any]) -> str:
    figures = [figure for item in summary["treatments"].values() for figure in item["metrics"].values()]
    has_few = any(figure["value"] is not None and "n=" in (figure["refusal"] or "") for figure in figures)
    notes = [
        "In brackets the 95 % interval, over requests for percentiles, over rounds (from 3 on) for the rest.",
        "In its place n=4 < 5: too few requests." if has_few else "",
        dependence_note(summary),
        mark_note(summary),
    ]
    if summary["scale"]:
        notes.append("Times and rates are those of the scale model.")
    return " ".join(filter(None, notes))


def comparison_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what stands below the tables: the noise floor, the rounds that would be needed, touches, influence."""
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


def course_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield for each empty start how it went, by quarters of a run's time: means over the rounds that have a course."""
    for name, item in summary["treatments"].items():
        if item["touches"] is None or not item["courses"]:
            continue
        rounds = [_quarters(one) for one in item["courses"]]
        rates, hits, prompts = (
            [[quarter[place] for quarter in one] for one in zip(*rounds, strict=True)] for place in range(3)
        )
        told = [f"{', '.join(three_digits(fmean(one)) for one in rates)} answers/s"]
        if not any(value is None for one in hits for value in one):
            told.append(f"hit rate so far {', '.join(f'{100 * fmean(one):.0f}' for one in hits)} %")
        told.append(f"distinct prompts so far {', '.join(f'{fmean(one):.0f}' for one in prompts)}")
        yield f"{name} by quarters of its time: {'; '.join(told)}"


def _quarters(course: dict[str, Any]) -> list[tuple[float, float | None, float]]:
    """Return the rate of answers in each quarter, and hit rate and distinct prompts at its end."""
    answered, count = course["answered"], len(course["answered"])
    edges = [round(count * quarter / 4) for quarter in range(5)]
    return [
        (
            sum(answered[start:end]) / (course["slice_s"] * (end - start)),
            course["hit_rate"][end - 1] if course["hit_rate"] else None,
            course["distinct_prompts"][end - 1],
        )
        for start, end in itertools.pairwise(edges)
    ]


def _judged(summary: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the comparisons of a treatment that answer the question, each with where it was made: TTFT by length."""
    if summary["headline"] != "ttft_p50":
        found = summary["treatments"][name]["comparisons"].get(summary["headline"])
        return [(f", {METRICS[summary['headline']].label}", found)] if found is not None else []
    cells = [(_at(row), row["cells"][name]["comparison"]) for row in summary["lengths"]]
    return [(place, found) for place, found in cells if found is not None]


def _floors(summary: dict[str, Any]) -> Iterator[str]:
    judged = [found for name in summary["treatments"] for _, found in _judged(summary, name)]
    floors = [found["noise_floor"] for found in judged if found["noise_floor"] is not None]
    if not floors:
        return
    pairs = ", ".join(f"{other} against {one}" for one, other in summary["same_pairs"])
    low, high = (f"{end:.3f}x" for end in (min(floors), max(floors)))
    span = f"{low} to {high} by length" if low != high else high
    rounds = summary["same_pair_rounds"]
    told = f"{rounds} rounds" if rounds >= FEWEST_ROUNDS else f"the most seen in {rounds} round{'s' * (rounds > 1)}"
    label = METRICS[summary["headline"]].label
    yield f"noise floor of {label} (A/A, {pairs}; {told}): {span}; no smaller difference is claimed"


def _needed(summary: dict[str, Any]) -> Iterator[str]:
    """Yield for each compared treatment how many rounds would show a difference of 5 %, where its rounds vary most."""
    for name in summary["treatments"]:
        if _is_again(summary, name):
            continue
        known = [(place, found) for place, found in _judged(summary, name) if found["refusal"] is None]
        if known := [(place, found) for place, found in known if found["sd_log"] is not None]:
            place, worst = max(known, key=lambda one: one[1]["sd_log"])
            rounds = worst["rounds_needed"]
            needed = f"{rounds} rounds" if rounds is not None else "more than 10,000 rounds"
            most = ", where rounds vary most" if len(known) > 1 else ""
            yield (
                f"{name}{place}{most}: these {worst['rounds']} rounds show differences from"
                f" {_rounded(worst['detectable'])} on; 5 % needs {needed} (power 80 %)"
            )


def _is_again(summary: dict[str, Any], name: str) -> bool:
    """Tell whether a treatment is its own baseline over again."""
    return frozenset((name, summary["baselines"][name])) in {frozenset(pair) for pair in summary["same_pairs"]}


def _ranks(summary: dict[str, Any]) -> Iterator[str]:
    """Yield at the longest prompt that one arm lies beyond the other, where there are too few rounds to say more."""
    for name in summary["treatments"]:
        cells = [(row, row["cells"][name]) for row in reversed(summary["lengths"])]
        row, cell = next(((row, cell) for row, cell in cells if cell["rank"] is not None), (None, None))
        if row is None or cell is None or cell["comparison"] is None or _is_again(summary, name):
            continue
        if cell["comparison"]["low"] is None and cell["rank"]["is_separate"]:
            yield f"TTFT by rank{_at(row)}, in these runs alone: {cell['rank']['sentence']}"


def _touches(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield the populations of an empty start, overlapping requests only if there are any, and the changed hit rate."""
    told = []
    kinds = [("first_touch", "first touches"), ("repeat_touch", "repeat touches")]
    if found["overlapping"]["n"]:
        kinds.append(("overlapping", "overlapping requests of one prompt"))
    for key, words in kinds:
        one = found[key]
        median = shown(one["median_s"], format_duration, "no figure")
        hits = shown(one["hit_rate"], lambda share: f", hit rate {_rounded(share)}", "")
        told.append(f"{one['n']} {words} (median TTFT {median}{hits})" if one["n"] else f"no {words}")
    yield f"{name} started empty: {', '.join(told)}"
    changes = [
        f"from {_rounded(one['before'])} to {_rounded(one['after'])} at request {one['index'] + 1} of {one['requests']}"
        f" ({one['run_id']})"
        for one in found["changes"]
    ]
    if changes:
        yield f"{name}: the hit rate changed {', '.join(changes)}"


def _rounded(share: float) -> str:
    return percent(float(f"{share:.3g}")).replace(SPACE, " ")


def _at(row: dict[str, Any]) -> str:
    return "" if row["isl"] is None else f" at {format_count(row['isl'])} tokens"


# -- the page ----------------------------------------------------------------------------------------------------------


def metrics_grids(summary: dict[str, Any]) -> Iterator[Grid]:
    """Yield grids of as many treatments as a page is wide: a row for each metric, its interval or refusal below it."""
    names, compared, metrics = list(summary["treatments"]), _compared(summary), _shown(summary)
    tables = -(-len(names) // _ABREAST)
    abreast = -(-len(names) // max(1, tables))  # as alike as can be: 3 and 2, not 4 and 1
    for start in range(0, len(names), abreast):
        own = names[start : start + abreast]
        items = [summary["treatments"][name] for name in own]
        lines = [
            line(
                Cell(METRICS[metric].label, mark="key"),
                *(_page_cell(metric, summary["treatments"][name], name in compared) for name in own),
            )
            for metric in metrics
        ]
        counts = line(Cell("answered requests", mark="key"), *map(_answered, items))
        served = line(Cell("served from", mark="key"), *(_served_cell(item["tiers"]) for item in items))
        failed = [_failed(item) for item in items]
        failures = line(
            Cell("failed requests", mark="key"), *(Cell(n, mark="" if n == "0" else "suspect") for n in failed)
        )
        yield Grid((Column("Metric", "name"), *map(Column, own)), (counts, served, *lines, failures))


def _served_cell(tiers: dict[str, int]) -> Cell:
    """Show the share of each tier, one below the other, since a column of numbers does not wrap."""
    cell = served_cell(tiers)
    first, *others = cell.text.split(", ")
    return Cell(first, "\n".join(others), cell.mark)


def _compared(summary: dict[str, Any]) -> list[str]:
    return [name for name, base in summary["baselines"].items() if base is not None]


def _page_cell(metric: str, item: dict[str, Any], compared: bool) -> Cell:  # noqa: FBT001
    unit, figure = METRICS[metric].unit, item["metrics"][metric]
    if figure["value"] is None:
        return Cell(figure["refusal"] or NOTHING, mark="quiet")
    below = [interval_text(unit, figure)]
    found = item["comparisons"].get(metric) if compared else None
    if found is not None:
        interval = (
            f" ({three_digits(found['low'])}\N{EN DASH}{ratio(found['high'])})" if found["low"] is not None else ""
        )
        below.append(f"{ratio(found['ratio'])}{interval} {short_word(found['word'])}")
    return Cell(value_text(unit, figure["value"]), "\n".join(filter(None, below)))
