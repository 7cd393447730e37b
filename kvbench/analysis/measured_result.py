"""One result as figures are made from it: its plan, its facts, its sealed runs with their verdicts.

`analysis.dataset` reads it from a folder; whatever computes from it needs only this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from kvbench.analysis.measured import RequestValues, SelectedRequests

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from kvbench.result.calibration_record import CalibrationExcerpt
    from kvbench.result.plan_record import Design, PlanRecord
    from kvbench.result.run_record import RunRecord
    from kvbench.result.verdict import Verdict
    from kvbench.typed_json import JsonObject


@dataclass(frozen=True)
class SealedRun:
    """One run that is done: its `run.json`, its measured requests, and the verdict on it."""

    record: RunRecord
    measured: pd.DataFrame
    verdict: Verdict

    @property
    def run_id(self) -> str:
        """Its name within the result."""
        return self.record.run_id

    @property
    def treatment(self) -> str:
        """The treatment that it executed."""
        return self.record.treatment

    @property
    def repeat(self) -> int:
        """Its round."""
        return self.record.repeat

    @property
    def used(self) -> bool:
        """Whether its figures count: an invalid run's do not."""
        return self.verdict.word != "invalid"

    @cached_property
    def answered(self) -> SelectedRequests:
        """Its measured requests that were answered."""
        return SelectedRequests(self.measured, self.measured["status"] == "ok")

    @cached_property
    def proven(self) -> SelectedRequests:
        """Its answered requests but those whose tier was not proven: only these give figures of requests."""
        is_proven = self.measured["tier"].fillna("") != "unproven"
        return SelectedRequests(self.measured, is_proven & (self.measured["status"] == "ok"))

    @cached_property
    def request_values(self) -> RequestValues:
        """The values of its proven requests, each computed once."""
        return RequestValues(self.proven)


@dataclass(frozen=True, slots=True)
class Dataset:
    """One result folder, read: its plan, its facts, its sealed runs, and the calibration that is attached to it."""

    folder: Path
    plan: PlanRecord
    facts: JsonObject
    runs: list[SealedRun]
    calibration: CalibrationExcerpt | None

    @property
    def design(self) -> Design:
        """What the result must be judged by."""
        return self.plan.design

    @property
    def used(self) -> list[SealedRun]:
        """The runs whose figures count."""
        return [run for run in self.runs if run.used]

    def of(self, treatment: str) -> list[SealedRun]:
        """Return the runs of one treatment whose figures count."""
        return [run for run in self.runs if run.used and run.treatment == treatment]

    def cache_state(self, treatment: str) -> str | None:
        """Return the cache state of a treatment's runs, None before its first run."""
        return next((run.record.cache.state for run in self.runs if run.treatment == treatment), None)
