"""Compares measured figures with the rows of a published document, ratios first.

A row of a document stands beside each treatment of the names that the document's entry gives. What was published is at
full scale, so our own figures are given at full scale too, in fields of their own; ratios need no scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.analysis.metrics import METRICS, Metric
from kvbench.analysis.summary_types import PublishedCell, PublishedLine, PublishedTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.analysis.summary_types import TreatmentSummary
    from kvbench.publications.library import Publication, PublishedRow
    from kvbench.result.plan_record import Design, Scale


FAILED = Metric("failed", "failed", "share", "time", "run")


@dataclass(frozen=True, slots=True)
class _Document:
    """What every cell needs to know: the printed rows, and the scale model that our own figures are from, if any."""

    publication: Publication
    scale: Scale | None

    @property
    def metrics(self) -> list[str]:
        """The metrics that any row prints, in the order in which they appear."""
        return list(dict.fromkeys(metric for row in self.publication.rows for metric in row.printed))

    def row_named(self, name: str | None) -> PublishedRow | None:
        """Return the row that another is compared with."""
        return next((row for row in self.publication.rows if row.name == name), None)

    def row_of(self, treatment: str) -> PublishedRow | None:
        """Return the row that belongs to one of our treatments."""
        return next((row for row in self.publication.rows if treatment in row.treatments), None)


def metric_of(name: str) -> Metric:
    """Return a metric that rows may hold; failures are counted by cause elsewhere and are no metric there."""
    return FAILED if name == FAILED.name else METRICS[name]


def compare(
    publication: Publication, design: Design, treatments: Mapping[str, TreatmentSummary]
) -> PublishedTable | None:
    """Return a document's rows beside our treatments; None where the document has no rows.

    A treatment without a row, and a row without a treatment, are both there: what was not published, and what was not
    run.
    """
    if not publication.rows:
        return None
    document = _Document(publication, design.scale)
    ours = [_line(name, item, document.row_of(name), document) for name, item in treatments.items()]
    met = {name for row in publication.rows for name in row.treatments if name in treatments}
    others = [_line(None, None, row, document) for row in publication.rows if not met & set(row.treatments)]
    return PublishedTable(
        title=publication.title,
        section=publication.section,
        ratios=publication.ratios,
        metrics=tuple(document.metrics),
        remarks=tuple(publication.remarks),
        rows=(*ours, *others),
    )


def _line(
    name: str | None, item: TreatmentSummary | None, row: PublishedRow | None, document: _Document
) -> PublishedLine:
    return PublishedLine(
        treatment=name,
        published_as=row.name if row is not None else None,
        most_gain=item.most_gain if item is not None else None,
        cells={metric: _cell(metric_of(metric), item, row, document) for metric in document.metrics},
    )


def _figure(metric: Metric, item: TreatmentSummary | None) -> tuple[float | None, int, str | None]:
    """Return our value of a metric, its n, and why there is none."""
    if item is None:
        return None, 0, None
    if metric is FAILED:
        return sum(item.failures.values()) / max(1, item.sent), item.sent, None
    figure = item.metrics[metric.name]
    return figure.value, figure.n, figure.refusal


def _cell(
    metric: Metric, item: TreatmentSummary | None, row: PublishedRow | None, document: _Document
) -> PublishedCell:
    value, n, refusal = _figure(metric, item)
    judged = item.comparisons.get(metric.name) if item is not None else None
    base = document.row_named(row.against) if row is not None else None
    return PublishedCell(
        n=n,
        value=value,
        refusal=refusal,
        full_scale=_at_full_scale(metric, value, document.scale),
        ratio=judged.ratio if judged else None,
        low=judged.low if judged else None,
        high=judged.high if judged else None,
        word=judged.word if judged else None,
        published=row.value(metric.name) if row is not None else None,
        published_text=str(row.printed[metric.name]) if row is not None and metric.name in row.printed else None,
        published_ratio=_gain(metric, row, base) if row is not None and base is not None else None,
    )


def _at_full_scale(metric: Metric, value: float | None, scale: Scale | None) -> float | None:
    """Return a time multiplied by the time scale, a rate divided by it; a rate of bytes also grows by their scale."""
    if value is None or scale is None or metric.unit == "share":
        return value
    if metric.unit == "s":
        return value * scale.time
    return value / scale.time * (scale.bytes if metric.unit == "bytes/s" else 1.0)


def _gain(metric: Metric, row: PublishedRow, base: PublishedRow) -> float | None:
    """Return the ratio of two printed figures, above 1 where the row is better, as our own ratios are."""
    ours, theirs = row.value(metric.name), base.value(metric.name)
    if not ours or not theirs:
        return None
    return ours / theirs if metric.kind == "rate" else theirs / ours
