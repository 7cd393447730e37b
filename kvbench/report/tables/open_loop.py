"""The table of open loops: every figure from the send and from the schedule, and their difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, figure_cell, row
from kvbench.report.tables.metrics import metric_column
from kvbench.report.text import SPACE, scale_note, three_digits, value_text
from kvbench.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import OpenLoopSummary, ScheduleFigure, Summary
    from kvbench.report.report_input import ReportInput

_SIDES = ("from send", "from schedule", "difference")


def open_loop(given: ReportInput) -> Table | None:
    """Return three rows for each open loop, and a column for each figure; None where every loop is a closed one."""
    loops = dict(_loops(given.summary))
    figures = {figure.name: figure for loop in loops.values() for figure in loop.figures if _is_worth_showing(figure)}
    if not loops:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("counted", "Counted", kind="text", is_key=True),
        Column("offered_per_s", "Requests due", "1/s"),
        Column("arrival", "Arrival", kind="text"),
        Column("achieved_per_s", "Requests answered", "1/s", "higher"),
        Column("n", "n", "count"),
        *(metric_column(figure.name, figure.label) for figure in figures.values()),
    )
    rows = tuple(_row(name, loop, side, list(figures)) for name, loop in loops.items() for side in _SIDES)
    notes = (
        "When `concurrency` requests are already out, the next one waits.",
        "Only the figures from the schedule include that wait.",
        "In other tables TTFT counts from the send, goodput and SLO attainment from the schedule.",
        *scale_note(given.summary),
    )
    title = "Open loop: from the send and from the schedule"
    return Table("open_loop", title, columns, rows, notes, is_turned=True)


def sentences(summary: Summary) -> Iterator[str]:
    """Yield for each open loop that was no steady one what its figures are worth."""
    for name, loop in _loops(summary):
        if not loop.grew or loop.first_quarter_s is None or loop.last_quarter_s is None or loop.growth is None:
            continue
        achieved = loop.achieved_per_s.value
        answered = f", {three_digits(achieved)} were answered" if achieved is not None else ""
        yield (
            f"{name}: {three_digits(loop.offered_per_s or loop.request_rate)} requests/s were due{answered}, and a"
            f" queue grew: median latency from the schedule {format_duration(loop.first_quarter_s)} in the first"
            f" quarter of the list, {format_duration(loop.last_quarter_s)} in the last, which is"
            f" {three_digits(loop.growth)} s for each second of the schedule. Its times are those of a list of this"
            " length and would go on growing with a longer one."
        )


def _loops(summary: Summary) -> Iterator[tuple[str, OpenLoopSummary]]:
    for name, item in summary.treatments.items():
        if item.open_loop is not None:
            yield name, item.open_loop


def _is_worth_showing(figure: ScheduleFigure) -> bool:
    """Tell whether a side has the figure; without an SLO nobody has those against it."""
    return any(side.value is not None or side.n for side in (figure.from_send, figure.from_schedule))


def _row(name: str, loop: OpenLoopSummary, side: str, names: list[str]) -> Row:
    found = {figure.name: figure for figure in loop.figures}
    cells = [_cell(found[metric], side) if metric in found else Cell() for metric in names]
    keys = [Cell(name, mark="key"), Cell(side)]
    if side != _SIDES[0]:
        return row(*keys, *[Cell(text="")] * 4, *cells)
    offered = loop.offered_per_s or loop.request_rate
    achieved = figure_cell(loop.achieved_per_s)
    return row(*keys, offered, loop.arrival, achieved, max(figure.from_send.n for figure in loop.figures), *cells)


def _cell(figure: ScheduleFigure, side: str) -> Cell:
    send, due = figure.from_send, figure.from_schedule
    if side != _SIDES[2]:
        return figure_cell(send if side == _SIDES[0] else due)
    if send.value is None or due.value is None:
        return Cell()
    return Cell(due.value - send.value, text=_difference_text(figure, due.value - send.value))


def _difference_text(figure: ScheduleFigure, difference: float) -> str:
    """Write how much more the schedule shows than the send; shares in points."""
    if not difference:
        return "none"
    if figure.unit == "share":
        return f"{difference * 100:+.3g}{SPACE}points"
    return f"{'-' if difference < 0 else '+'}{value_text('s' if figure.unit == 's' else '1/s', abs(difference))}"
