"""Writes a table as CSV: values with all their digits, units in the header, refusals in columns of their own."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from kvbench.report.text import SPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.report.table import Cell, Column, Table, Unit

UNIT_NAMES: dict[Unit, str] = {
    "s": "s",
    "1/s": "1/s",
    "tokens/s": "tokens/s",
    "bytes/s": "bytes/s",
    "bytes": "bytes",
    "share": "share",
    "change": "share",
    "ratio": "ratio",
    "number": "ratio",
    "fraction": "ratio",
    "tokens": "tokens",
    "length": "tokens",
    "moment": "UTC",
}


def to_csv(table: Table) -> str:
    """Return the table as CSV with one header line; a value that is not known is an empty field, never 0.

    Columns for the ends of intervals and for refusals are there where any cell of the column has one.
    """
    columns = [_fields(column, [row.cells[place] for row in table.rows]) for place, column in enumerate(table.columns)]
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow([header for fields in columns for header, _ in fields])
    lines.writerows(zip(*(values for fields in columns for _, values in fields), strict=True))
    return written.getvalue()


def _fields(column: Column, cells: list[Cell]) -> list[tuple[str, list[str]]]:
    """Return a column as one to four fields, each with its header."""
    unit = UNIT_NAMES.get(column.unit, "")
    return [
        (f"{column.name}{end}{f' ({unit})' if unit and end != ' refusal' else ''}", values)
        for end, values in _values(column, cells)
    ]


def _values(column: Column, cells: list[Cell]) -> Iterator[tuple[str, list[str]]]:
    if column.unit == "text":
        yield "", [_text(cell.value if cell.value is not None else cell.text or cell.refusal) for cell in cells]
        return
    yield "", [_text(cell.value) for cell in cells]
    for end, values in ((" low", [cell.low for cell in cells]), (" high", [cell.high for cell in cells])):
        if any(cell.high is not None for cell in cells):
            yield end, list(map(_text, values))
    refusals = [refusal_of(cell) for cell in cells]
    if any(refusals):
        yield " refusal", list(map(_text, refusals))


def refusal_of(cell: Cell) -> str | None:
    """Return why a cell has no value, in its own words where it has no other, else why it has no interval."""
    return cell.refusal or (cell.text if cell.value is None else None) or None


def _text(value: float | str | None) -> str:
    if value is None:
        return ""
    return value.replace(SPACE, " ") if isinstance(value, str) else repr(value)
