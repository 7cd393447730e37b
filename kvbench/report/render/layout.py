"""Lays a table out for people: the words of each cell, and treatments beside one another where the table asks for it.

The terminal, the page, Markdown and LaTeX start from this; CSV and JSON from the table itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvbench.report.text import cell_text, interval_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.report.table import Cell, Column, Kind, Mark, RowMark, Table, Unit


@dataclass(frozen=True, slots=True)
class ShownCell:
    """The words of one cell."""

    text: str
    interval: str = ""
    below: str = ""
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class ShownColumn:
    """One column as people see it; `priority` and `interval_priority` say what a narrow terminal leaves out first."""

    heading: str
    kind: Kind = "number"
    priority: int = 1
    interval_priority: int = 1
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row as people see it."""

    cells: tuple[ShownCell, ...]
    mark: RowMark = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """A table as people see it."""

    columns: tuple[ShownColumn, ...]
    rows: tuple[ShownRow, ...]

    def only(self, places: list[int]) -> Layout:
        """Return the columns at the given places."""
        rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in self.rows)
        return Layout(tuple(self.columns[place] for place in places), rows)

    def parts(self, most: int) -> Iterator[Layout]:
        """Yield the table in parts of at most `most` columns beside its key columns, as alike in width as can be."""
        keys = [place for place, column in enumerate(self.columns) if column.is_key]
        others = [place for place, column in enumerate(self.columns) if not column.is_key]
        number = max(1, -(-len(others) // max(1, most)))
        size = max(1, -(-len(others) // number))
        for start in range(0, max(1, len(others)), size):
            yield self.only(sorted(keys + others[start : start + size]))


def lay_out(table: Table) -> Layout:
    """Return a table as people see it."""
    return _turned(table) if table.is_turned else _upright(table)


def _upright(table: Table) -> Layout:
    columns = tuple(
        ShownColumn(
            column.heading,
            column.kind,
            column.priority,
            column.priority if column.interval_priority is None else column.interval_priority,
            column.is_key,
        )
        for column in table.columns
    )
    rows = tuple(ShownRow(tuple(map(_shown, row.cells, table.columns)), row.mark) for row in table.rows)
    return Layout(columns, rows)


def _turned(table: Table) -> Layout:
    """Make a row of each column and a column of each row, headed by what its key columns say."""
    keys = [place for place, column in enumerate(table.columns) if column.is_key]
    heads = [", ".join(cell_text(table.columns[place].unit, row.cells[place]) for place in keys) for row in table.rows]
    rows = tuple(
        ShownRow((ShownCell(column.heading, mark="key"), *(_shown(row.cells[place], column) for row in table.rows)))
        for place, column in enumerate(table.columns)
        if place not in keys
    )
    return Layout((ShownColumn("", "name", is_key=True), *map(ShownColumn, heads)), rows)


def _shown(cell: Cell, column: Column) -> ShownCell:
    unit: Unit = column.unit
    return ShownCell(cell_text(unit, cell), interval_text(unit, cell), cell.below, cell.mark)
