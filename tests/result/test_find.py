"""Which result is meant by a name, and what is told where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvbench.cli import report
from kvbench.errors import ResultError
from kvbench.result.files import write_json
from kvbench.result.find import find_result
from kvbench.result.plan_record import Design, PlannedRun, PlanRecord
from kvbench.result.record_files import write_plan
from tests.builders.results import Case, build

if TYPE_CHECKING:
    from pathlib import Path


def made(results: Path, name: str, stamp: str, sealed: int = 2, planned: int = 2) -> Path:
    folder = results / name / stamp
    runs = tuple(PlannedRun(f"r{number}", "off", number) for number in range(planned))
    write_plan(folder, PlanRecord(name, "", "", 0, runs, Design("?", "emulator", ("off",), planned)))
    for run in runs[:sealed]:
        write_json(folder / "runs" / run.run_id / "run.json", {})
    return folder


def test_a_folder_a_name_or_a_stamp(tmp_path: Path) -> None:
    folder = made(tmp_path, "sweep", "20260101T000000Z")
    for what in (str(folder), "sweep", "20260101T000000Z", "sweep/20260101T000000Z", str(folder.parent)):
        assert find_result(what, tmp_path) == folder


def test_a_newer_unfinished_result_does_not_hide_a_complete_one_and_is_told(tmp_path: Path) -> None:
    whole = made(tmp_path, "sweep", "20260101T000000Z")
    newer = made(tmp_path, "sweep", "20260102T000000Z", sealed=1)
    told: list[str] = []
    assert find_result("sweep", tmp_path, told.append) == whole
    (line,) = told
    assert f"1 of its 2 runs are done: {newer}" in line
    assert find_result(str(newer), tmp_path, told.append) == newer  # named by itself it is shown
    assert len(told) == 1


def test_the_newest_complete_one_is_shown_without_a_word(tmp_path: Path) -> None:
    made(tmp_path, "sweep", "20260101T000000Z", sealed=0)
    whole = made(tmp_path, "sweep", "20260102T000000Z")
    told: list[str] = []
    assert find_result("sweep", tmp_path, told.append) == whole
    assert not told


def test_where_none_is_complete_the_newest_with_a_run_is_shown(tmp_path: Path) -> None:
    begun = made(tmp_path, "sweep", "20260101T000000Z", sealed=1)
    made(tmp_path, "sweep", "20260102T000000Z", sealed=0)
    told: list[str] = []
    assert find_result("sweep", tmp_path, told.append) == begun
    assert "0 of its 2 runs are done" in told[0]


def test_a_plan_that_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    whole = made(tmp_path, "sweep", "20260101T000000Z")
    broken = made(tmp_path, "sweep", "20260102T000000Z")
    (broken / "plan.json").write_text("{")
    told: list[str] = []
    assert find_result("sweep", tmp_path, told.append) == whole
    assert "its plan cannot be read" in told[0]


def test_what_is_there_instead_is_told(tmp_path: Path) -> None:
    results = tmp_path / "results"
    made(results, "sweep", "20260101T000000Z")
    made(results, "quick", "20260101T000000Z")
    made(results, "quick", "20260102T000000Z")
    calibration = results / "calibrations" / "20260103T000000Z"
    write_json(calibration / "calibration.json", {})
    (tmp_path / "sweep.yaml").write_text("name: sweep\n")
    (tmp_path / "empty").mkdir()
    cases = {
        "sweeep": ("no result called sweeep", "Did you mean sweep?"),
        "other": ("no result called other", "There are quick, sweep"),
        str(results): ("holds results: quick (2), sweep (1)", f"such as {results / 'sweep' / '20260101T000000Z'}."),
        "calibrations": ("holds 1 calibration, and no result", "made after it"),
        str(calibration): ("is a calibration, and no result", "made after it"),
        str(tmp_path / "sweep.yaml"): ("is a file, and a result is a folder", "name of its scenario"),
        str(tmp_path / "empty"): ("there is no plan.json in it", "kvbench run"),
    }
    for what, (words, remedy) in cases.items():
        with pytest.raises(ResultError) as error:
            find_result(what, results)
        assert words in error.value.message, what
        assert remedy in error.value.remedy, what


def test_a_name_in_a_folder_of_results_below_is_found_and_its_place_is_told(tmp_path: Path) -> None:
    example = made(tmp_path / "results" / "examples", "sweep", "20260101T000000Z")
    told: list[str] = []
    assert find_result("sweep", tmp_path / "results", told.append) == example
    assert told == [f"note: {example} is shown; {tmp_path / 'results'} itself has no result called sweep"]
    own = made(tmp_path / "results", "sweep", "20250101T000000Z")
    assert find_result("sweep", tmp_path / "results", told.append) == own
    assert len(told) == 1


def test_a_folder_with_one_scenarios_results_can_be_the_folder_of_results(tmp_path: Path) -> None:
    example = made(tmp_path, "sweep", "20260101T000000Z")
    assert find_result("sweep", example.parent) == example


def test_what_a_remedy_names_is_found(tmp_path: Path) -> None:
    made(tmp_path / "mixed", "x", "20260101T000000Z").rename(tmp_path / "mixed" / "one")
    made(tmp_path / "mixed", "y", "20260101T000000Z").rename(tmp_path / "mixed" / "two")
    with pytest.raises(ResultError, match=r"holds results: x \(1\), y \(1\)") as error:
        find_result("mixed", tmp_path)
    named = error.value.remedy.removeprefix("Name one of them, such as ").removesuffix(".")
    assert find_result(named, tmp_path) == tmp_path / "mixed" / "two"


def test_all_wrong_names_are_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(Case(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ResultError) as error:
        report.report([str(folder), "wrong", "worse"], tmp_path / "reports", results=tmp_path)
    assert "no result called wrong" in error.value.message
    assert "no result called worse" in error.value.message
    assert "no report was written for the other 1" in error.value.message
    assert sorted(tmp_path.rglob("*")) == before
    assert not capsys.readouterr().out
