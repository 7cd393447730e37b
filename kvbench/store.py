"""The result folder: what is kept, and how it survives a crash.

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

import contextlib
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from kvbench.errors import ResultError, StorageError
from kvbench.records import READ_VERSIONS, ROW_FIELDS, SCHEMA_VERSION, Row, Tier
from kvbench.result import parquet_file
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    from kvbench.result.run_record import RunRecord

ROWS = "requests.parquet"
TIERS = "tiers.jsonl"
Judge = Callable[[Row, dict[str, int]], tuple[Tier, str] | None]
"""Says which tier served a measured request, and by what evidence, from its row and its answer's own word on tiers."""

_FREE_SPACE_REMEDY = "Free some space there, then run the same command again: it resumes and loses nothing."


@contextlib.contextmanager
def storage_faults(path: Path) -> Iterator[None]:
    """Turn what a file system can refuse into one sentence with a remedy."""
    try:
        yield
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        full = fault.errno in (28, 122)  # ENOSPC, EDQUOT
        remedy = _FREE_SPACE_REMEDY if full else "Choose a folder that you may write, with --results DIR."
        raise StorageError(f"cannot write {path}: {reason}", remedy) from fault


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, also after a crash.

    Raises:
        StorageError: the folder is full or may not be written.

    """
    with writing_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write piece by piece; a reader sees it when all of it is on the disk, or never.

    Raises:
        StorageError: the folder is full or may not be written.

    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON atomically, with the schema version in it."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **value}, indent=1, ensure_ascii=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON that `write_json` wrote.

    Raises:
        ResultError: missing, unreadable, or of another schema version.

    """
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise ResultError(f"cannot read {path}: {fault}", "Name a result folder that `kvbench run` wrote.") from None
    if value.get("schema_version") not in READ_VERSIONS:
        found = value.get("schema_version")
        raise ResultError(
            f"{path} has schema version {found}, this kvbench reads {' and '.join(map(str, READ_VERSIONS))}",
            "Use the kvbench version that wrote the result.",
        )
    return value


