"""Writes a table as Markdown, for an issue or a wiki."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.render.layout import lay_out
from kvbench.report.text import SPACE, with_interval

if TYPE_CHECKING:
    from kvbench.report.render.layout import ShownCell
    from kvbench.report.table import Table


def to_markdown(table: Table) -> str:
    """Return the table as Markdown: its title, its rows with intervals in brackets, and its notes."""
    layout = lay_out(table)
    heads = [_escaped(column.heading) for column in layout.columns]
    rules = ["---:" if column.kind == "number" else ":---" for column in layout.columns]
    rows = [[_escaped(_words(cell)) for cell in row.cells] for row in layout.rows]
    lines = [f"**{_escaped(table.title)}**", "", *map(_line, [heads, rules, *rows])]
    if table.notes:
        lines += ["", _escaped(" ".join(table.notes))]
    return "\n".join(lines) + "\n"


def _words(cell: ShownCell) -> str:
    return with_interval(cell.text, cell.interval)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Put a backslash before what Markdown would read as markup."""
    plain = text.replace(SPACE, " ").replace("\n", " ")
    return "".join(f"\\{letter}" if letter in "\\|*_`<[" else letter for letter in plain)
