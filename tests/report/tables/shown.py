"""Reads a table as tests want it: a dictionary a row, by the columns' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.text import SPACE, cell_text

if TYPE_CHECKING:
    from kvbench.report.table import Cell, Table


def cells(table: Table | None) -> list[dict[str, Cell]]:
    assert table is not None
    names = [column.name for column in table.columns]
    return [dict(zip(names, row.cells, strict=True)) for row in table.rows]


def texts(table: Table | None) -> list[dict[str, str]]:
    assert table is not None
    units = {column.name: column.unit for column in table.columns}
    return [
        {name: cell_text(units[name], cell).replace(SPACE, " ") for name, cell in row.items()} for row in cells(table)
    ]
