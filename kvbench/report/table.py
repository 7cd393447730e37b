"""A table of the page: its columns, lines and cells.

A cell holds the value as measured and its interval. The words that people read are made from them by the column's unit,
so that a CSV file and the page cannot disagree. A figure that is not known is None with a refusal, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kvbench.analysis.neighbor_types import Change, Extent
    from kvbench.analysis.summary_types import Figure, JudgedRatio

# fmt: off
Unit = Literal[
    "s", "1/s", "tokens/s", "bytes/s", "bytes", "share", "change", "ratio", "number", "fraction",
    "count", "tokens", "length", "moment", "text",
]
# fmt: on
"""What a column's values are.

`share` is shown in percent, and so is `change`, which has a sign. `ratio` is shown with an x behind it, `number` with
three digits, `fraction` with four decimals. `tokens` are counted to the last one, a `length` is shortened to thousands.
"""

Better = Literal["lower", "higher"]
Kind = Literal["number", "text", "name", "long"]
Mark = Literal["", "key", "quiet", "repeated", "suspect", "invalid", "valid", "scaled", "published"]
RowMark = Literal["", "begin", "struck"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: a value in the column's unit with its interval, or why there is none."""

    value: float | str | None = None  # As measured
    text: str | None = None  # Words to show in place of those that the value gives
    below: str = ""  # A smaller line below it, which only the page shows
    low: float | None = None  # Lower end of the 95 % interval
    high: float | None = None  # Upper end of the 95 % interval; alone it is an upper bound
    mark: Mark = ""  # How it is set off from others
    refusal: str | None = None  # Why there is no value, else why there is no interval


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what its values are, and how it is shown."""

    name: str  # Its name in CSV and JSON
    heading: str  # Its name for people
    unit: Unit = "text"  # Of its values
    better: Better | None = None  # Which way a value is better, where that can be said
    kind: Kind = "number"  # For alignment and width: numbers stand to the right, `long` text may take many lines
    priority: int = 1  # Where a terminal is narrow, the greatest is left out first; 1 never is
    interval_priority: int | None = None  # The same for the intervals in it; None for the column's own
    is_key: bool = False  # Whether it says what a row is: it is repeated where a table is split


@dataclass(frozen=True, slots=True)
class Row:
    """One row, a cell for each column."""

    cells: tuple[Cell, ...]
    mark: RowMark = ""  # Where a group begins, or for a row that enters no figure


@dataclass(frozen=True, slots=True)
class Table:
    """One table: one row for each thing, one column for each of its properties."""

    name: str  # What `kvbench show --table` calls it
    title: str  # For people
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # Sentences that say what its columns and marks are
    is_turned: bool = False  # Whether people see a column for each row; CSV and JSON never do

    def __post_init__(self) -> None:
        """Hold each row to the number of columns."""
        if wrong := [row for row in self.rows if len(row.cells) != len(self.columns)]:
            raise ValueError(f"{self.name}: {len(self.columns)} columns, {len(wrong[0].cells)} cells")


def row(*cells: Cell | float | str | None, mark: RowMark = "") -> Row:
    """Return a row of cells and of bare values."""
    return Row(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells), mark)


def figure_cell(figure: Figure, **more: Any) -> Cell:
    """Return the cell of a figure with its interval and its refusal; `more` are further fields of the cell."""
    mark: Mark = "quiet" if figure.value is None else ""
    fields = {"low": figure.low, "high": figure.high, "refusal": figure.refusal, "mark": mark}
    return Cell(**{"value": figure.value, **fields, **more})


def ratio_cell(judged: JudgedRatio, **more: Any) -> Cell:
    """Return the cell of a ratio of two treatments with its interval and its refusal."""
    fields = {"low": judged.low, "high": judged.high, "refusal": judged.refusal, "mark": "key", **more}
    return Cell(judged.ratio, **fields)


def change_cell(change: Change, **more: Any) -> Cell:
    """Return the cell of a change against the quiet partner with its interval and its refusal."""
    mark: Mark = "quiet" if change.value is None else "key"
    fields = {"low": change.low, "high": change.high, "refusal": change.refusal, "mark": mark, **more}
    return Cell(change.value, **fields)


def extent_cell(extent: Extent, below: str) -> Cell:
    """Return the cell of a mean over rounds; `below` says how far the rounds lie apart."""
    return Cell(extent.mean, below=below if extent.mean is not None else "")
