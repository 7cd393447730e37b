"""One row a treatment, for scenarios with several set-ups at several concurrencies: the table of multi-turn studies.

Columns: tokens/s a user and mean TTFT with their change against the treatment's own baseline, P95 and P99 where n
supports them, failures, and the tiers that served. A mark at a change tells what may be said of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.percentile import needed_n
from kvbench.report.figure_text import value_text
from kvbench.report.grid import NOTHING, SPACE, Column, Grid, line, signed_percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import JustifyMethod

_HEADINGS = (
    *("treatment", "conc.", "n", "tokens/s", "change", "TTFT", "change", "P95", "P99"),
    *("failed", "served from, %"),
)
_SERVED = _HEADINGS.index("served from, %")
_MOST_SERVED = 40  # characters of tiers beside the figures; more go to another line
_MEANS, _REST = (0, 1, 2, 3, 4, 5, 6), (0, 2, 7, 8, 9, 10)  # the columns of the two parts
_TEXTS = {"treatment", "served from, %"}
MARKS = {"no difference shown": "?", "too few rounds": "\u2020", "faster": "", "slower": ""}


def has_matrix(summary: dict[str, Any]) -> bool:
    """Tell whether the treatments differ in concurrency, or are conversations."""
    return bool(summary.get("turns")) or len(set(summary["concurrencies"].values())) > 1


def matrix_tables(summary: dict[str, Any], width: int) -> Iterator[Table | Text]:
    """Yield the table for a terminal; in two parts, n in both, where `width` characters would cut figures off."""
    lines = list(_lines(summary))
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *lines, strict=True)]
    needed = sum(widths[:_SERVED]) + min(widths[_SERVED], _MOST_SERVED) + len(widths) + 1
    parts = (tuple(range(len(_HEADINGS))),) if needed <= width else (_MEANS, _REST)
    for part in parts:
        title = _title(summary) + (", percentiles and tiers" if part == _REST else "")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for number in part:
            justify: JustifyMethod = "left" if _HEADINGS[number] in _TEXTS else "right"
            table.add_column(_HEADINGS[number], justify=justify, no_wrap=number != _SERVED)
        for cells in lines:
            table.add_row(*(Text(cells[number]) for number in part))
        yield table
    yield Text(_note(summary), style="dim italic")


def matrix_grid(summary: dict[str, Any]) -> Grid:
    """Return the table for a report."""
    columns = tuple(Column(heading, "text" if heading in _TEXTS else "number") for heading in _HEADINGS)
    return Grid(columns, tuple(line(*cells) for cells in _lines(summary)))


def _title(summary: dict[str, Any]) -> str:
    turns = summary.get("turns")
    if not turns:
        return "Treatments side by side"
    return f"Conversations of {turns['count']} turns, {turns['history']} history"


def needed_text() -> str:
    """Say how many conversations or prompts the percentiles of the table need."""
    p95, p99 = (needed_n(percentile, two_sided=False) for percentile in (95, 99))
    return f"P95 needs {p95} and P99 {p99} conversations or prompts, else n/a."


def _note(summary: dict[str, Any]) -> str:
    scaled = " Times and rates are those of the scale model." if summary["scale"] else ""
    marks = "change: against the treatment's own baseline, by rounds; ? no difference shown, \u2020 too few rounds,"
    marks += " = equivalent within 5 %."
    return f"tokens/s a user and TTFT are means; {marks} {needed_text()}{scaled}"


def _lines(summary: dict[str, Any]) -> Iterator[list[str]]:
    for name, item in summary["treatments"].items():
        figures, concurrency = item["metrics"], summary["concurrencies"][name]
        rate, ttft = figures["user_rate_mean"], figures["ttft_mean"]
        yield [
            name,
            str(concurrency),
            str(ttft["n"]),
            value_text("tokens/s", rate["value"]),
            _change(item, "user_rate_mean", 1),
            value_text("s", ttft["value"]),
            _change(item, "ttft_mean", -1),
            *(_percentile(figures[key]) for key in ("ttft_p95", "ttft_p99")),
            f"{sum(item['failures'].values()) / max(1, item['sent']):.0%}",
            _served(item),
        ]


def _served(item: dict[str, Any]) -> str:
    """Write the share of each tier in percent; a tier and its share stay on one line."""
    total = max(1, item["requests"])
    return ", ".join(f"{tier}{SPACE}{100 * count / total:.0f}" for tier, count in item["tiers"].items())


def _change(item: dict[str, Any], metric: str, direction: int) -> str:
    """Return the change of a figure in percent of the baseline, and the word on it; `ratio` above 1 means better."""
    judged = item["comparisons"].get(metric)
    if not judged or not judged.get("ratio"):
        return NOTHING
    return f"{signed_percent(judged['ratio'] ** direction - 1)}{MARKS.get(judged['word'], '=')}"


def _percentile(figure: dict[str, Any]) -> str:
    return "n/a" if figure["value"] is None else value_text("s", figure["value"])
