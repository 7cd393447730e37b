"""The table of measured figures and a document's rows: ratios first, then both at full scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.analysis.published_comparison import metric_of
from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.text import ratio, signed_percent, three_digits, value_text, word_mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import PublishedCell, PublishedLine, PublishedTable, Summary
    from kvbench.report.report_input import ReportInput

_SHORT = {
    "requests_per_s": "Requests/s",
    "user_rate_mean": "Tokens/s",
    "ttft_mean": "TTFT",
    "ttft_p95": "P95",
    "ttft_p99": "P99",
}


def published(given: ReportInput) -> Table | None:
    """Return a measured and a published row for each treatment, and what only one side has; None without a document."""
    document = given.summary.published_table
    if document is None:
        return None
    compared = _compared(document)
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("source", "Source", kind="text"),
        *(_ratio_column(metric, document) for metric in compared),
        *((Column("most_gain", "At most", "ratio"),) if _has_bound(document) else ()),
        *(Column(metric, _label(metric), metric_of(metric).unit) for metric in document.metrics),
    )
    rows = tuple(line for one in document.rows for line in _rows(one, document, compared))
    title = f"Published in {document.title}, {document.section}"
    return Table("published", title, columns, rows, tuple(_notes(given.summary, document)))


def _compared(document: PublishedTable) -> list[str]:
    """Return the metrics of which both sides have a ratio somewhere."""
    return [
        metric
        for metric in document.metrics
        if any(line.cells[metric].ratio is not None for line in document.rows)
        and any(line.cells[metric].published_ratio is not None for line in document.rows)
    ]


def _has_bound(document: PublishedTable) -> bool:
    return any(line.most_gain is not None for line in document.rows)


def _ratio_column(metric: str, document: PublishedTable) -> Column:
    if document.ratios == "change":
        return Column(f"{metric}_change", f"{_label(metric)} change", "change", interval_priority=3)
    return Column(f"{metric}_gain", f"{_label(metric)} gain", "ratio", "higher", interval_priority=3)


def _label(metric: str) -> str:
    return _SHORT.get(metric, metric_of(metric).label)


def _rows(line: PublishedLine, document: PublishedTable, compared: list[str]) -> Iterator[Row]:
    name = line.treatment or "not run here"
    has_bound = _has_bound(document)
    if line.treatment is not None:
        yield row(
            Cell(name, mark="key"),
            "measured",
            *(_gain(metric, line.cells[metric], document) for metric in compared),
            *([Cell(line.most_gain, text="" if line.most_gain is None else None)] if has_bound else []),
            *(_own_figure(metric, line.cells[metric]) for metric in document.metrics),
            mark="begin",
        )
    if line.published_as is None:
        empty = len(compared) + has_bound + len(document.metrics)
        yield row(Cell(name, mark="repeated"), Cell(text="not published", mark="quiet"), *[Cell(text="")] * empty)
        return
    yield row(
        Cell(name, mark="repeated" if line.treatment is not None else "quiet"),
        Cell(line.published_as, text=f"published: {line.published_as}", mark="published"),
        *(_published_gain(metric, line.cells[metric], document) for metric in compared),
        *([Cell(text="")] if has_bound else []),
        *(_published_figure(line.cells[metric]) for metric in document.metrics),
        mark="" if line.treatment is not None else "begin",
    )


def _own_figure(metric: str, cell: PublishedCell) -> Cell:
    """Show our figure at full scale in the unit that documents print: seconds, whatever their number."""
    if cell.value is None or cell.full_scale is None:
        return Cell(refusal=cell.refusal or "n/a", text="n/a")
    unit = metric_of(metric).unit
    text = f"{three_digits(cell.full_scale)} s" if unit == "s" else value_text(unit, cell.full_scale)
    return Cell(cell.full_scale, text=text)


def _published_figure(cell: PublishedCell) -> Cell:
    """Show a printed figure without a unit that the heading has already: "34.39 tokens/s" as "34.39"."""
    text = cell.published_text
    plain = None if text is None else text.removesuffix(" tokens/s").removesuffix(" RPS").removesuffix(" req/s")
    return Cell(cell.published, text=plain, mark="published")


def _published_gain(metric: str, cell: PublishedCell, document: PublishedTable) -> Cell:
    if cell.published_ratio is None:
        return Cell(text="")
    return Cell(_in_form(metric, cell.published_ratio, document), mark="published")


def _gain(metric: str, cell: PublishedCell, document: PublishedTable) -> Cell:
    """Show our own ratio with its interval, and the mark of what may be said of it."""
    if cell.ratio is None:
        return Cell(text="")
    value = _in_form(metric, cell.ratio, document)
    form = signed_percent if document.ratios == "change" else ratio
    text = form(value) + (word_mark(cell.word) if cell.word else "")
    if cell.low is None or cell.high is None:
        return Cell(value, text=text)
    low, high = sorted((_in_form(metric, cell.low, document), _in_form(metric, cell.high, document)))
    return Cell(value, text=text, low=low, high=high)


def _in_form(metric: str, gain: float, document: PublishedTable) -> float:
    """Return a ratio as times, where above 1 is better, or as the change of the figure itself."""
    if document.ratios != "change":
        return gain
    return (gain if metric_of(metric).kind == "rate" else 1 / gain) - 1


def _notes(summary: Summary, document: PublishedTable) -> Iterator[str]:
    if document.ratios == "change":
        yield "Change: of the figure itself, against the treatment's own baseline."
    else:
        yield "Gain: against the treatment's own baseline, above 1x is better; published gains are quotients."
    if _has_bound(document):
        yield "At most: what an empty start can gain on the list that was drawn."
    meanings = {"?": "no difference shown", "\N{DAGGER}": "too few rounds to say", "=": "equivalent within 5 %"}
    cells = [line.cells[metric] for line in document.rows for metric in _compared(document)]
    used = {word_mark(cell.word) for cell in cells if cell.word is not None and cell.ratio is not None}
    if named := [f"{mark} {meaning}" for mark, meaning in meanings.items() if mark in used]:
        yield f"Measured ratios are over rounds: {', '.join(named)}."
    if summary.scale:
        yield (
            "All other measured figures are full-scale equivalents: measured times multiplied by"
            f" {summary.scale.time:g}, rates divided by it."
        )
    yield from document.remarks
