"""Shows a table on the page: `report.css` knows the kinds of columns and the marks of cells and rows."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from kvbench.report.render.layout import lay_out
from kvbench.report.text import SPACE

if TYPE_CHECKING:
    from kvbench.report.render.layout import Layout, ShownCell, ShownRow
    from kvbench.report.table import Kind, Table

_ABREAST = 4  # treatments beside one another on a page
_SHORT_ROWS = 8  # rows up to which paper shows a table on one page
_MARKS = {"repeated": "quiet"}


def to_html(table: Table) -> str:
    """Return the table as HTML, in several parts where more treatments stand beside one another than a page holds."""
    layout = lay_out(table)
    parts = layout.parts(_ABREAST) if table.is_turned else [layout]
    return "\n".join(map(_part, parts))


def _part(layout: Layout) -> str:
    heads = "".join(f'<th scope="col" class="{column.kind}">{escape(column.heading)}</th>' for column in layout.columns)
    rows = "\n".join(_row(row, [column.kind for column in layout.columns]) for row in layout.rows)
    short = " short" if len(layout.rows) <= _SHORT_ROWS else ""
    return (
        f'<div class="scroll{short}" tabindex="0"><table>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _row(row: ShownRow, kinds: list[Kind]) -> str:
    mark = f' class="{row.mark}"' if row.mark else ""
    return f"<tr{mark}>{''.join(map(_cell, row.cells, kinds))}</tr>"


def _cell(cell: ShownCell, kind: Kind) -> str:
    marks = " ".join(filter(None, [kind, _MARKS.get(cell.mark, cell.mark)]))
    text = escape(cell.text)
    if kind == "name":
        text = text.replace("_", "_<wbr>")  # a name that is too long for its column on paper breaks there
    below = "\n".join(filter(None, [cell.interval.replace(" ", SPACE), cell.below]))
    small = f'<span class="below">{escape(below)}</span>' if below else ""
    return f'<td class="{marks}">{text}{small}</td>'
