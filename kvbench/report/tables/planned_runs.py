"""The table of `kvbench plan`: every run in its order, and how much it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Column, Row, Table, row

if TYPE_CHECKING:
    from kvbench.scenario.plan import Plan, RunSpec


def planned_runs(plan: Plan, *, has_turns: bool) -> Table:
    """Return one row for each run; with turns, its conversations stand beside the turns of all of them."""
    counted = (
        (Column("conversations", "conversations", "count"), Column("requests", "turns", "count"))
        if has_turns
        else (Column("requests", "requests", "count"),)
    )
    columns = (
        Column("treatment", "treatment", kind="name", is_key=True),
        Column("round", "round", "count", is_key=True),
        *counted,
        Column("prompt_tokens", "prompt tokens", "tokens"),
    )
    rows = tuple(_row(spec, has_turns=has_turns) for spec in plan.runs)
    notes = ("Each turn sends its whole history: prompt tokens count it.",) if has_turns else ()
    return Table("planned_runs", f"{plan.scenario}: {len(plan.runs)} runs", columns, rows, notes)


def _row(spec: RunSpec, *, has_turns: bool) -> Row:
    tokens = sum(length * count for length, count in spec.draws.by_length.items())
    held = [spec.draws.requests] if has_turns else []
    return row(spec.treatment, spec.repeat, *held, len(spec.draws), tokens)
