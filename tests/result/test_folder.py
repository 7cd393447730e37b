"""The result folder: nothing measured is lost, and a broken attempt is kept apart."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import zstandard

from kvbench.errors import ResultError, StorageError
from kvbench.experiment.run_client import make_row
from kvbench.result import answers, folder, parquet_file
from kvbench.result.files import locked, read_json
from kvbench.result.record_files import read_run, write_plan
from kvbench.result.records import Response, Row
from kvbench.result.rows import read_rows
from kvbench.result.run_record import CacheRecord, DriverRecord, Ledger, RunRecord, ServerRecord
from kvbench.scenario import plan
from tests.builders.worlds import make_scenario

if TYPE_CHECKING:
    from pathlib import Path

PLAN = plan.expand(make_scenario())
SPEC = PLAN.runs[0]


def row(number: int = 0, attempt: int = 1, **changes: Any) -> Row:
    response = Response(f"r/{number}", "ok", 1, 2, 1002, 1002, 2002, "exact", 1e-5, 1000, 8, None, 200)
    made = make_row(SPEC, attempt, SPEC.draws[number % 2], "measure", response, "native")
    return Row.from_json({**made.to_json(), "request_id": f"r/{number}", **changes})


def record(run_id: str) -> RunRecord:
    ledger = Ledger(1, 1000, None, 0, None, None, {}, None, None, None, closes=False, gap="no counters")
    return RunRecord(
        run_id, "g4", 1, None, 1.0, CacheRecord("off"), ledger, None, DriverRecord("native"), ServerRecord(None, None)
    )


def open_new(results: Path) -> folder.ResultFolder:
    result = folder.open_result(results, "made-up", PLAN.fingerprint)
    write_plan(result.path, PLAN.record())
    return result


def test_a_row_comes_back_as_it_went(tmp_path: Path) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    rows = [row(0), row(1, error='a "quoted"\nline'), row(2, ttft_s=None)]
    for one in rows:
        journal.append(one)
    assert read_rows(run.path) == rows  # readable while it runs
    journal.close()
    run.seal(record("r1"), lambda one, _: ("g4", "bytes") if one.request_id == "r/1" else None)
    sealed = read_rows(run.path)
    assert [one.tier for one in sealed] == [None, "g4", None]
    assert sealed[0] == rows[0]
    assert sealed[2].cached_tokens is None  # not reported is null, never 0
    assert not (run.path / "requests.jsonl").exists()
    kept = read_run(run.path)
    assert (kept.run_id, kept.attempt, kept.requests) == ("r1", 1, 3)


def test_a_tier_that_was_proven_as_the_request_ended_is_in_its_row(tmp_path: Path) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    for number in range(4):
        journal.append(row(number, phase="probe" if number == 0 else "measure"))
        if number in {1, 3}:
            journal.keep_tier(f"r/{number}", "g4", f"bytes of {number}")
    journal.close()
    run.seal(record("r1"))
    told = [(one.tier, one.tier_evidence) for one in read_rows(run.path)]
    assert told == [(None, None), ("g4", "bytes of 1"), (None, None), ("g4", "bytes of 3")]
    assert sorted(path.name for path in run.path.iterdir()) == ["requests.parquet", "run.json"]


def test_what_an_answer_says_of_its_tiers_reaches_who_judges_it(tmp_path: Path) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    journal.append(row(0), {"g1": 16, "g4": 32})
    journal.append(row(1))
    journal.close()
    run.seal(record("r1"), lambda _, tokens: ("mixed" if tokens else "recompute", str(sum(tokens.values()))))
    told = [(one.tier, one.tier_evidence) for one in read_rows(run.path)]
    assert told == [("mixed", "48"), ("recompute", "0")]


def test_many_rows_go_into_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(parquet_file, "ROWS_OF_A_GROUP", 5)
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    for number in range(14):
        journal.append(row(number))
    journal.close()
    run.seal(record("r1"))
    file = pq.ParquetFile(run.path / "requests.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [6, 6, 2]
    assert [one.request_id for one in read_rows(run.path)] == [f"r/{number}" for number in range(14)]


def test_answers_are_compared_with_the_first_that_recomputing_gave(tmp_path: Path) -> None:
    result = open_new(tmp_path)
    for run_id, hashes in (("off", ["a", "b"]), ("on", ["a", "c"])):
        run = result.open_run(run_id)
        journal = run.open_journal()
        for number, found in enumerate(hashes):
            journal.append(row(number, answer_hash=found))
        journal.append(row(2, answer_hash=None))
        journal.close()
        run.seal(record(run_id))
    for _ in range(2):  # again changes nothing
        answers.settle_answers(result.path / "runs", ["off"])
        matches = [one.answers_match for one in read_rows(result.path / "runs" / "on")]
        assert matches == [True, False, None]


def test_answers_that_later_turns_repeat_are_kept(tmp_path: Path) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    journal.keep_answer("r/0", "said")
    journal.keep_answer("r/1", "so")
    journal.close()
    with (run.path / "answers.jsonl.zst").open("rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"request_id": "r/0", "answer": "said"},
        {"request_id": "r/1", "answer": "so"},
    ]


def test_every_row_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    for number in range(5):
        journal.append(row(number))
        lines = (run.path / "requests.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == [f"r/{n}" for n in range(number + 1)]
    journal.close()


def test_a_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    journal.append(row(0))
    journal.close()
    with (run.path / "requests.jsonl").open("ab") as file:
        file.write(b'{"run_id": "r1", "att')
    assert read_rows(run.path) == [row(0)]


def test_a_broken_attempt_is_kept_apart_and_the_next_one_counts_up(tmp_path: Path) -> None:
    result = open_new(tmp_path)
    for attempt in (1, 2, 3):
        run = result.open_run("r1")
        assert run.attempt == attempt
        journal = run.open_journal()
        journal.append(row(0, attempt))
        journal.close()
        run.keep_text("metrics/before.prom", f"attempt {attempt}")
    run.seal(record("r1"))
    assert result.is_sealed("r1")
    assert [one.attempt for one in read_rows(run.path)] == [3]
    for attempt in (1, 2):
        kept = run.path / f"attempt-{attempt}"
        assert [one.attempt for one in read_rows(kept)] == [attempt]
        assert (kept / "metrics" / "before.prom").read_text() == f"attempt {attempt}"


def test_an_unfinished_result_goes_on_and_a_finished_one_does_not(tmp_path: Path) -> None:
    first = open_new(tmp_path)
    again = folder.open_result(tmp_path, "made-up", PLAN.fingerprint)
    assert (again.path, again.resumed) == (first.path, True)
    assert folder.open_result(tmp_path, "made-up", "another").resumed is False
    assert folder.open_result(tmp_path, "made-up", PLAN.fingerprint, fresh=True).path != first.path


def seal_all(result: folder.ResultFolder) -> None:
    for spec in PLAN.runs:
        result.open_run(spec.run_id).seal(record(spec.run_id))


def test_a_result_is_finished_by_a_summary_of_all_its_runs(tmp_path: Path) -> None:
    def goes_on() -> bool:
        return folder.open_result(tmp_path, "made-up", PLAN.fingerprint) == replace(first, resumed=True)

    first = open_new(tmp_path)
    assert goes_on()
    first.write_json("summary.json", {"complete": False})  # `kvbench report` writes one for an unfinished result too
    seal_all(first)
    assert goes_on(), "its summary is older than its last run"
    first.write_json("summary.json", {"complete": True, "answers_compared": False})
    assert goes_on(), "killed while the answers were compared, and `kvbench report` came between"
    (first.path / "summary.json").write_bytes(b'{"schema_version": 1, "comp')
    assert goes_on(), "its summary is damaged"
    (first.path / "summary.json").unlink()
    assert goes_on(), "killed before its summary"
    (first.path / ".summary.json.tmp").write_bytes(b"{")
    assert goes_on(), "killed while its summary was written"
    first.write_json("summary.json", {"complete": True})
    assert not goes_on()


def test_a_result_of_another_fingerprint_hides_none_and_is_never_gone_on_with(tmp_path: Path) -> None:
    first = open_new(tmp_path)
    seal_all(first)
    other = folder.open_result(tmp_path, "made-up", "another")
    write_plan(other.path, replace(PLAN.record(), fingerprint="another"))
    seal_all(other)
    other.write_json("summary.json", {"complete": True})
    assert folder.open_result(tmp_path, "made-up", PLAN.fingerprint) == replace(first, resumed=True)
    assert not folder.open_result(tmp_path, "made-up", "another").resumed


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "x", "the result"),
        pytest.raises(StorageError, match="another kvbench"),
        locked(tmp_path / "x", "the result"),
    ):
        pass
    with locked(tmp_path / "x", "the result"):
        pass


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text('{"run_id": \n{}\n')
    with pytest.raises(ResultError, match=r"requests\.jsonl:1 is not a whole row"):
        read_rows(tmp_path)


def test_json_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"schema_version": 99}')
    with pytest.raises(ResultError, match="schema version 99"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ResultError, match="cannot read"):
        read_json(tmp_path / "x.json")


def test_prompts_are_written_once_compressed(tmp_path: Path) -> None:
    result = open_new(tmp_path)
    texts: list[tuple[str, str | list[int]]] = [("a", "text of a"), ("b", [1, 2, 3])]
    result.write_prompts(iter(texts))
    with (result.path / "prompts.jsonl.zst").open("rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"key": "a", "prompt": "text of a"},
        {"key": "b", "prompt": [1, 2, 3]},
    ]


def test_a_full_disk_is_one_sentence_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_new(tmp_path).open_run("r1").open_journal()

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="no space left") as error:
        journal.append(row(0))
    assert "resumes" in error.value.remedy
    monkeypatch.undo()
    journal.close()


def test_a_half_written_line_is_completed_or_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_new(tmp_path).open_run("r1")
    journal = run.open_journal()
    real_write = os.write
    monkeypatch.setattr(
        os, "write", lambda fd, data: real_write(fd, data[: max(len(data) // 2, 1)] if len(data) > 400 else data)
    )
    journal.append(row(0))
    monkeypatch.undo()
    journal.close()
    assert read_rows(run.path) == [row(0)]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write") as error:
        folder.open_result(tmp_path / "file", "made-up", "f")
    assert "--results" in error.value.remedy
