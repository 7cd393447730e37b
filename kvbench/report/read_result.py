"""Reads a result folder as what its tables and plots are made from, with credentials taken out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from kvbench.analysis import dataset, summary
from kvbench.analysis.neighbor_time_series import neighbor_time_series
from kvbench.analysis.summary_types import Summary
from kvbench.errors import ResultError
from kvbench.report.report_input import ReportInput
from kvbench.result.plan_record import PlanRecord
from kvbench.result.redact import without_secrets
from kvbench.result.run_record import ServerRecord
from kvbench.typed_json import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.analysis.measured_result import Dataset


class RequestsOfRuns:
    """The measured requests of the sealed runs of a result that is read."""

    def __init__(self, result: Dataset) -> None:
        """Take the result."""
        self._runs = result.runs

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return the named columns of all measured requests."""
        parts = []
        for run in self._runs:
            of_run: dict[str, str | int] = {"run_id": run.run_id, "treatment": run.treatment, "repeat": run.repeat}
            known = [name for name in columns if name not in of_run]
            part = run.measured[known].copy(deep=False)
            for name in columns:
                if name in of_run:
                    part[name] = of_run[name]
            parts.append(part[list(columns)])
        return pd.concat(parts, ignore_index=True)


def read(folder: Path) -> ReportInput:
    """Read a result folder; its summary is computed, since an unfinished or older one has not all of it.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    return of_result(dataset.read(folder))


def of_result(result: Dataset) -> ReportInput:
    """Return what tables and plots are made from, with credentials taken out."""
    summed = summary.summary_of(result)
    is_import = result.design.imported is not None
    return ReportInput(
        summary=from_json(Summary, without_secrets(to_json(summed)), "the summary"),
        plan=from_json(PlanRecord, without_secrets(to_json(result.plan)), "plan.json"),
        facts=without_secrets(result.facts),
        server=from_json(ServerRecord, without_secrets(to_json(result.runs[0].record.server)), "run.json"),
        scenario_text="" if is_import else without_secrets(_read_text(result.folder / "scenario.yaml")),
        requests=RequestsOfRuns(result),
        result=result,
        read_neighbor_runs=partial(neighbor_time_series, result, summed.neighbors),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise ResultError(f"cannot read {path}: {fault}", "Name a result folder that `kvbench run` wrote.") from None
