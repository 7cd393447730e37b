"""A scenario through AIPerf, from end to end: the same plan, rows, proof and files as with the native driver."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kvbench.result.draw_file import read_draws
from kvbench.result.files import read_json
from kvbench.result.record_files import read_plan
from kvbench.result.rows import read_rows
from tests.cli.test_cli import SCENARIO, kvbench, one_sentence_with_remedy
from tests.drivers.test_aiperf import needs_aiperf


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")).replace("repeats: 2", "repeats: 1"))
    return path


@needs_aiperf
def test_a_scenario_through_aiperf(scenario: Path, tmp_path: Path) -> None:
    done = kvbench("run", scenario, "--driver", "aiperf", "--results", tmp_path / "results")
    assert done.returncode in (0, 3), done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    draws = list(read_draws(folder))
    for spec in read_plan(folder).runs:
        name = spec.run_id
        run = folder / "runs" / name
        rows = read_rows(run)
        measured = [row for row in rows if row.phase == "measure"]
        assert [row.request_id for row in measured] == [
            request_id for run_id, request_id, *_ in draws if run_id == name
        ]
        assert {(row.driver, row.status, row.tier) for row in measured} == {
            ("aiperf", "ok", "g4" if spec.treatment == "g4" else "recompute")
        }
        assert {row.driver for row in rows if row.phase in ("probe", "prime")} == {"native"}
        assert Counter(row.phase for row in rows if row.driver == "aiperf") == {"measure": 2, "warmup": 1}
        assert (run / "aiperf" / "profile_export_raw.jsonl").exists()
        assert read_json(run / "run.json")["driver"]["name"] == "aiperf"
    shown = json.loads(kvbench("show", folder, "--json").stdout)
    assert shown["driver"] == "aiperf"
    reasons = {reason["text"] for run in shown["runs"] for reason in run["reasons"] if reason["level"] == "invalid"}
    assert not reasons


def test_without_aiperf_nothing_is_started(scenario: Path, tmp_path: Path) -> None:
    arguments = ("run", scenario, "--driver", "aiperf", "--results", tmp_path / "results")
    said = one_sentence_with_remedy(kvbench(*arguments, KVBENCH_AIPERF=str(tmp_path / "nothing")))
    assert "KVBENCH_AIPERF names" in said
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "tier").exists()
