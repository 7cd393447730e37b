"""Open loops as a table: every figure from the send, from the schedule, and how far they lie apart."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.report.figure_text import interval_text, value_text
from kvbench.report.grid import NOTHING, Cell, Column, Grid, line, three_digits
from kvbench.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLE = "Open loop: from the send and from the schedule"
_HEADINGS = ("treatment", "figure", "from send", "from schedule", "difference")
_TEXTS = {"treatment", "figure"}


def has_open_loop(summary: dict[str, Any]) -> bool:
    """Tell whether any treatment's requests were due on a schedule."""
    return any(item["open_loop"] is not None for item in summary["treatments"].values())


def open_loop_table(summary: dict[str, Any]) -> Table:
    """Return the table for a terminal."""
    table = Table(title=TITLE, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in _TEXTS else "right", no_wrap=True)
    for name, told in _accounts(summary):
        starts = [name, *(f"  {text}" for text in _rates(told))]
        for start, figure in itertools.zip_longest(starts, _worth_showing(told)):
            if figure is not None:
                sides = [value_text(figure["unit"], figure[side]["value"]) for side in ("from_send", "from_schedule")]
                table.add_row(*map(Text, (start or "", figure["label"], *sides, _apart(figure))))
        table.add_section()
    table.caption, table.caption_justify = note(summary), "left"
    return table


def open_loop_grid(summary: dict[str, Any]) -> Grid | None:
    """Return the table for a report; None where every treatment was a closed loop."""
    if not has_open_loop(summary):
        return None
    columns = tuple(Column(heading.capitalize(), "text" if heading in _TEXTS else "number") for heading in _HEADINGS)
    lines = []
    for name, told in _accounts(summary):
        for number, figure in enumerate(_worth_showing(told)):
            start = Cell(
                "" if number else name, "" if number else ", ".join(_rates(told)), mark="" if number else "key"
            )
            sides = [_page_cell(figure, side) for side in ("from_send", "from_schedule")]
            lines.append(line(start, figure["label"], *sides, _apart(figure), mark="" if number else "begin"))
    return Grid(columns, tuple(lines))


def note(summary: dict[str, Any]) -> str:
    """Say below the table what its columns are."""
    scaled = " Times and rates are those of the scale model." if summary["scale"] else ""
    return (
        "When `concurrency` requests are already out, the next one waits; only the figures from the schedule include"
        f" that wait. In other tables TTFT counts from the send, goodput and SLO attainment from the schedule.{scaled}"
    )


def sentences(summary: dict[str, Any]) -> Iterator[str]:
    """Yield for each open loop that was no steady one what its figures are worth."""
    for name, told in _accounts(summary):
        if not told["grew"]:
            continue
        achieved = told["achieved_per_s"]["value"]
        gave = f", {three_digits(achieved)} were answered" if achieved is not None else ""
        yield (
            f"{name}: {three_digits(told['offered_per_s'] or told['request_rate'])} requests/s were due{gave}, and a"
            f" queue grew: median latency from the schedule {format_duration(told['first_quarter_s'])} in the first"
            f" quarter of the list, {format_duration(told['last_quarter_s'])} in the last, which is"
            f" {three_digits(told['growth'])} s for each second of the schedule. Its times are those of a list of this"
            " length and would go on growing with a longer one."
        )


def _accounts(summary: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, item in summary["treatments"].items():
        if item["open_loop"] is not None:
            yield name, item["open_loop"]


def _worth_showing(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Leave out figures that neither side has, such as those against an SLO that nobody set."""
    for figure in told["figures"]:
        if any(figure[side]["value"] is not None or figure[side]["n"] for side in ("from_send", "from_schedule")):
            yield figure


def _rates(told: dict[str, Any]) -> tuple[str, ...]:
    achieved, n = told["achieved_per_s"]["value"], max(figure["from_send"]["n"] for figure in told["figures"])
    due = f"due {three_digits(told['offered_per_s'] or told['request_rate'])}/s, {told['arrival']}"
    answered = "at no known rate" if achieved is None else f"{three_digits(achieved)}/s"
    return due, f"answered {answered}", f"n = {n}"


def _page_cell(figure: dict[str, Any], side: str) -> Cell:
    one = figure[side]
    if one["value"] is None:
        return Cell(one["refusal"] or NOTHING, mark="quiet")
    return Cell(value_text(figure["unit"], one["value"]), interval_text(figure["unit"], one))


def _apart(figure: dict[str, Any]) -> str:
    """Write how much more the schedule shows than the send; shares in points."""
    send, due = figure["from_send"]["value"], figure["from_schedule"]["value"]
    if send is None or due is None:
        return NOTHING
    if figure["unit"] == "share":
        return f"{(due - send) * 100:+.3g} points" if due != send else "none"
    sign = "-" if due < send else "+"
    return f"{sign}{value_text(figure['unit'], abs(due - send))}" if due != send else "none"
