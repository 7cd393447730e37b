"""Writes and reads the request rows of a run: a journal while it goes on, a Parquet file once it is sealed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import zstandard

from kvbench.errors import ResultError
from kvbench.lenient_json import at, parse
from kvbench.result import parquet_file
from kvbench.result.files import json_line, storage_faults
from kvbench.result.records import ROW_FIELDS, Row, Tier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from kvbench.typed_json import JsonObject

ROWS = "requests.parquet"
TIERS = "tiers.jsonl"


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
        path = self._path.with_name("answers.jsonl.zst")
        with storage_faults(path):
            if self._answers is None:
                raw = path.open("wb")
                self._answers = raw, zstandard.ZstdCompressor(3).stream_writer(raw, closefd=False)
            self._answers[1].write(json_line({"request_id": request_id, "answer": text}))

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

    def _write(self, path: Path, value: Mapping[str, object]) -> None:
        handle, line = self._open(path), json_line(value)
        with storage_faults(path):
            while line:  # a full disk may take half of it
                line = line[os.write(handle, line) :]


def journal_lines(path: Path) -> Iterator[tuple[Row, dict[str, int]]]:
    """Give the rows of a journal one by one, each with what its answer says of its tiers.

    A last line that a crash cut in half is left out.

    Raises:
        ResultError: another line is damaged.

    """
    for number, value in enumerate(lines_of(path), 1):
        try:
            yield Row.from_json(value), at(value, "tier_tokens") or {}
        except TypeError:
            raise _damaged(path, number) from None


def lines_of(path: Path) -> Iterator[JsonObject]:
    """Give the JSON lines of a file one by one; a last line that a crash cut in half is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            value = parse(line)
            if not isinstance(value, dict):
                raise _damaged(path, number)
            yield value


def _damaged(path: Path, number: int) -> ResultError:
    remedy = "Move the run's folder away and run the scenario again: it makes this run anew."
    return ResultError(f"{path}:{number} is not a whole row", remedy)


def read_rows(run: Path) -> list[Row]:
    """Read all rows of a run, sealed or still running."""
    if (run / ROWS).exists():
        kept = parquet_file.parts(run / ROWS, ROW_FIELDS)
        return [Row(*values) for part in kept for values in part]
    return [row for row, _ in journal_lines(run / "requests.jsonl")]


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows that come in batches, with the columns of `Row`; return how many they are."""
    count = 0
    with storage_faults(path), parquet_file.writing(path, row_kinds()) as file:
        for batch in batches:
            file.add_table(pa.Table.from_batches([batch]))
            count += len(batch)
    return count


def row_kinds() -> dict[str, parquet_file.Kind]:
    """Return the columns of `Row`."""
    return parquet_file.kinds_of(Row.__annotations__)
