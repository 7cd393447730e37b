"""Judges a run: is it to be believed, and if not, why not and what to do.

The rules are in `cache_state` (is it what was asked for), `plausibility` (is it possible), `client`, `host` and
`neighbors`. `treatment` judges what the runs of one treatment say together.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kvbench.analysis.checks.cache_state import check_cache_state
from kvbench.analysis.checks.client import check_client
from kvbench.analysis.checks.expected import RunToJudge
from kvbench.analysis.checks.host import check_host
from kvbench.analysis.checks.neighbors import check_neighbors
from kvbench.analysis.checks.plausibility import check_plausibility
from kvbench.analysis.measured import SelectedRequests, counts
from kvbench.result.verdict import Reason, verdict_of

if TYPE_CHECKING:
    import pandas as pd

    from kvbench.analysis.checks.expected import EvidenceOf, Expected
    from kvbench.result.run_record import RunRecord
    from kvbench.result.verdict import Verdict


def _no_evidence(_request_id: str) -> None:
    """Return that nothing is known of why a request has its tier."""


def judge_run(
    record: RunRecord, measured: pd.DataFrame, expected: Expected, evidence_of: EvidenceOf = _no_evidence
) -> Verdict:
    """Judge one sealed run by its `run.json` and its measured requests.

    `evidence_of` returns the evidence for the tier of the request with an id; it is asked for requests that a reason
    names.
    """
    run = RunToJudge(record, measured, expected, evidence_of)
    return verdict_of(
        [
            *check_cache_state(run),
            *check_plausibility(run),
            *check_client(run),
            *check_host(record),
            *check_neighbors(record, measured, is_open_loop=expected.is_open_loop),
        ]
    )


def judge_imported(tool: str, measured: pd.DataFrame) -> Verdict:
    """Judge a run that another tool made: never `valid`; never `invalid`, because there is no plan to hold it to."""
    text = f"measured by {tool} and imported: no cache state was controlled and no tier is proven"
    remedy = "Run the load as a scenario of kvbench, which sets and proves the cache state."
    reasons = [Reason("suspect", "imported", text, remedy)]
    causes = Counter(counts([measured["status"]]))
    del causes["ok"]
    if causes:
        by_cause = ", ".join(f"{count} {status}" for status, count in causes.most_common())
        text = f"{causes.total()} of {len(measured)} requests failed: {by_cause}; nobody said how many may"
        reasons.append(Reason("suspect", "failures", text, "Look at the errors in source/ and at the server's log."))
    ttft = SelectedRequests(measured, measured["status"] == "ok")["ttft_s"]
    if silent := int(ttft.isna().sum()):
        text = f"{silent} of {len(ttft)} answers have no TTFT, so they enter no figure"
        reasons.append(Reason("suspect", "no token", text, "Export the result with streaming, and with every detail."))
    return verdict_of(reasons)
