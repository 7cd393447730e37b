"""Columns of requests as another tool saw them: built for a batch at a time, without an object for each request."""

from __future__ import annotations

from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from kvbench.importers.export import Seen
from kvbench.lenient_json import number, text, whole
from kvbench.result.parquet_file import kinds_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


_ALL_FIELDS = attrgetter(*Seen.__annotations__)
_TO_SECONDS = {"ms": 1e-3, "sec": 1.0, "s": 1.0}


def schema() -> pa.Schema:
    """Return the columns of `Seen`."""
    return schema_of(kinds_of(Seen.__annotations__))


def wholes(values: Sequence[Any]) -> pa.Array:
    """Make a column of whole numbers; what `whole` does not take is null."""
    if {*map(type, values)} <= {int, NoneType}:
        try:
            column = pa.array(values, pa.int64())
        except OverflowError:
            return pa.array(map(whole, values), pa.int64())
        least = pc.min(column).as_py()
        if least is None or least >= 0:
            return column
    return pa.array(map(whole, values), pa.int64())


def numbers(values: Sequence[Any]) -> pa.Array:
    """Make a column of numbers; what `number` does not take is null."""
    if {*map(type, values)} <= {float, NoneType}:
        column = pa.array(values, pa.float64())
        if pc.all(pc.and_(pc.greater_equal(column, 0.0), pc.less(column, 2.0**63))).as_py() is not False:
            return column
    return pa.array(map(number, values), pa.float64())


def texts(values: Sequence[Any]) -> pa.Array:
    """Make a column of texts; what `text` does not take is null."""
    if {*map(type, values)} <= {str, NoneType} and "" not in values:
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:
            pass
    return pa.array(map(text, values), pa.string())


def seconds(values: Sequence[Any], units: Sequence[Any]) -> pa.Array:
    """Make a column of seconds from values that AIPerf wrote in a unit; an unknown unit makes a value null."""
    if {*map(type, units)} <= {str, NoneType} and {*units} <= {"ms", None}:
        return pc.multiply(numbers(values), 1e-3)
    factors = [_TO_SECONDS.get(unit) if isinstance(unit, str) else None for unit in units]
    return pc.multiply(numbers(values), numbers(factors))


def without_zero(column: pa.Array) -> pa.Array:
    """Make 0 null: a time of 0 s says that nothing was measured."""
    return pc.if_else(pc.equal(column, 0), pa.scalar(None, column.type), column)


def changed(column: pa.ChunkedArray, change: Callable[[str], str]) -> pa.ChunkedArray:
    """Change the texts of a column, each different one once."""
    found = pc.unique(column).drop_null()
    clean = pa.array([change(one) for one in found.to_pylist()], pa.string())
    return column if clean.equals(found) else pc.take(clean, pc.index_in(column, value_set=found))


def table_of(batches: Iterable[dict[str, pa.Array]]) -> pa.Table:
    """Put batches together as a table with the columns of `Seen`; a column that a batch lacks is null there."""
    columns = schema()
    return pa.Table.from_batches([_complete(batch, columns) for batch in batches], columns)


def table_of_rows(rows: Iterable[Seen]) -> pa.Table:
    """Make a table of some requests."""
    kinds = schema()
    columns = list(zip(*map(_ALL_FIELDS, rows), strict=True)) or [()] * len(kinds)
    return pa.Table.from_arrays([pa.array(*one) for one in zip(columns, kinds.types, strict=True)], schema=kinds)


def _complete(batch: dict[str, pa.Array], columns: pa.Schema) -> pa.RecordBatch:
    count = len(next(iter(batch.values())))
    arrays = [batch.get(field.name, pa.nulls(count, field.type)) for field in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)
