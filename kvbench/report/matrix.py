"""One row a treatment, for scenarios with several set-ups at several concurrencies: the table of multi-turn studies.

Columns: tokens/s a user and mean TTFT with their change against the treatment's own baseline, P95 and P99 where n
supports them, failures, and the tiers that served. A mark at a change tells what may be said of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.report.figure_text import value_text
from kvbench.report.grid import NOTHING, Column, Grid, line

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADINGS = (
    *("treatment", "conc.", "n", "tokens/s", "change", "TTFT", "change", "P95", "P99"),
    *("failed", "served from, %"),
)
_TEXTS = {"treatment", "served from, %"}
MARKS = {"no difference shown": "?", "too few rounds": "~", "faster": "", "slower": ""}


def has_matrix(summary: dict[str, Any]) -> bool:
    """Tell whether the treatments differ in concurrency, or are conversations."""
    return bool(summary.get("turns")) or len(set(summary["concurrencies"].values())) > 1


def matrix_table(summary: dict[str, Any], *, narrow: bool = False) -> Table:
    """Return the table for a terminal; a narrow one leaves the tiers to the proof."""
    headings = _HEADINGS[:-1] if narrow else _HEADINGS
    table = Table(
        title=_title(summary), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for heading in headings:
        wraps = heading == "served from, %"
        table.add_column(heading, justify="left" if heading in _TEXTS else "right", no_wrap=not wraps)
    for cells in _lines(summary):
        table.add_row(*map(Text, cells[: len(headings)]))
    table.caption, table.caption_justify = _note(summary), "left"
    return table


def matrix_grid(summary: dict[str, Any]) -> Grid:
    """Return the table for a report."""
    columns = tuple(Column(heading, "text" if heading in _TEXTS else "number") for heading in _HEADINGS)
    return Grid(columns, tuple(line(*cells) for cells in _lines(summary)))


def _title(summary: dict[str, Any]) -> str:
    turns = summary.get("turns")
    if not turns:
        return "Treatments side by side"
    return f"Conversations of {turns['count']} turns, {turns['history']} history"


def _note(summary: dict[str, Any]) -> str:
    scaled = " Times and rates are those of the scale model." if summary["scale"] else ""
    needed = "P95 needs 59 and P99 299 conversations or prompts, else n/a."
    marks = "change: against the treatment's own baseline, by rounds; ? no difference shown, ~ too few rounds,"
    marks += " = equivalent within 5 %."
    return f"tokens/s a user and TTFT are means; {marks} {needed}{scaled}"


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
            ", ".join(f"{tier} {100 * count / max(1, item['requests']):.0f}" for tier, count in item["tiers"].items()),
        ]


def _change(item: dict[str, Any], metric: str, direction: int) -> str:
    """Return the change of a figure in percent of the baseline, and the word on it; `ratio` above 1 means better."""
    judged = item["comparisons"].get(metric)
    if not judged or not judged.get("ratio"):
        return NOTHING
    return f"{(judged['ratio'] ** direction - 1) * 100:+.1f} %{MARKS.get(judged['word'], '=')}"


def _percentile(figure: dict[str, Any]) -> str:
    return "n/a" if figure["value"] is None else value_text("s", figure["value"])
