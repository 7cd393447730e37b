"""A table as the page shows it, and the words for figures that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

NOTHING = "\u2013"  # an en dash
SPACE = "\u00a0"  # does not break
_SHORT_LINES = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, a smaller line below it, and a mark such as `suspect` that the style sheet knows."""

    text: str
    below: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and `number`, `text`, `name` or `long` for its alignment and width."""

    heading: str
    kind: str = "number"


@dataclass(frozen=True, slots=True)
class Line:
    """One row; `mark` is for the whole row."""

    cells: tuple[Cell, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """One table."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def short(self) -> bool:
        """Whether the table is so small that paper shows it on one page."""
        return len(self.lines) <= _SHORT_LINES


def line(*cells: Cell | str, mark: str = "") -> Line:
    """Make a row of texts and cells."""
    return Line(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells), mark)


def shown(value: _T | None, form: Callable[[_T], str], missing: str = NOTHING) -> str:
    """Write a figure, or say that there is none."""
    return missing if value is None else form(value)


def length_text(isl: int | None) -> str:
    """Write a prompt length; an import with too many or unknown lengths has one row for all of them."""
    return "all" if isl is None else format_count(isl)


def moment(text: str | None) -> str:
    """Shorten an ISO moment to whole seconds: "2025-11-21 20:14:05"; imports may lack it."""
    return "not told" if text is None else text[:19].replace("T", " ")


def ratio(value: float) -> str:
    """Write a ratio with three significant digits: 55.93 to "55.9x", 1234.5 to "1,230x"."""
    return f"{three_digits(value)}x"


def three_digits(value: float) -> str:
    """Write a number with three significant digits, zeros at the end too, and without an exponent: 1 to "1.00"."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def percent(share: float) -> str:
    """Write a share, with a space that does not break: 1 to "100 %", 0.99956 to "99.96 %"."""
    return f"{share * 100:.4g}{SPACE}%"


def signed_percent(change: float) -> str:
    """Write a change with its sign and one decimal: 0.1694 to "+16.9 %"; what rounds to nothing has a plus."""
    return f"{round(change * 100, 1) + 0.0:+.1f} %"


def difference(value: float, reference: float) -> str:
    """Write by how much a value lies above a reference, in percent of the reference."""
    if value == reference:
        return "equal"
    return f"{(value / reference - 1) * 100:+.2f}{SPACE}%" if reference else "reference is 0"


def served_cell(tiers: dict[str, int]) -> Cell:
    """Show the share of each tier; with its count, and marked, where anything is unproven or mixed."""
    total = sum(tiers.values())
    if not total:
        return Cell(NOTHING)
    ordered = sorted(tiers.items(), key=lambda item: -item[1])
    text = ", ".join(f"{tier}{SPACE}{percent(count / total)}" for tier, count in ordered)
    below = ", ".join(f"{tier} {count} of {total}" for tier, count in ordered) if len(ordered) > 1 else ""
    return Cell(text, below, "suspect" if {"unproven", "mixed"} & set(tiers) else "")