class Journal:
    """Keeps a running run, line by line: a row for each completed request, and what belongs to it.

    Each line is a single `write()`; when a method returns the line is with the kernel, so a killed process loses
    nothing. Answers that later turns repeat are compressed on the way, and whole only after `close`.
    """

    def __init__(self, path: Path) -> None:
        """Open `requests.jsonl` for appending; the file is created."""
        self._path = path
        self._files: dict[Path, int] = {}
        self._answers: tuple[Any, Any] | None = None
        self._open(path)

    def append(self, row: Row, tier_tokens: dict[str, int] | None = None) -> None:
        """Keep a row; `tier_tokens` is what the answer says of where its cached tokens came from."""
        told = {"tier_tokens": tier_tokens} if tier_tokens else {}
        self._write(self._path, {**row.to_json(), **told})

    def keep_tier(self, request_id: str, tier: Tier, evidence: str) -> None:
        """Keep the tier that was proven for a request as it ended."""
        self._write(self._path.with_name(TIERS), {"request_id": request_id, "tier": tier, "evidence": evidence})

    def keep_answer(self, request_id: str, text: str) -> None:
        """Keep an answer that a later turn sends again, in `answers.jsonl.zst`."""
        import zstandard  # noqa: PLC0415 - only conversations with live history need it

        path = self._path.with_name("answers.jsonl.zst")
        with storage_faults(path):
            if self._answers is None:
                raw = path.open("wb")
                self._answers = raw, zstandard.ZstdCompressor(3).stream_writer(raw, closefd=False)
            self._answers[1].write(_json_line({"request_id": request_id, "answer": text}))

    def close(self) -> None:
        """Let go of the files."""
        for handle in self._files.values():
            os.close(handle)
        self._files = {}
        if self._answers is not None:
            raw, compressed = self._answers
            self._answers = None
            with storage_faults(self._path), raw:
                compressed.close()

    def _open(self, path: Path) -> int:
        if path not in self._files:
            with storage_faults(path):
                self._files[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return self._files[path]

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        handle, line = self._open(path), _json_line(value)
        with storage_faults(path):
            while line:  # a full disk may take half of it
                line = line[os.write(handle, line) :]


def _json_line(value: dict[str, Any]) -> bytes:
    """Return a value as one line of JSON."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def journal_lines(path: Path) -> Iterator[tuple[Row, dict[str, int]]]:
    """Give the rows of a journal one by one, each with what its answer says of its tiers.

    A last line that a crash cut in half is left out.

    Raises:
        ResultError: another line is damaged.

    """
    for number, value in enumerate(_lines(path), 1):
        try:
            yield Row.from_json(value), value.get("tier_tokens") or {}
        except TypeError:
            raise _damaged(path, number) from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value: dict[str, Any] = json.loads(line)
            except ValueError:
                raise _damaged(path, number) from None
            yield value


def _damaged(path: Path, number: int) -> ResultError:
    remedy = "Move the run's folder away and run the scenario again: it makes this run anew."
    return ResultError(f"{path}:{number} is not a whole row", remedy)


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
        with storage_faults(target), parquet_file.writing(target, _kinds()) as file:
            rows = (_judged(row, tier_tokens, tier_of) for row, tier_tokens in journal_lines(journal))
            while some := list(itertools.islice(rows, parquet_file.ROWS_AT_ONCE)):
                file.add([row.to_json() for row in some])
                count += len(some)
        write_json(self.path / "run.json", to_json(replace(record, attempt=self.attempt, requests=count)))
        journal.unlink(missing_ok=True)
        (self.path / TIERS).unlink(missing_ok=True)

    def seal_batches(self, record: RunRecord, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows that come in batches, with the columns of `row_schema`, then `run.json`, as `seal` does."""
        count = _write_batches(self.path / ROWS, batches)
        write_json(self.path / "run.json", to_json(replace(record, attempt=self.attempt, requests=count)))


def _judged(row: Row, tier_tokens: dict[str, int], tier_of: Judge) -> Row:
    found = tier_of(row, tier_tokens) if row.phase == "measure" else None
    return row if found is None else replace(row, tier=found[0], tier_evidence=found[1])


def _kept_tiers(path: Path) -> Judge:
    """Return a judge that repeats what was proven while the run went on; its lines are in the order of the rows."""
    lines = _lines(path)
    following = next(lines, None)

    def judge(row: Row, _tier_tokens: dict[str, int]) -> tuple[Tier, str] | None:
        nonlocal following
        if following is None or following["request_id"] != row.request_id:
            return None
        found = following
        following = next(lines, None)
        return found["tier"], found["evidence"]

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
        return all(self.is_sealed(spec["run_id"]) for spec in self.read_json("plan.json")["runs"])

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

    def write_json(self, name: str, value: dict[str, Any]) -> None:
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


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process: two runs in one result, or in one tier, would destroy each other's work.

    Raises:
        StorageError: another process holds it.

    """
    with storage_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"another kvbench is using {what} {folder}", "Wait until it has ended.") from None
        yield
    finally:
        os.close(handle)


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


def read_rows(run: Path) -> list[Row]:
    """Read all rows of a run, sealed or still running."""
    if (run / ROWS).exists():
        kept = parquet_file.parts(run / ROWS, ROW_FIELDS)
        return [Row(*values) for part in kept for values in part]
    return [row for row, _ in journal_lines(run / "requests.jsonl")]


def _compress(raw: IO[bytes], texts: Iterable[tuple[str, str | list[int]]]) -> None:
    import zstandard  # noqa: PLC0415 - only a new result needs it

    with zstandard.ZstdCompressor(1).stream_writer(raw, closefd=False) as file:
        for key, text in texts:
            file.write(_json_line({"key": key, "prompt": text}))


def _write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a parquet file batch by batch, atomically; return the number of rows."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    count = 0
    with writing_atomically(path) as file, pq.ParquetWriter(file, row_schema()) as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += len(batch)
    return count


def row_schema() -> pa.Schema:
    """Column types from the annotations of `Row`, so that a column without values keeps its type."""
    import pyarrow as pa  # noqa: PLC0415

    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    names = Row.__annotations__
    return pa.schema([(name, kinds.get(kind.split(" ")[0], pa.string())) for name, kind in names.items()])


def _kinds() -> dict[str, parquet_file.Kind]:
    """Return column types from the annotations of `Row`, so that a column without values keeps its type."""
    known: dict[str, parquet_file.Kind] = {"int": int, "float": float, "bool": bool}
    return {name: known.get(kind.split(" ")[0], str) for name, kind in Row.__annotations__.items()}
