"""Reads and writes the result folder so that it survives a crash.

    results/<scenario>/<UTC time>/
        scenario.yaml  plan.json  facts.json  prompts.jsonl.zst  manifest.json  summary.json
        runs/<run id>/  run.json  requests.jsonl (while it runs)  requests.parquet (sealed)  metrics/  logs/  attempt-N/
                         answers.jsonl.zst (conversations with live history: what later turns sent again)
                         tiers.jsonl (while it runs, where each request's tier is proven as it ends)

Every completed request is one `write()` to the journal before the next step is taken; fsync happens only on sealing,
because the journal may share the disk under test. The unit of resume is the run: the cache state of a broken run died
with it, so its files move to `attempt-N`, are never summarised, and the run is done again. A run may have a million
requests: they go through here line by line, and never stand in memory together.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import zstandard

from kvbench.errors import ResultError
from kvbench.lenient_json import at, items
from kvbench.result import parquet_file
from kvbench.result.files import json_line, read_json, storage_faults, write_atomic, write_json
from kvbench.result.records import Row, Tier
from kvbench.result.rows import ROWS, TIERS, Journal, journal_lines, lines_of, row_kinds, write_batches
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pyarrow as pa

    from kvbench.result.run_record import RunRecord

Judge = Callable[[Row, dict[str, int]], tuple[Tier, str] | None]
"""Says which tier served a measured request, and by what evidence, from its row and its answer's own word on tiers."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    attempt: int

    def open_journal(self) -> Journal:
        """Open `requests.jsonl` for appending."""
        return Journal(self.path / "requests.jsonl")

    def keep_text(self, name: str, text: str) -> None:
        """Keep a text as it was, such as a scrape of the server's metrics."""
        write_atomic(self.path / name, text.encode())

    def seal(self, record: RunRecord, judge: Judge | None = None) -> None:
        """Turn the journal into `requests.parquet`, then write `run.json`, which marks the run as done.

        `judge` says which tier served a measured request, and by what evidence; None where the journal has that already
        or nothing tells it. The rows pass in a stream.
        """
        journal, target = self.path / "requests.jsonl", self.path / ROWS
        tier_of, count = judge or _kept_tiers(self.path / TIERS), 0
        with storage_faults(target), parquet_file.writing(target, row_kinds()) as file:
            rows = (_judged(row, tier_tokens, tier_of) for row, tier_tokens in journal_lines(journal))
            while some := list(itertools.islice(rows, parquet_file.ROWS_AT_ONCE)):
                file.add([row.to_json() for row in some])
                count += len(some)
        write_json(self.path / "run.json", to_json(replace(record, attempt=self.attempt, requests=count)))
        journal.unlink(missing_ok=True)
        (self.path / TIERS).unlink(missing_ok=True)

    def seal_batches(self, record: RunRecord, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows that come in batches, with the columns of `Row`, then `run.json`, as `seal` does."""
        count = write_batches(self.path / ROWS, batches)
        write_json(self.path / "run.json", to_json(replace(record, attempt=self.attempt, requests=count)))


def _judged(row: Row, tier_tokens: dict[str, int], tier_of: Judge) -> Row:
    found = tier_of(row, tier_tokens) if row.phase == "measure" else None
    return row if found is None else replace(row, tier=found[0], tier_evidence=found[1])


def _kept_tiers(path: Path) -> Judge:
    """Return a judge that repeats what was proven while the run went on; its lines are in the order of the rows."""
    lines = lines_of(path)
    following = next(lines, None)

    def judge(row: Row, _tier_tokens: dict[str, int]) -> tuple[Tier, str] | None:
        nonlocal following
        if following is None or following["request_id"] != row.request_id:
            return None
        found = following
        following = next(lines, None)
        return at(found, "tier"), str(found["evidence"])

    return judge


@dataclass(frozen=True)
class ResultFolder:
    """One result, new or resumed."""

    path: Path
    resumed: bool

    def is_sealed(self, run_id: str) -> bool:
        """Tell whether this run is done."""
        return (self.path / "runs" / run_id / "run.json").exists()

    @property
    def is_measured(self) -> bool:
        """Whether every run of its plan is done."""
        return all(self.is_sealed(spec["run_id"]) for spec in items(self.read_json("plan.json")["runs"]))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do: a summary of all runs, with their answers compared, is written.

        A summary that `kvbench report` wrote before the last run, or before the answers were compared, says so itself.
        """
        if not self.is_measured:
            return False
        try:
            summary = self.read_json("summary.json")
        except ResultError:  # missing, or damaged: it is computed again
            return False
        is_compared = summary.get("answers_compared", True)  # summaries of earlier versions lack it
        return bool(summary.get("complete") and is_compared)

    def open_run(self, run_id: str) -> RunFolder:
        """Make the folder of a run; what a broken attempt left there moves to `attempt-N`."""
        folder = self.path / "runs" / run_id
        with storage_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
            attempts = len(list(folder.glob("attempt-*")))
            left = [entry for entry in folder.iterdir() if not entry.name.startswith("attempt-")]
            if left:
                attempts += 1
                kept = folder / f"attempt-{attempts}"
                kept.mkdir()
                for entry in left:
                    shutil.move(entry, kept / entry.name)
        return RunFolder(folder, attempts + 1)

    def write_json(self, name: str, value: Mapping[str, object]) -> None:
        """Write one of the JSON files of the folder."""
        write_json(self.path / name, value)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one of the JSON files of the folder."""
        return read_json(self.path / name)

    def write_prompts(self, texts: Iterable[tuple[str, str | list[int]]]) -> None:
        """Write `prompts.jsonl.zst`: one line for each text, compressed as it comes, never all in memory."""
        target = self.path / "prompts.jsonl.zst"
        temporary = target.with_name(f".{target.name}.tmp")
        with storage_faults(target), temporary.open("wb") as raw:
            _compress(raw, texts)
        temporary.replace(target)

    def add_prompts(self, texts: Iterable[tuple[str, str | list[int]]]) -> None:
        """Append texts of a repeated attempt to `prompts.jsonl.zst`, as a frame of their own."""
        target = self.path / "prompts.jsonl.zst"
        with storage_faults(target), target.open("ab") as raw:
            _compress(raw, texts)


def find_unfinished(results: Path, scenario: str, fingerprint: str) -> ResultFolder | None:
    """Return the newest result of the same scenario if something of it is left to do.

    Only results whose `plan.json` has the same fingerprint count: a changed scenario is another question.
    """
    for path in sorted((results / scenario).glob("*Z*/plan.json"), reverse=True):
        if read_json(path).get("fingerprint") == fingerprint:
            newest = ResultFolder(path.parent, resumed=True)
            return None if newest.is_finished else newest
    return None


def open_result(results: Path, scenario: str, fingerprint: str, *, fresh: bool = False) -> ResultFolder:
    """Return the result to go on with, or make a new folder.

    Raises:
        StorageError: the folder cannot be made.

    """
    unfinished = None if fresh else find_unfinished(results, scenario, fingerprint)
    if unfinished is not None:
        return unfinished
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder, number = results / scenario / stamp, 1
    with storage_faults(folder):
        while folder.exists():
            number += 1
            folder = results / scenario / f"{stamp}-{number}"
        folder.mkdir(parents=True)
    return ResultFolder(folder, resumed=False)


def _compress(raw: IO[bytes], texts: Iterable[tuple[str, str | list[int]]]) -> None:
    with zstandard.ZstdCompressor(1).stream_writer(raw, closefd=False) as file:
        for key, text in texts:
            file.write(json_line({"key": key, "prompt": text}))
