"""What tables and plots are made from: the summary of one result, its plan, and the files that stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from kvbench.analysis.summary_types import RunSummary, Summary
    from kvbench.result.plan_record import PlanRecord
    from kvbench.result.run_record import ServerRecord
    from kvbench.typed_json import JsonObject


class MeasuredRequests(Protocol):
    """Gives the measured requests of every sealed run, failed ones too, as a frame."""

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return the named columns: those of `requests.parquet`, and `run_id`, `treatment`, `length`, `ttft_s`."""
        ...


class NeighborRun(Protocol):
    """One run of a noisy-neighbour experiment over time; `analysis.neighbor_time_series` makes it.

    Times are seconds after its first send, and None where the run has no neighbours.
    """

    @property
    def treatment(self) -> str:
        """Its treatment."""

    @property
    def run_id(self) -> str:
        """Its name within the result."""

    @property
    def load(self) -> str | None:
        """The load of its neighbours; None for a quiet run."""

    @property
    def end_s(self) -> float:
        """The last token."""

    @property
    def start_s(self) -> float | None:
        """When neighbours were to start."""

    @property
    def ready_s(self) -> float | None:
        """The end of their ramp."""

    @property
    def ended_s(self) -> float | None:
        """When the last generator was gone."""

    @property
    def sent_s(self) -> NDArray[np.float64]:
        """When each answered request was sent."""

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        """TTFT of each of them."""

    @property
    def rate_at_s(self) -> NDArray[np.float64]:
        """The middle of each slice of time."""

    @property
    def bytes_per_s(self) -> NDArray[np.float64]:
        """What all neighbours delivered in it; empty for a quiet run."""


@dataclass(frozen=True)
class ReportInput:
    """One result as its tables and plots read it."""

    summary: Summary
    plan: PlanRecord
    facts: JsonObject  # The host, the software and the storage, as facts.json has them
    server: ServerRecord  # The server of the first run
    scenario_text: str  # The scenario as it was given; empty for an import
    requests: MeasuredRequests
    # Reads the typical run of each level over time, quiet ones first; only a plot needs them
    read_neighbor_runs: Callable[[], Sequence[NeighborRun]] = tuple

    def runs_of(self, treatment: str) -> list[RunSummary]:
        """Return the sealed runs of a treatment."""
        return [run for run in self.summary.runs if run.treatment == treatment]
