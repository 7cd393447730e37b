"""Writes a table as JSON: its columns with their units, and rows whose cells hold values, intervals and refusals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kvbench.report.render.to_csv import refusal_of
from kvbench.report.text import SPACE, cell_text

if TYPE_CHECKING:
    from kvbench.report.table import Cell, Table, Unit
    from kvbench.typed_json import JsonObject


def to_json(table: Table) -> str:
    """Return the table as JSON text."""
    return json.dumps(json_object(table), indent=1, ensure_ascii=False) + "\n"


def json_object(table: Table) -> JsonObject:
    """Return the table as plain JSON values: one object a row, by the columns' names."""
    return {
        "name": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "columns": [
            {"name": column.name, "heading": column.heading, "unit": column.unit, "better": column.better}
            for column in table.columns
        ],
        "rows": [
            {column.name: _object(cell, column.unit) for column, cell in zip(table.columns, row.cells, strict=True)}
            for row in table.rows
        ],
    }


def _object(cell: Cell, unit: Unit) -> JsonObject:
    return {
        "value": cell.value,
        "low": cell.low,
        "high": cell.high,
        "refusal": refusal_of(cell),
        "text": cell_text(unit, cell).replace(SPACE, " "),
        "below": cell.below.replace(SPACE, " ") or None,
    }
