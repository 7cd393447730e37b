"""What tables and plots are made from: the summary of one result, its plan, and the files that stand beside it.

`report.read_result` reads it from a result folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from kvbench.analysis.measured_result import Dataset
    from kvbench.analysis.neighbor_time_series import NeighborTimeSeries
    from kvbench.analysis.summary_types import RunSummary, Summary
    from kvbench.result.plan_record import PlanRecord
    from kvbench.result.run_record import ServerRecord
    from kvbench.typed_json import JsonObject


class MeasuredRequests(Protocol):
    """Gives the measured requests of every sealed run, failed ones too, as a frame."""

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return the named columns: those of `requests.parquet`, and `run_id`, `treatment`, `length`, `ttft_s`."""
        ...


@dataclass(frozen=True)
class ReportInput:
    """One result as its tables and plots read it."""

    summary: Summary
    plan: PlanRecord
    facts: JsonObject  # The host, the software and the storage, as facts.json has them
    server: ServerRecord  # The server of the first run
    scenario_text: str  # The scenario as it was given; empty for an import
    requests: MeasuredRequests
    result: Dataset | None = None  # The result itself; None where only its summary is known
    # Reads the typical run of each level over time, quiet ones first; only a plot needs them
    read_neighbor_runs: Callable[[], Sequence[NeighborTimeSeries]] = tuple

    def runs_of(self, treatment: str) -> list[RunSummary]:
        """Return the sealed runs of a treatment."""
        return [run for run in self.summary.runs if run.treatment == treatment]
