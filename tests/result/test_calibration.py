"""Which calibration a result gets, and what it is told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import dataset
from kvbench.errors import ResultError
from kvbench.report.tables import client_error
from kvbench.result import calibration
from kvbench.result.calibration_record import CalibrationCell, CalibrationExcerpt, CalibrationRecord
from kvbench.result.files import write_json
from kvbench.result.find import find_result
from kvbench.result.plan_record import Design
from kvbench.this_host import facts
from kvbench.typed_json import to_json
from tests.builders import summaries
from tests.builders.requests import record_of
from tests.experiment.test_calibrate import GAP_S, KEY

if TYPE_CHECKING:
    from kvbench.result.calibration import CellKey


def calibrated(results: Path, stamp: str, **changes: Any) -> Path:
    keys = [
        replace(KEY, connections=count, prompt_tokens=tokens) for count in (1, 28, 100) for tokens in (500, 130_000)
    ]
    cells = tuple(cell_of(key, number) for number, key in enumerate(keys, 1))
    record = replace(CalibrationRecord("2026-01-02T03:04:05+00:00", "here", cells), **changes)
    folder = results / "calibrations" / stamp
    write_json(folder / "calibration.json", to_json(record))
    return folder


def cell_of(key: CellKey, number: int) -> CalibrationCell:
    """Return a cell of nine requests, too few for a p99."""
    cell = calibration.summarise_cell(key, [], [], GAP_S)
    return replace(cell, n=9, error_s=replace(cell.error_s, n=9, p50=number * 1e-6, max=number * 1e-5))


def test_the_newest_of_the_same_host_and_driver_is_attached(tmp_path: Path) -> None:
    older, newer = calibrated(tmp_path, "20260101T000000Z"), calibrated(tmp_path, "20260102T000000Z", made="newer")
    calibrated(tmp_path, "20260103T000000Z", host_identity="another kernel")
    (tmp_path / "calibrations" / "20260104T000000Z").mkdir()  # broken off
    broken = calibrated(tmp_path, "20260105T000000Z")
    (broken / "calibration.json").write_text("{")
    result = calibrated(tmp_path, "20260106T000000Z")
    (result / "plan.json").write_text("{}")  # a result of a scenario called "calibrations"
    assert calibration.newest(tmp_path, "here", "native") == newer
    assert calibration.newest(tmp_path, "here", "aiperf") is None
    assert calibration.newest(tmp_path, "elsewhere", "native") is None
    assert not calibration.attach(tmp_path, tmp_path, "elsewhere", "native")
    assert not (tmp_path / "calibration.json").exists()
    assert calibration.attach(tmp_path, tmp_path, "here", "native")
    assert (tmp_path / "calibration.json").read_bytes() == (newer / "calibration.json").read_bytes()
    assert older.exists()


def test_a_calibration_is_not_a_result(tmp_path: Path) -> None:
    calibrated(tmp_path, "20260101T000000Z")
    for name in ("calibrations", "20260101T000000Z"):
        with pytest.raises(ResultError, match="calibration, and no result"):
            find_result(name, tmp_path)


@pytest.mark.parametrize(
    ("concurrency", "lengths", "connections", "tokens"),
    [
        (1, [1000, 12_000], 1, [500, 130_000]),  # 12,000 is nearer to 130,000 (10.8 times) than to 500 (24 times)
        (16, [100_000], 28, [130_000]),
        (5, [500], 1, [500]),  # 5 times from 1, 5.6 times from 28
        (6, [500], 28, [500]),
        (1000, [10], 100, [500]),
    ],
)
def test_a_result_is_told_the_nearest_cells(
    tmp_path: Path, concurrency: int, lengths: list[int], connections: int, tokens: list[int]
) -> None:
    folder = calibrated(tmp_path, "20260101T000000Z")
    told = calibration.excerpt(folder, "native", [concurrency], lengths, "2026-01-02T04:04:05+00:00")
    assert told is not None
    assert [(cell.connections, cell.prompt_tokens) for cell in told.cells] == [
        (connections, length) for length in tokens
    ]
    assert (told.driver, told.age_s) == ("native", 3600.0)
    assert calibration.excerpt(folder, "aiperf", [1], [1], "2026-01-02T04:04:05+00:00") is None


def test_a_result_at_several_concurrencies_is_told_the_cells_nearest_to_each(tmp_path: Path) -> None:
    folder = calibrated(tmp_path, "20260101T000000Z")
    told = calibration.excerpt(folder, "native", [64, 2, 1], [500], "2026-01-02T04:04:05+00:00")
    assert told is not None
    assert [cell.connections for cell in told.cells] == [1, 100]  # 100 is 1.6 times 64, 64 2.3 times 28
    told = calibration.excerpt(folder, "native", [1, 90], [500], "2026-01-02T04:04:05+00:00")
    assert told is not None
    sentence = sentence_of(told, {"a": 1, "b": 90})
    assert "1 and 100 connections, the nearest to 1 and 90)" in sentence


def sentence_of(excerpt: CalibrationExcerpt, concurrencies: dict[str, int]) -> str:
    return client_error.sentence(summaries.summary(calibration=excerpt, concurrencies=concurrencies))


def test_each_run_is_judged_by_the_error_at_its_own_concurrency(tmp_path: Path) -> None:
    folder = calibrated(tmp_path, "20260101T000000Z")
    design = Design(
        question="Which error?",
        server="external",
        treatments=("one", "many"),
        repeats=1,
        lengths=(500,),
        concurrency=28,
        concurrencies={"one": 1, "many": 100},
    )
    record = record_of(started="2026-01-02T04:04:05+00:00")
    cells = {
        name: [cell.connections for cell in told.cells]
        for name in ("one", "many", None)
        if (told := dataset.calibration_of(folder, design, record, name)) is not None
    }
    assert cells == {"one": [1], "many": [100], None: [1, 100]}


def test_the_sentence_of_a_result(tmp_path: Path) -> None:
    folder = calibrated(tmp_path, "20260101T000000Z")
    told = calibration.excerpt(folder, "native", [16], [500, 130_000], "2026-01-02T04:04:05+00:00")
    assert told is not None
    assert sentence_of(told, {"off": 16, "g4": 16}) == (
        "client error (calibrated 2026-01-02, native, 28 connections, the nearest to 16): max 0.04 ms; n = 9 and 9"
    )
    known = tuple(
        replace(cell, error_s=replace(cell.error_s, p99=p50 * 5))
        for cell in told.cells
        if (p50 := cell.error_s.p50) is not None
    )
    assert sentence_of(replace(told, cells=known), {"off": 28}) == (
        "client error (calibrated 2026-01-02, native, 28 connections): p99 0.02 ms; n = 9 and 9"
    )
    none = summaries.summary(calibration=None, driver="aiperf")
    assert client_error.sentence(none).endswith("run kvbench calibrate --driver aiperf")


def test_the_host_is_known_by_machine_processor_cores_and_kernel(tmp_path: Path) -> None:
    gathered = facts.gather({}, tmp_path)
    assert facts.host_identity(gathered) == facts.host_identity(json.loads(json.dumps(gathered)))
    for name in ("machine", "cpu", "cores", "cores_usable", "kernel"):
        changed = {**gathered, "host": {**gathered["host"], name: "another"}}
        assert facts.host_identity(changed) != facts.host_identity(gathered)
    loaded = {**gathered, "host": {**gathered["host"], "load_1min": 99.0}}
    assert facts.host_identity(loaded) == facts.host_identity(gathered)
    identifier = Path("/etc/machine-id")
    if identifier.exists() and identifier.read_text().strip():
        assert identifier.read_text().strip() not in json.dumps(gathered)
