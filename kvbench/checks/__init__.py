"""Verdicts: is a run to be believed, and if not, why not and what to do.

Reads only what a run left in its folder. The rules are in `state` (what was asked for), `physics` (what is possible),
`client` (the instrument), `world` (the host) and `neighbors`, their words in `verdict`. `treatment`, which is imported
by itself, judges what the runs of one treatment say together.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kvbench.checks.client import check_client
from kvbench.checks.neighbors import check_neighbors
from kvbench.checks.physics import check_physics
from kvbench.checks.state import check_state
from kvbench.checks.verdict import Asked, Ceiling, Reason, Verdict, VerdictWord, named_tier, verdict_of, worst
from kvbench.checks.world import check_world

if TYPE_CHECKING:
    from kvbench.records import Row

__all__ = [
    "Asked",
    "Ceiling",
    "Reason",
    "Verdict",
    "VerdictWord",
    "judge_imported",
    "judge_run",
    "named_tier",
    "worst",
]


def judge_run(run: dict[str, Any], rows: list[Row], asked: Asked) -> Verdict:
    """Judge one sealed run by its `run.json` and its rows."""
    measured = [row for row in rows if row.phase == "measure"]
    return verdict_of(
        [
            *check_state(run, measured, asked),
            *check_physics(run, measured, asked),
            *check_client(run, measured, asked),
            *check_world(run),
            *check_neighbors(run, measured, is_open_loop=asked.is_open_loop),
        ]
    )


def judge_imported(tool: str, rows: list[Row]) -> Verdict:
    """Judge a run that another tool made: never `valid`; never `invalid`, because there is no plan to hold it to."""
    measured = [row for row in rows if row.phase == "measure"]
    text = f"measured by {tool} and imported: no cache state was controlled and no tier is proven"
    remedy = "Run the load as a scenario of kvbench, which sets and proves the cache state."
    reasons = [Reason("suspect", "imported", text, remedy)]
    causes = Counter(row.status for row in measured if row.status != "ok")
    if causes.total():
        counted = ", ".join(f"{count} {status}" for status, count in causes.most_common())
        text = f"{causes.total()} of {len(measured)} requests failed: {counted}; nobody said how many may"
        reasons.append(Reason("suspect", "failures", text, "Look at the errors in source/ and at the server's log."))
    answered = [row for row in measured if row.status == "ok"]
    if silent := sum(row.ttft_s is None for row in answered):
        text = f"{silent} of {len(answered)} answers have no TTFT, so they enter no figure"
        reasons.append(Reason("suspect", "no token", text, "Export the result with streaming, and with every detail."))
    return verdict_of(reasons)
