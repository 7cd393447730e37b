"""What tables read, for tests: a typed summary, a plan that fits it, and a frame of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.report.report_input import ReportInput
from kvbench.result.plan_record import Design, PlannedRun, PlanRecord
from kvbench.result.run_record import ServerRecord
from tests.builders import summaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.analysis.summary_types import Summary


@dataclass
class Requests:
    """Measured requests, a dictionary each."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(columns))


def request(run_id: str = "r1-warm", **fields: Any) -> dict[str, Any]:
    """Return an answered request of the native driver."""
    return {
        "run_id": run_id,
        "status": "ok",
        "length": 10_000,
        "ttft_s": 0.0242,
        "ttft_bound": "exact",
        "send_lag_s": 1e-4,
        "receive_lag_s": 2e-5,
        "server_overrun_s": 2.42e-5,
        **fields,
    }


def report_input(summary: Summary | None = None, requests: list[dict[str, Any]] | None = None) -> ReportInput:
    """Return a result with a plan of 60 requests for each length and treatment."""
    told = summary or summaries.summary()
    runs = tuple(PlannedRun(run.run_id, run.treatment, run.repeat, 120, {10_000: 60, 50_000: 60}) for run in told.runs)
    design = Design(told.question, told.server, tuple(told.treatments), told.repeats)
    return ReportInput(
        summary=told,
        plan=PlanRecord(told.scenario, "abc123", "salt", 512, runs, design),
        facts={"software": {"kvbench": "0.1.0"}, "host": {"memory_bytes": 64_000_000_000}},
        server=ServerRecord("http://127.0.0.1:8000", told.model, {"block_tokens": 16}),
        scenario_text="question: ...\n",
        requests=Requests([request()] if requests is None else requests),
    )
