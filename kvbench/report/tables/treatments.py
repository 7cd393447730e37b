"""The table with one row for each treatment, for scenarios with several set-ups and concurrencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.percentile import needed_n
from kvbench.report.table import Cell, Column, Row, Table, figure_cell, row
from kvbench.report.tables.metrics import metric_column
from kvbench.report.text import scale_note, signed_percent, tiers_text, word_mark

if TYPE_CHECKING:
    from kvbench.analysis.summary_types import Summary, TreatmentSummary
    from kvbench.report.report_input import ReportInput


def treatments(given: ReportInput) -> Table | None:
    """Return means with their change against the baseline, percentiles, failures and tiers.

    None where treatments neither differ in concurrency nor are conversations.
    """
    summary = given.summary
    if summary.turns is None and len(set(summary.concurrencies.values())) < 2:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("concurrency", "Concurrency", "count"),
        Column("n", "n", "count", is_key=True),
        metric_column("user_rate_mean", "Tokens/s a user"),
        Column("user_rate_change", "Change", "change", "higher", interval_priority=3),
        metric_column("ttft_mean", "Mean TTFT"),
        Column("ttft_change", "Change", "change", "lower", interval_priority=3),
        metric_column("ttft_p95", "P95"),
        metric_column("ttft_p99", "P99"),
        Column("failed", "Failed", "share", "lower"),
        Column("served_from", "Served from", kind="text"),
    )
    rows = tuple(_row(name, item, summary.concurrencies[name]) for name, item in summary.treatments.items())
    p95, p99 = (needed_n(percentile, two_sided=False) for percentile in (95, 99))
    notes = (
        (
            "Tokens/s a user and TTFT are means over requests; change: against the treatment's own baseline, by rounds;"
            " ? no difference shown, \N{DAGGER} too few rounds, = equivalent within 5 %."
        ),
        f"P95 needs {p95} and P99 {p99} conversations or prompts.",
        *scale_note(summary),
    )
    return Table("treatments", _title(summary), columns, rows, notes)


def _title(summary: Summary) -> str:
    turns = summary.turns
    if turns is None:
        return "Treatments side by side"
    return f"Conversations of {turns.count} turns, {turns.history} history"


def _row(name: str, item: TreatmentSummary, concurrency: int | None) -> Row:
    figures = item.metrics
    return row(
        Cell(name, mark="key"),
        concurrency,
        figures["ttft_mean"].n,
        figure_cell(figures["user_rate_mean"]),
        _change(item, "user_rate_mean", 1),
        figure_cell(figures["ttft_mean"]),
        _change(item, "ttft_mean", -1),
        figure_cell(figures["ttft_p95"]),
        figure_cell(figures["ttft_p99"]),
        sum(item.failures.values()) / max(1, item.sent),
        tiers_text(item.tiers) or None,
    )


def _change(item: TreatmentSummary, metric: str, direction: int) -> Cell:
    """Return the change of a figure over the baseline's, and the mark of its word; a ratio above 1 means better."""
    judged = item.comparisons.get(metric)
    if judged is None or not judged.ratio:
        return Cell()
    change = judged.ratio**direction - 1
    text = f"{signed_percent(change)}{word_mark(judged.word)}"
    if judged.low is None or judged.high is None:
        return Cell(change, text=text, refusal=judged.refusal)
    low, high = sorted((judged.low**direction - 1, judged.high**direction - 1))
    return Cell(change, text=text, low=low, high=high)
