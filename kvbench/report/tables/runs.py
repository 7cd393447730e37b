"""Tables of the evidence: steps to the cache states, all runs, and the state of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.text import SPACE

if TYPE_CHECKING:
    from kvbench.analysis.summary_types import RunSummary
    from kvbench.report.report_input import ReportInput
    from kvbench.result.plan_record import PlannedRun


def runs(given: ReportInput) -> Table:
    """Return one row for each planned run, done or not."""
    columns = (
        Column("run", "Run", kind="name", is_key=True),
        Column("started", "Started (UTC)", "moment", kind="text", priority=3),
        Column("verdict", "Verdict", kind="text"),
        Column("attempt", "Attempt", "count", priority=5),
        Column("answered", "Answered", "count", "higher"),
        Column("requests", "Requests", "count", priority=2),
        Column("served_from", "Served from", kind="text"),
        Column("load_s", "Load phase", "s", priority=2),
        Column("reasons", "Reasons", kind="long"),
    )
    sealed = {run.run_id: run for run in given.summary.runs}
    rows = tuple(_row(planned, sealed.get(planned.run_id)) for planned in given.plan.runs)
    order = "In the order of the export." if given.summary.imported is not None else "In the order of the plan."
    notes = (
        f"{order} Invalid runs are kept and marked here, and left out of every figure.",
        "An attempt above 1 means that earlier ones broke off; they are kept in the result folder and never counted.",
    )
    return Table("runs", "All runs", columns, rows, notes)


def _row(planned: PlannedRun, run: RunSummary | None) -> Row:
    if run is None:
        not_done = Cell(text="not done", mark="quiet")
        return row(planned.run_id, None, not_done, *[None] * 5, "planned, not done yet")
    invalid = run.verdict == "invalid"
    reasons = "; ".join(f"{reason.level}: {reason.text}" for reason in run.reasons)
    tiers = ", ".join(f"{tier}{SPACE}{count}" for tier, count in sorted(run.tiers.items()))
    return row(
        Cell(run.run_id, mark="key"),
        Cell(run.started, refusal="not known" if run.started is None else None),
        Cell(run.verdict, mark=run.verdict),
        run.attempt,
        Cell(run.ok, mark="" if run.ok == run.requests else "suspect"),
        run.requests,
        tiers or None,
        Cell(run.load_s, refusal="not known" if run.load_s is None else None),
        f"left out of all figures. {reasons}" if invalid else reasons or "none",
        mark="struck" if invalid else "",
    )
