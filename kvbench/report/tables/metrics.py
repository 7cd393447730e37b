"""The metrics of each treatment over all prompt lengths, and their ratios to the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.analysis.aggregate import PROMPTS_REPEAT, SEVERAL_TURNS
from kvbench.analysis.metrics import METRICS
from kvbench.report.table import Cell, Column, Row, Table, figure_cell, row
from kvbench.report.text import (
    DASH,
    SPACE,
    failures_text,
    mark_note,
    marked,
    ratio,
    scale_note,
    short_word,
    tiers_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import Summary, TreatmentSummary
    from kvbench.report.report_input import ReportInput

SHOWN = tuple(name for name, metric in METRICS.items() if metric.in_table)


def metrics(given: ReportInput) -> Table:
    """Return one row for each treatment and one column for each metric of which any treatment has something to say."""
    summary = given.summary
    names = [name for name in SHOWN if _is_worth_showing(name, summary)]
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("requests", "Answered requests", "count"),
        Column("rounds", "Rounds", "count"),
        Column("served_from", "Served from", kind="text"),
        *(metric_column(name) for name in names),
        Column("failed", "Failed requests", kind="text"),
    )
    rows = tuple(_row(name, item, names, summary) for name, item in summary.treatments.items())
    title = "Metrics, all prompt lengths together" if len(summary.lengths) > 1 else "Metrics"
    return Table("metrics", title, columns, rows, tuple(_notes(summary)), is_turned=True)


def metric_column(name: str, heading: str | None = None) -> Column:
    """Return the column of a metric."""
    metric = METRICS[name]
    return Column(name, heading or metric.label, metric.unit, "lower" if metric.kind == "time" else "higher")


def _is_worth_showing(name: str, summary: Summary) -> bool:
    """Tell whether a metric says anything of any treatment: a value, or a refusal that names its n."""
    figures = [item.metrics[name] for item in summary.treatments.values()]
    if METRICS[name].of_run is not None:
        return any(figure.value is not None for figure in figures)
    return any(figure.n for figure in figures)


def _row(name: str, item: TreatmentSummary, names: list[str], summary: Summary) -> Row:
    odd = {"unproven", "mixed"} & set(item.tiers)
    failed = failures_text(item.failures)
    return row(
        Cell(name, text=marked(name, summary)),
        item.requests,
        item.runs_used,
        Cell(tiers_text(item.tiers) or None, mark="suspect" if odd else ""),
        *(_cell(metric, item) for metric in names),
        Cell(failed, mark="" if failed == "0" else "suspect"),
    )


def _cell(name: str, item: TreatmentSummary) -> Cell:
    """Show a figure; below it how it compares with the baseline, above 1x is better."""
    figure, judged = item.metrics[name], item.comparisons.get(name)
    if figure.value is None or judged is None or judged.ratio is None:
        return figure_cell(figure)
    known = judged.low is not None and judged.high is not None
    interval = f" ({ratio(judged.low or 0.0).removesuffix('x')}{DASH}{ratio(judged.high or 0.0)})" if known else ""
    return figure_cell(figure, below=f"{ratio(judged.ratio)}{interval} {short_word(judged.word)}".replace(" ", SPACE))


def _notes(summary: Summary) -> Iterator[str]:
    yield "With each figure its 95 % interval: over requests for percentiles, over rounds (from 3 on) for the rest."
    figures = [figure for item in summary.treatments.values() for figure in item.metrics.values()]
    if any(figure.value is not None and "n=" in (figure.refusal or "") for figure in figures):
        yield "In its place n=4 < 5: too few requests."
    if any(item.comparisons for item in summary.treatments.values()):
        yield "Ratios are to the baseline, above 1x is better."
    yield from _dependence_note(summary)
    yield from mark_note(summary)
    yield from scale_note(summary)


def _dependence_note(summary: Summary) -> Iterator[str]:
    """Explain the words in place of an interval where requests are not independent."""
    refusals = [figure.refusal or "" for item in summary.treatments.values() for figure in item.metrics.values()]
    if any(SEVERAL_TURNS in refusal or "conversations <" in refusal for refusal in refusals):
        yield (
            f"{SEVERAL_TURNS.capitalize()}: turns of one conversation are not independent, so percentiles beyond the"
            " median have no interval; a number of conversations: too few of them."
        )
    elif any(PROMPTS_REPEAT in refusal or "prompts <" in refusal for refusal in refusals):
        yield (
            f"{PROMPTS_REPEAT.capitalize()}: requests of one prompt in one run are not independent, so percentiles"
            " beyond the median have no interval; a number of prompts: too few of them, each counted once a run."
        )
