"""Writes a Parquet file in constant memory: rows go in a few thousand at a time, the whole file appears at once.

Only `pyarrow`, its Parquet and its JSON are used: pyarrow's compute functions would delay a run by a second.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from kvbench.result.files import json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

ROWS_AT_ONCE = 5_000
ROWS_OF_A_GROUP = 50_000

Kind = type[int] | type[float] | type[bool] | type[str]


def kinds_of(annotations: Mapping[str, str]) -> dict[str, Kind]:
    """Return column kinds from the annotations of a dataclass, so that a column without values keeps its type."""
    known: dict[str, Kind] = {"int": int, "float": float, "bool": bool}
    return {name: known.get(annotation.split(" ")[0], str) for name, annotation in annotations.items()}


def schema_of(kinds: Mapping[str, Kind]) -> pa.Schema:
    """Return the schema of a file with these columns."""
    types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    return pa.schema([(name, types[kind]) for name, kind in kinds.items()])


class ParquetFile:
    """A file that is being written; each call of `add` takes some more rows."""

    def __init__(self, writer: Any, schema: Any) -> None:
        """Collect small tables for one row group after another."""
        self._writer = writer
        self._schema = schema
        self._tables: list[Any] = []
        self._waiting = 0

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows, each as values by column; what is left out is null."""
        if rows:
            self.add_table(_table_of(rows, self._schema))

    def add_table(self, table: Any) -> None:
        """Add rows that are a table already."""
        self._tables.append(table)
        self._waiting += table.num_rows
        if self._waiting >= ROWS_OF_A_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a row group."""
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables), row_group_size=self._waiting)
        self._tables, self._waiting = [], 0


def _table_of(rows: Sequence[Mapping[str, object]], schema: Any) -> Any:
    """Return rows as a table, by way of JSON: from Python values pyarrow loads pandas, a second between two runs."""
    lines = b"".join(map(json_line, rows))
    read = pj.ReadOptions(use_threads=False, block_size=len(lines))
    parse = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    return pj.read_json(pa.BufferReader(lines), read, parse)


@contextlib.contextmanager
def writing(path: Path, kinds: Mapping[str, Kind]) -> Iterator[ParquetFile]:
    """Give a file to write; it takes its place, and is on the disk, when the context ends without an error."""
    schema = schema_of(kinds)
    with _whole(path, schema) as writer:
        file = ParquetFile(writer, schema)
        yield file
        file.flush()


@contextlib.contextmanager
def _whole(path: Path, schema: Any) -> Iterator[Any]:
    """Give a writer to a file beside `path`, which takes its place when all is on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as raw:
        with pq.ParquetWriter(raw, schema) as writer:
            yield writer
        raw.flush()
        os.fsync(raw.fileno())
    temporary.replace(path)


def parts(path: Path, columns: Sequence[str]) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Give the rows of a file as tuples, a few thousand at a time; a column that an older file lacks is None."""
    with pq.ParquetFile(path) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=there):
            read = {name: batch.column(name).to_pylist() for name in there}
            missing = [None] * batch.num_rows
            yield zip(*(read.get(name, missing) for name in columns), strict=True)


def replace_column(path: Path, column: str, read: Sequence[str], value_of: Callable[..., object]) -> None:
    """Compute one column anew from others, which `value_of` gets row by row; all else stays as it is."""
    with pq.ParquetFile(path) as file, _whole(path, file.schema_arrow) as writer:
        copy = ParquetFile(writer, file.schema_arrow)
        place = file.schema_arrow.get_field_index(column)
        only = pa.schema([file.schema_arrow.field(place)])
        for batch in file.iter_batches(ROWS_AT_ONCE):
            rows = zip(*(batch.column(name).to_pylist() for name in read), strict=True)
            values = _table_of([{column: value_of(*row)} for row in rows], only).column(0)
            copy.add_table(pa.Table.from_batches([batch]).set_column(place, column, values))
        copy.flush()
