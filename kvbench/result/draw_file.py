"""Writes and reads `draws.parquet`: every request of a plan, one a row, in the order in which it is to be sent."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from kvbench.result import parquet_file
from kvbench.result.files import storage_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DRAWS = "draws.parquet"
DrawRow = tuple[str, str, str, int, str, str | None, int, float | None]
"""Run, request, prompt, planned tokens, salt, conversation, turn, and in an open loop when it is due (s)."""

_COLUMNS: dict[str, parquet_file.Kind] = {
    "run_id": str,
    "request_id": str,
    "prompt_id": str,
    "isl_target": int,
    "salt": str,
    "conversation_id": str,
    "turn": int,
    "due_s": float,
}


def write_draws(result: Path, rows: Iterable[DrawRow]) -> None:
    """Write the draws of a result; the rows are taken a few thousand at a time.

    Raises:
        StorageError: the folder cannot be written.

    """
    left = iter(rows)
    with storage_faults(result / DRAWS), parquet_file.writing(result / DRAWS, _COLUMNS) as file:
        while some := list(itertools.islice(left, parquet_file.ROWS_AT_ONCE)):
            file.add([dict(zip(_COLUMNS, row, strict=True)) for row in some])


def read_draws(result: Path) -> Iterator[DrawRow]:
    """Give the draws of a result, a few thousand in memory at a time."""
    with pq.ParquetFile(result / DRAWS) as file:
        for batch in file.iter_batches(parquet_file.ROWS_AT_ONCE, columns=list(_COLUMNS)):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
