"""Sentences and tables on the impact of neighbours, for the terminal and the page.

A throughput loss and a time increase are always both named, because they are different numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, change_cell, extent_cell, row
from kvbench.report.text import DASH, NOTHING, SPACE, counted
from kvbench.units import format_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.analysis.neighbor_types import Extent, NeighborLevel, QuietArm
    from kvbench.report.report_input import ReportInput

_AGREEMENT = {"shown": "within 10 %", "mean": "mean within 10 %", "no": "differs"}


def neighbors(given: ReportInput) -> Table | None:
    """Return one row for each quiet treatment and each level; None without neighbours."""
    impact = given.summary.neighbors
    if impact is None:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("rounds", "Rounds", "count", priority=4),
        Column("requests_per_s", "Requests/s", "1/s", "higher"),
        Column("throughput_loss", "Throughput loss", "share", "lower", interval_priority=3),
        Column("time_increase", "Time increase", "share", "lower", interval_priority=3),
        Column("kv_bytes_per_s", "KV delivered", "bytes/s", "higher"),
        Column("kv_share", "KV share of quiet", "share", "higher", interval_priority=2),
        Column("expected_share", "Expected share", "share"),
        Column("ttft_p50_increase", "TTFT P50", "change", "lower", priority=5),
        Column("ttft_p95_increase", "TTFT P95", "change", "lower", priority=5),
    )
    rows = [_quiet_row(name, arm) for name, arm in impact.quiet.items()]
    rows += [_level_row(level) for level in impact.levels]
    notes = (
        (
            "Throughput loss: 1 - noisy / quiet of requests/s; time increase: noisy / quiet - 1 of the total time: two"
            " numbers for one change. Intervals of 95 % are over rounds, paired with the quiet partner."
        ),
        "Expected share: (capacity - delivered) / capacity of what the quiet partner drew. TTFT: change against it.",
    )
    return Table("neighbors", "Neighbours: what they cost", columns, tuple(rows), notes)


def _quiet_row(name: str, arm: QuietArm) -> Row:
    load = arm.load
    return row(
        Cell(name, below="quiet", mark="key"),
        load.requests_per_s.n,
        Cell(load.requests_per_s.mean),
        None,
        None,
        rate_cell(load.kv_bytes_per_s),
        1.0 if load.kv_bytes_per_s.mean is not None else None,
        *[None] * 3,
    )


def _level_row(level: NeighborLevel) -> Row:
    rounds, load = level.throughput_loss.rounds, level.load
    return row(
        Cell(level.treatment, below=counted(rounds, "round"), mark="key"),
        rounds,
        Cell(load.requests_per_s.mean),
        change_cell(level.throughput_loss),
        change_cell(level.time_increase),
        rate_cell(load.kv_bytes_per_s),
        change_cell(level.kv_share),
        _expected(level),
        change_cell(level.ttft_p50_increase),
        change_cell(level.ttft_p95_increase),
    )


def _expected(level: NeighborLevel) -> Cell:
    """Show the expected share; below it whether the measured one is near it, or why that is not judged."""
    below = level.unjudged or _AGREEMENT.get(level.agreement or "", "not judged")
    if level.expected_share is None:
        return Cell(text=NOTHING, below=below, refusal=level.unjudged)
    return Cell(level.expected_share, below=below, mark="suspect" if level.agreement == "no" else "")


def rate_cell(extent: Extent) -> Cell:
    """Show a mean rate over rounds; below it its range, the unit once where both ends share it."""
    if extent.least is None or extent.most is None:
        return extent_cell(extent, "")
    low, high = format_rate(extent.least), format_rate(extent.most)
    if low == high:
        return extent_cell(extent, "")
    number, _, unit = low.partition(" ")
    return extent_cell(extent, f"{number if high.endswith(unit) else low}{DASH}{high}".replace(" ", SPACE))


def verdicts_cell(verdicts: Mapping[str, int], used: int) -> Cell:
    """Show how many runs had which verdict."""
    text = ", ".join(f"{count}{SPACE}{word}" for word, count in verdicts.items())
    return Cell(text or "no run yet", mark="" if used else "invalid")
