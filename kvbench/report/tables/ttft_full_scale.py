"""Median TTFT at full scale, and what was published for the same prompt length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, ratio_cell, row
from kvbench.report.tables.ttft_by_length import is_compared, key_cells, key_columns, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import LengthRow, Summary
    from kvbench.report.report_input import ReportInput


def ttft_full_scale(given: ReportInput) -> Table | None:
    """Return one row for each length and treatment; None where there is no scale model and no published curve."""
    summary = given.summary
    if not summary.scale and not summary.published:
        return None
    columns = [*key_columns(summary), Column("ttft_p50", "Measured median", "s", "lower")]
    if summary.scale:
        columns.append(Column("full_scale", "At full scale", "s", "lower"))
    if summary.published:
        columns.append(Column("published", "Published", "s", "lower"))
        columns.append(Column("published_kind", "How", kind="text", priority=3))
        columns.append(Column("published_ratio", "Measured / published", "number"))
    if is_compared(summary):
        columns.append(Column("speed_up", "Speed-up", "ratio", "higher", priority=2))
        if summary.published:
            columns.append(Column("published_speed_up", "Speed-up, printed", "ratio", "higher", priority=2))
        if has_load_ratio(summary):
            columns.append(Column("recompute_over_load", "Recompute / load", "number", priority=4))
    rows = tuple(_row(summary, length, name) for length, name in places(summary))
    title = "TTFT beside the published figures" if summary.published else "TTFT at full scale"
    return Table("ttft_full_scale", title, tuple(columns), rows, tuple(_notes(summary)))


def has_load_ratio(summary: Summary) -> bool:
    """Tell whether recompute over load is known anywhere: only where requests were out one at a time."""
    return any(cell.recompute_over_load for length in summary.lengths for cell in length.cells.values())


def _row(summary: Summary, length: LengthRow, name: str) -> Row:
    cell = length.cells[name]
    keys, mark = key_cells(summary, length, name)
    values = [Cell(cell.median_s, refusal="no figure" if cell.median_s is None else None)]
    if summary.scale:
        values.append(Cell(cell.full_scale_median_s, mark="scaled"))
    if summary.published:
        values.append(Cell(cell.published_s, mark="published"))
        values.append(Cell(cell.published_kind or "none", mark="quiet"))
        values.append(Cell(cell.published_ratio))
    if is_compared(summary):
        judged = cell.comparison
        values.append(Cell() if judged is None else ratio_cell(judged, mark=""))
        if summary.published:
            is_other = summary.baselines[name] is None or cell.published_s is None
            values.append(Cell(None if is_other else length.published_speed_up, mark="published"))
        if has_load_ratio(summary):
            values.append(Cell(cell.recompute_over_load))
    return row(*keys, *values, mark=mark)


def _notes(summary: Summary) -> Iterator[str]:
    if summary.scale:
        yield f"At full scale: the measured median times {summary.scale.time:g}, which is no measurement at full scale."
    if summary.published:
        yield (
            f"Published: {summary.published.title}, {summary.published.section}; printed there, or derived from the"
            " printed ends of a curve. Measured / published is taken at the same scale."
        )
    if is_compared(summary) and has_load_ratio(summary):
        yield (
            f"Recompute / load: the median TTFT of {summary.baseline} over the time in which the tier delivered the"
            " KV, the ratio that a scale model must keep."
        )
