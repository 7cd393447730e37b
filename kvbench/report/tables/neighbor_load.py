"""What was asked of neighbours, and what they delivered in the load window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.tables.neighbors import rate_cell, verdicts_cell

if TYPE_CHECKING:
    from kvbench.analysis.neighbor_types import NeighborLevel, QuietArm
    from kvbench.report.report_input import ReportInput

_PACED = 0.97  # of what was asked; less is marked


def neighbor_load(given: ReportInput) -> Table | None:
    """Return one row for each quiet treatment and each level; None without neighbours."""
    impact = given.summary.neighbors
    if impact is None:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("load", "Neighbours", kind="text", priority=3),
        Column("asked_bytes_per_s", "Asked", "bytes/s"),
        Column("delivered_bytes_per_s", "Delivered", "bytes/s"),
        Column("of_asked", "Of asked", "share"),
        Column("of_capacity", "Of capacity", "share"),
        Column("capacity", "Capacity is", kind="text", priority=4),
        Column("passed_bytes_per_s", "Passed together", "bytes/s", priority=5),
        Column("of_limit", "Of the limit", "share", priority=5),
        Column("starts_within", "Starts within", "s", "lower", priority=6),
        Column("stops_within", "Stops within", "s", "lower", priority=6),
        Column("runs", "Runs", kind="text"),
    )
    rows = [_quiet_row(name, arm) for name, arm in impact.quiet.items()]
    rows += [_level_row(level) for level in impact.levels]
    notes = (
        "Means over the runs that are used, in the load window.",
        "Of alone: of what the side clients reach when nobody else reads.",
        "Passed together: KV and neighbours; a limit may let several streams pass a little more than it says.",
        "Starts within: between the first and the last generator to start; the largest of all runs.",
        "Stops within: from the order to stop to the end of the last generator; the largest of all runs.",
    )
    return Table("neighbor_load", "Neighbours: what they delivered", columns, tuple(rows), notes)


def _quiet_row(name: str, arm: QuietArm) -> Row:
    load = arm.load
    return row(
        Cell(name, below="quiet", mark="key"),
        "none",
        Cell(text="nothing"),
        Cell(text="nothing"),
        *[None] * 3,
        Cell(load.kv_bytes_per_s.mean),
        Cell(arm.of_limit),
        None,
        None,
        verdicts_cell(load.verdicts, load.runs_used),
    )


def _level_row(level: NeighborLevel) -> Row:
    is_short = level.delivered_over_asked is not None and level.delivered_over_asked < _PACED
    target = f"{level.target} of alone" if level.calibrated_bytes_per_s and not level.unlimited else ""
    return row(
        Cell(level.treatment, mark="key"),
        f"{level.load_name}: {level.generator or 'no used run'}",
        Cell(text="unlimited") if level.unlimited else Cell(level.asked_bytes_per_s, below=target),
        rate_cell(level.delivered_bytes_per_s),
        Cell(level.delivered_over_asked, mark="suspect" if is_short else ""),
        Cell(level.of_capacity, mark="key"),
        level.capacity.source if level.capacity is not None else None,
        Cell(level.passed_bytes_per_s),
        Cell(level.passed_over_limit),
        Cell(level.trials.start_skew_s),
        Cell(level.trials.stop_s),
        verdicts_cell(level.load.verdicts, level.load.runs_used),
    )
