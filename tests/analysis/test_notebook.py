"""The public interface for notebooks and scripts: `kvbench.load`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import kvbench
from kvbench.analysis import summary
from kvbench.errors import ResultError

EXAMPLE = Path("results/examples/vllm-gpu-fs/20261121T224531Z")


def test_requests_are_all_measured_rows_with_their_run() -> None:
    found = kvbench.load(EXAMPLE).requests
    assert len(found) == 30
    assert list(found)[:4] == ["run_id", "treatment", "repeat", "verdict"]
    assert found["treatment"].unique().tolist() == ["g3", "recompute"]
    assert str(found["ttft_s"].dtype) == "double[pyarrow]"
    assert found["server_overrun_s"].isna().all()  # what is not reported is null
    assert found["server_overrun_s"].sum(skipna=False) is pd.NA


def test_medians_of_requests_are_those_of_the_summary() -> None:
    result = kvbench.load(str(EXAMPLE))
    medians = result.requests.groupby(["length", "treatment"])["ttft_s"].median().to_dict()
    cells = {(row.isl, name): cell.median_s for row in result.summary.lengths for name, cell in row.cells.items()}
    assert medians == pytest.approx(cells)


def test_runs_have_one_row_each_with_their_metrics_and_verdict() -> None:
    result = kvbench.load(EXAMPLE)
    assert result.runs["run_id"].tolist() == [run.run_id for run in result.summary.runs]
    assert set(result.runs["cache_state"]) == {"warm(g3)", "off"}
    assert result.runs["verdict"].tolist() == ["valid"] * 6
    assert result.runs["ttft_p95"].isna().all()  # a run has 5 requests
    rates = result.runs.groupby("treatment")["requests_per_s"].mean()
    for name, item in result.summary.treatments.items():
        assert rates[name] == pytest.approx(item.metrics["requests_per_s"].value)


def test_the_summary_is_that_of_kvbench_show() -> None:
    assert kvbench.load(EXAMPLE).summary == summary.summarise(EXAMPLE)


def test_a_result_is_compared_with_another() -> None:
    result = kvbench.load(EXAMPLE)
    assert result.compare(kvbench.load(EXAMPLE)).same_result


def test_a_folder_that_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError):
        kvbench.load(tmp_path)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = kvbench.lode


def test_importing_kvbench_imports_nothing_else() -> None:
    code = "import sys, kvbench; print([name for name in sys.modules if name.startswith(('kvbench.', 'pandas'))])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
