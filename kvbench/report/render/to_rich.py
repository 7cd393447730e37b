"""Shows a table in a terminal of any width: what does not fit is left out by priority, then the table is split."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from kvbench.report.render.layout import lay_out
from kvbench.report.text import SPACE, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from kvbench.report.render.layout import Layout, ShownCell
    from kvbench.report.table import Table

_GAP = 2  # characters between two columns
_NAME = 30  # characters of a name beyond which it is put on two lines
_LEAST_TEXT = {"text": 18, "long": 20}  # characters that text gets at least, before it is put on more lines
_STYLES = {
    "key": "bold",
    "quiet": "dim",
    "suspect": "yellow",
    "invalid": "red",
    "valid": "green",
    "scaled": "cyan",
    "published": "magenta",
}


def to_rich(table: Table, width: int = 100) -> Iterator[RichTable | Text]:
    """Yield the table, in several parts where its columns do not fit the width, and then its notes."""
    layout = lay_out(table)
    intervals, left_out = _chosen(layout, width)
    parts = list(_parts(layout, intervals, left_out, width))
    for number, (part, own) in enumerate(parts):
        yield Text(f"{table.title}, continued" if number else table.title, style="italic")
        yield _drawn(part, own, width)
    notes = [*table.notes, *_left_out_note(layout, intervals, left_out)]
    if notes:
        lines = textwrap.wrap(" ".join(notes).replace(" %", f"{SPACE}%"), width)
        yield Text("\n".join(lines).replace(SPACE, " "), style="dim italic")


def print_table(table: Table, console: Console) -> None:
    """Print one table as wide as the terminal is."""
    for part in to_rich(table, console.width):
        console.print(part)


def _left_out_note(layout: Layout, intervals: set[int], left_out: set[int]) -> Iterator[str]:
    """Say what a wider terminal shows."""
    bare = {
        place
        for place in range(len(layout.columns))
        if place not in intervals | left_out and any(row.cells[place].interval for row in layout.rows)
    }
    names = [layout.columns[place].heading for place in sorted(left_out)]
    names += [f"intervals of {layout.columns[place].heading}" for place in sorted(bare)]
    if names:
        yield f"Left out at this width: {', '.join(names)}."


# -- what fits ---------------------------------------------------------------------------------------------------------


def _chosen(layout: Layout, width: int) -> tuple[set[int], set[int]]:
    """Return the columns that show their intervals, and those that are left out, so that the rest fits if it can."""
    count = len(layout.columns)
    intervals, left_out = set(range(count)), set[int]()
    droppable = [(column.interval_priority, place, "interval") for place, column in enumerate(layout.columns)]
    droppable += [(column.priority, place, "column") for place, column in enumerate(layout.columns)]
    dropped = []
    for priority, place, what in sorted(droppable, reverse=True):
        if priority == 1 or _least_width(layout, intervals, left_out) <= width:
            break
        dropped.append((place, what))
        intervals, left_out = _without(place, what, intervals, left_out)
    for place, what in reversed(dropped):  # a wide column that had to go may have made room for a narrow one
        more, fewer = _with(place, what, intervals, left_out)
        if _least_width(layout, more, fewer) <= width:
            intervals, left_out = more, fewer
    return intervals, left_out


def _without(place: int, what: str, intervals: set[int], left_out: set[int]) -> tuple[set[int], set[int]]:
    return (intervals - {place}, left_out) if what == "interval" else (intervals, left_out | {place})


def _with(place: int, what: str, intervals: set[int], left_out: set[int]) -> tuple[set[int], set[int]]:
    return (intervals | {place}, left_out) if what == "interval" else (intervals, left_out - {place})


def _least_width(layout: Layout, intervals: set[int], left_out: set[int]) -> int:
    widths = [
        _column_width(layout, place, has_intervals=place in intervals)
        for place in range(len(layout.columns))
        if place not in left_out
    ]
    return sum(widths) + _GAP * (len(widths) - 1)


def _column_width(layout: Layout, place: int, *, has_intervals: bool) -> int:
    """Return the characters that a column needs: of names and texts as many as let them take several lines."""
    column = layout.columns[place]
    longest = max((len(_words(row.cells[place], has_intervals)) for row in layout.rows), default=0)
    if column.kind == "name":
        longest = min(longest, _NAME)
    elif column.kind != "number":
        longest = min(longest, _LEAST_TEXT[column.kind])
    return max(longest, *(map(len, column.heading.split() or [""])), 1)


def _words(cell: ShownCell, has_intervals: bool) -> str:  # noqa: FBT001
    text = with_interval(cell.text, cell.interval) if has_intervals else cell.text
    return "" if cell.mark == "repeated" else text


def _parts(layout: Layout, intervals: set[int], left_out: set[int], width: int) -> Iterator[tuple[Layout, list[bool]]]:
    """Yield as many columns as fit beside the key columns, until all are shown; with each, which show intervals."""
    shown = [place for place in range(len(layout.columns)) if place not in left_out]
    keys = [place for place in shown if layout.columns[place].is_key]
    others = [place for place in shown if place not in keys]
    while True:
        own: list[int] = []
        while others:
            dropped = set(range(len(layout.columns))) - {*keys, *own, others[0]}
            if own and _least_width(layout, intervals, dropped) > width:
                break
            own.append(others.pop(0))
        places = sorted(keys + own)
        yield layout.only(places), [place in intervals for place in places]
        if not others:
            return


# -- drawing -----------------------------------------------------------------------------------------------------------


def _drawn(layout: Layout, intervals: list[bool], width: int) -> RichTable:
    table = RichTable(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    widths = _widened(layout, intervals, width)
    for column, own in zip(layout.columns, widths, strict=True):
        heading = "\n".join(textwrap.wrap(column.heading, own, break_long_words=False))
        table.add_column(Text(heading), justify="right" if column.kind == "number" else "left", no_wrap=True)
    for row in layout.rows:
        cells = [
            _drawn_cell(cell, has_intervals, own)
            for cell, has_intervals, own in zip(row.cells, intervals, widths, strict=True)
        ]
        table.add_row(*cells, style="dim strike" if row.mark == "struck" else None)
    return table


def _widened(layout: Layout, intervals: list[bool], width: int) -> list[int]:
    """Return the width of each column; what is left of the terminal goes to texts that need more lines without it."""
    widths = [_column_width(layout, place, has_intervals=own) for place, own in enumerate(intervals)]
    room = width - sum(widths) - _GAP * (len(widths) - 1)
    for place, column in sorted(enumerate(layout.columns), key=lambda item: item[1].kind == "long"):
        if column.kind != "number" and room > 0:
            longest = max((len(_words(row.cells[place], intervals[place])) for row in layout.rows), default=0)
            more = max(0, min(room, longest - widths[place]))
            widths[place] += more
            room -= more
    return widths


def _drawn_cell(cell: ShownCell, has_intervals: bool, width: int) -> Text:  # noqa: FBT001
    lines = textwrap.wrap(_words(cell, has_intervals), width) or [""]
    return Text("\n".join(lines).replace(SPACE, " "), style=_STYLES.get(cell.mark, ""))
