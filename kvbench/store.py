"""The result folder: what is kept, and how it survives a crash.

    results/<scenario>/<UTC time>/
        scenario.yaml  plan.json  facts.json  prompts.jsonl.zst  manifest.json  summary.json
        runs/<run id>/  run.json  requests.jsonl (while it runs)  requests.parquet (sealed)  metrics/  logs/  attempt-N/
                         answers.jsonl.zst (conversations with live history: what later turns sent again)

Every completed request is one `write()` to the journal before the next step is taken; fsync happens only on sealing,
because the journal may share the disk under test. The unit of resume is the run: the cache state of a broken run died
with it, so its files move to `attempt-N`, are never summarised, and the run is done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kvbench.errors import ResultError, StorageError
from kvbench.records import READ_VERSIONS, SCHEMA_VERSION, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    from kvbench.records import Tier

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
    """Appends one line of JSON for each completed request, each by a single `write()`."""

    def __init__(self, path: Path) -> None:
        """Open for appending; the file is created."""
        self._path = path
        with storage_faults(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, row: Row) -> None:
        """Keep a row; when this returns the line is with the kernel, so a killed process loses nothing."""
        line = json.dumps(row.to_json(), separators=(",", ":")).encode() + b"\n"
        with storage_faults(self._path):
            while line:  # a full disk may take half of it
                line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def read_journal(path: Path) -> list[Row]:
    """Read the whole lines of a journal; a last line that a crash cut in half is left out."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            rows.append(Row.from_json(json.loads(line)))
        except (ValueError, TypeError):
            remedy = "Move the run's folder away and run the scenario again: it makes this run anew."
            raise ResultError(f"{path}:{number} is not a whole row", remedy) from None
    return rows


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

    def keep_answers(self, answers: Iterable[tuple[str, str]]) -> None:
        """Write `answers.jsonl.zst`, the answers that later turns sent again, by request; no file if there are none."""
        import zstandard  # noqa: PLC0415

        lines = [json.dumps({"request_id": name, "answer": text}, separators=(",", ":")) for name, text in answers]
        if lines:
            content = "".join(f"{line}\n" for line in lines).encode()
            write_atomic(self.path / "answers.jsonl.zst", zstandard.ZstdCompressor(3).compress(content))

    def seal(self, record: dict[str, Any], tiers: dict[str, tuple[Tier, str]]) -> None:
        """Turn the journal into `requests.parquet`, then write `run.json`, which marks the run as done.

        `tiers` gives the tier and the evidence for each measured request by its identifier.
        """
        rows = [
            replace(row, tier=tiers[row.request_id][0], tier_evidence=tiers[row.request_id][1])
            if row.request_id in tiers
            else row
            for row in read_journal(self.path / "requests.jsonl")
        ]
        _write_parquet(self.path / "requests.parquet", rows)
        write_json(self.path / "run.json", {**record, "attempt": self.attempt, "requests": len(rows)})
        (self.path / "requests.jsonl").unlink(missing_ok=True)

    def seal_batches(self, record: dict[str, Any], batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows that come in batches, with the columns of `row_schema`, then `run.json`, as `seal` does."""
        count = _write_batches(self.path / "requests.parquet", batches)
        write_json(self.path / "run.json", {**record, "attempt": self.attempt, "requests": count})


def settle_answers(runs: Path, reference_runs: list[str]) -> None:
    """Compare every answer with the one that recomputing gave for the same prompt.

    Writes `answers_match` into the rows of every sealed run. The reference is the first answer of the runs named in
    `reference_runs`, whose prompts, and turns of them, must be the same texts. A prompt without a reference stays null.
    """
    measured = {path.parent: read_rows(path.parent) for path in sorted(runs.glob("*/run.json"))}
    reference = reference_answers(row for run_id in reference_runs for row in measured.get(runs / run_id, []))
    for folder, rows in measured.items():
        settled = [replace(row, answers_match=answer_matches(row, reference)) for row in rows]
        if settled != rows:
            _write_parquet(folder / "requests.parquet", settled)


def reference_answers(rows: Iterable[Row]) -> dict[tuple[str, int], str]:
    """Return the hash of the first measured answer to each prompt, and turn of it."""
    reference: dict[tuple[str, int], str] = {}
    for row in rows:
        if row.phase == "measure" and row.answer_hash is not None:
            reference.setdefault((row.prompt_id, row.turn), row.answer_hash)
    return reference


def answer_matches(row: Row, reference: dict[tuple[str, int], str]) -> bool | None:
    """Tell whether a measured answer equals that of the reference; None where one of the two is missing."""
    wanted = reference.get((row.prompt_id, row.turn))
    if row.phase != "measure" or row.answer_hash is None or wanted is None:
        return None
    return row.answer_hash == wanted


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
        import zstandard  # noqa: PLC0415 - only a new result needs it

        target = self.path / "prompts.jsonl.zst"
        temporary = target.with_name(f".{target.name}.tmp")
        with (
            storage_faults(target),
            temporary.open("wb") as raw,
            zstandard.ZstdCompressor(1).stream_writer(raw) as file,
        ):
            for key, text in texts:
                file.write(_prompt_line(key, text))
        temporary.replace(target)

    def add_prompts(self, texts: Iterable[tuple[str, str | list[int]]]) -> None:
        """Append texts of a repeated attempt to `prompts.jsonl.zst`, as a frame of their own."""
        import zstandard  # noqa: PLC0415

        frame = zstandard.ZstdCompressor(1).compress(b"".join(_prompt_line(key, text) for key, text in texts))
        target = self.path / "prompts.jsonl.zst"
        with storage_faults(target), target.open("ab") as file:
            file.write(frame)


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
    """Read the rows of a run, sealed or still running."""
    if (run / "requests.parquet").exists():
        import pyarrow.parquet as pq  # noqa: PLC0415 - half a second that a run does not need before its first request

        return [Row.from_json(value) for value in pq.read_table(run / "requests.parquet").to_pylist()]
    return read_journal(run / "requests.jsonl")


def _prompt_line(key: str, text: str | list[int]) -> bytes:
    return json.dumps({"key": key, "prompt": text}, separators=(",", ":")).encode() + b"\n"


def _write_parquet(path: Path, rows: list[Row]) -> None:
    """Write rows as Parquet, by way of JSON: from Python values pyarrow loads pandas, a second between two runs."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.json as pj  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = row_schema()
    lines = b"".join(json.dumps(row.to_json(), separators=(",", ":")).encode() + b"\n" for row in rows)
    table = (
        schema.empty_table()
        if not rows
        else pj.read_json(
            pa.BufferReader(lines),
            pj.ReadOptions(use_threads=False, block_size=len(lines)),
            pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomic(path, buffer.getvalue().to_pybytes())


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
