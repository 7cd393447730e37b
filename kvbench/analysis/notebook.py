"""A result for notebooks and scripts: requests and runs as DataFrames, and the summary (`kvbench.load`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from kvbench.analysis import aggregate, dataset, result_comparison, summary
from kvbench.analysis.metrics import METRICS, limits_of

if TYPE_CHECKING:
    from kvbench.analysis.comparison_types import ResultComparison
    from kvbench.analysis.measured_result import Dataset, SealedRun
    from kvbench.analysis.summary_types import Summary


def load(path: str | Path) -> Result:
    """Read a result folder.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    return Result(dataset.read(Path(path)))


@dataclass(frozen=True)
class Result:
    """A result: its requests, its runs, and the summary of both; each is computed when it is first asked for."""

    dataset: Dataset

    @cached_property
    def requests(self) -> pd.DataFrame:
        """All measured requests, one a row, answered or not, of invalid runs too.

        Columns are the fields of `requests.parquet` that figures are made of, with `run_id`, `treatment`, `repeat` and
        the `verdict` of the run in front, and `length`, the prompt length that a request's figures stand under. They
        are pyarrow-backed, and what is not known is null.
        """
        return pd.concat([_named(run.measured, run) for run in self.dataset.runs], ignore_index=True)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All sealed runs, one a row, with their verdict, cache state and every metric by its name.

        A percentile of requests is of this run alone, and null below the number of requests that it needs.
        """
        limits = limits_of(self.dataset.design)
        rows = [
            {
                "run_id": run.run_id,
                "treatment": run.treatment,
                "repeat": run.repeat,
                "verdict": run.verdict.word,
                "cache_state": run.record.cache.state,
                "started": run.record.started,
                "requests": len(run.measured),
                "answered": len(run.answered),
                **{name: aggregate.of_run(metric, run, limits) for name, metric in METRICS.items()},
            }
            for run in self.dataset.runs
        ]
        frame = pd.DataFrame(rows)
        numbers = frame[list(METRICS)].astype("double[pyarrow]")
        return frame.drop(columns=list(METRICS)).convert_dtypes(dtype_backend="pyarrow").join(numbers)

    @cached_property
    def summary(self) -> Summary:
        """The summary that tables and reports are made of."""
        return summary.summary_of(self.dataset)

    def compare(self, other: Result, *, anyway: bool = False) -> ResultComparison:
        """Compare `other` with this result: every ratio is `other` over this one.

        Raises:
            ResultError: they were asked different questions and `anyway` is not set, or they share no treatment.

        """
        return result_comparison.compare_datasets(self.dataset, other.dataset, anyway=anyway)


def _named(measured: pd.DataFrame, run: SealedRun) -> pd.DataFrame:
    """Return a run's requests with the run's own columns in front."""
    text, number = pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.int64())
    own = {
        "run_id": pd.Series(run.run_id, index=measured.index, dtype=text),
        "treatment": pd.Series(run.treatment, index=measured.index, dtype=text),
        "repeat": pd.Series(run.repeat, index=measured.index, dtype=number),
        "verdict": pd.Series(run.verdict.word, index=measured.index, dtype=text),
    }
    return pd.concat([pd.DataFrame(own), measured], axis="columns")
