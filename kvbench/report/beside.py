"""Our figures beside a document's rows: ratios come first, then both at full scale, the printed one below ours."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.beside import metric_of
from kvbench.report.figure_text import value_text
from kvbench.report.grid import NOTHING, SPACE, Cell, Column, Grid, Line, line, ratio, signed_percent, three_digits
from kvbench.report.matrix import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT = {
    "requests_per_s": "requests/s",
    "user_rate_mean": "tokens/s",
    "ttft_mean": "TTFT",
    "ttft_p95": "P95",
    "ttft_p99": "P99",
}


def beside_table(told: dict[str, Any], *, scaled: bool) -> Table:
    """Return the table for a terminal: two lines a treatment, ours and the printed one."""
    title = f"Beside {told['title']}" + (", ours at full scale" if scaled else "")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headings = list(_headings(told))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in told["rows"]:
        if row["treatment"] is not None:
            table.add_row(*map(Text, _own_texts(row, told)))
        if row["published_as"] is not None:
            printed = _printed_texts(row, told)
            name = f"{'  printed' if row['treatment'] else 'not run'}: {row['published_as']}"
            table.add_row(*[Text(text, style="magenta") for text in (name, *printed)])
        else:
            table.add_row(Text("  not printed", style="dim"))
    table.caption, table.caption_justify = " ".join([*_marks(told), *told["remarks"]]), "left"
    return table


def beside_grid(told: dict[str, Any]) -> Grid:
    """Return the table for a report: a line for each treatment, the printed figures below ours."""
    columns = tuple(
        Column(
            heading.replace("\n", " ").capitalize() if not number else heading.replace("\n", " "),
            "text" if not number else "number",
        )
        for number, heading in enumerate(_headings(told))
    )
    return Grid(columns, tuple(_page_lines(told)))


def _marks(told: dict[str, Any]) -> Iterator[str]:
    """Say what the marks in use mean."""
    words = {"?": "no difference shown", "\u2020": "too few rounds to say", "=": "equivalent within 5 %"}
    used = {_mark(row["cells"][metric]) for row in told["rows"] for metric in _compared(told)}
    if named := [f"{mark} {meaning}" for mark, meaning in words.items() if mark in used]:
        yield f"Ours are against their own baseline, by rounds: {', '.join(named)}."


def _page_lines(told: dict[str, Any]) -> Iterator[Line]:
    for row in told["rows"]:
        printed = (
            _printed_texts(row, told) if row["published_as"] is not None else [""] * (len(list(_headings(told))) - 1)
        )
        if row["treatment"] is not None:
            name, *own = _own_texts(row, told)
            below = [_interval(metric, row["cells"][metric], told) for metric in _compared(told)]
            cells = [Cell(text, span) for text, span in itertools.zip_longest(own, below, fillvalue="")]
            yield line(Cell(name, mark="key"), *cells, mark="begin")
        if row["published_as"] is not None:
            start = "printed" if row["treatment"] else "printed, not run here"
            cells = [Cell(text, mark="published") for text in printed]
            yield line(Cell(f"{start}: {row['published_as']}", mark="published"), *cells)
        else:
            yield line(Cell("not printed", mark="quiet"), *printed)


def _compared(told: dict[str, Any]) -> list[str]:
    """Return the metrics of which both sides have a ratio somewhere."""
    return [
        metric
        for metric in told["metrics"]
        if all(
            any(row["cells"][metric][key] is not None for row in told["rows"]) for key in ("ratio", "published_ratio")
        )
    ]


def _has_bound(told: dict[str, Any]) -> bool:
    return any(row["most_gain"] is not None for row in told["rows"])


def _headings(told: dict[str, Any]) -> Iterator[str]:
    yield "treatment"
    for metric in _compared(told):
        yield f"{_label(metric)}\n{'change' if told['ratios'] == 'change' else 'gain'}"
    if _has_bound(told):
        yield "at\nmost"
    for metric in told["metrics"]:
        yield _label(metric)


def _label(metric: str) -> str:
    return _SHORT.get(metric, metric_of(metric).label)


def _own_texts(row: dict[str, Any], told: dict[str, Any]) -> list[str]:
    texts = [row["treatment"]]
    for metric in _compared(told):
        cell = row["cells"][metric]
        texts.append(_gain(metric, cell["ratio"], told) + _mark(cell))
    if _has_bound(told):
        texts.append(ratio(row["most_gain"]) if row["most_gain"] is not None else "")
    for metric in told["metrics"]:
        cell = row["cells"][metric]
        texts.append("n/a" if cell["value"] is None else _value(metric, cell["full_scale"]))
    return texts


def _printed_texts(row: dict[str, Any], told: dict[str, Any]) -> list[str]:
    texts = [_gain(metric, row["cells"][metric]["published_ratio"], told) for metric in _compared(told)]
    texts += [""] if _has_bound(told) else []
    return texts + [_without_unit(row["cells"][metric]["published_text"]) for metric in told["metrics"]]


def _value(metric: str, value: float) -> str:
    """Write a figure in the unit that documents print: seconds, whatever their number."""
    unit = metric_of(metric).unit
    return f"{three_digits(value)} s" if unit == "s" else value_text(unit, value)


def _without_unit(text: str | None) -> str:
    """Leave out units that the heading has already: "34.39 tokens/s" to "34.39"."""
    return NOTHING if text is None else text.removesuffix(" tokens/s").removesuffix(" RPS").removesuffix(" req/s")


def _gain(metric: str, gain: float | None, told: dict[str, Any]) -> str:
    """Write a ratio as times, above 1x is better, or as the change of the figure itself in percent."""
    if gain is None:
        return ""
    if told["ratios"] == "times":
        return ratio(gain)
    upright = gain if metric_of(metric).kind == "rate" else 1 / gain
    return signed_percent(upright - 1)


def _interval(metric: str, cell: dict[str, Any], told: dict[str, Any]) -> str:
    """Write the interval of our own ratio, in the form of the ratio."""
    if cell["low"] is None:
        return ""
    ends = [_gain(metric, cell[end], told) for end in ("low", "high")]
    turned = told["ratios"] == "change" and metric_of(metric).kind == "time"
    return " to ".join(reversed(ends) if turned else ends).replace(" ", SPACE)


def _mark(cell: dict[str, Any]) -> str:
    """Mark what may be said of a change, as the table of treatments does."""
    word = cell["word"]
    if word is None or cell["ratio"] is None or word in ("faster", "slower"):
        return ""
    return MARKS.get(word, "=")
