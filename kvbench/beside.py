"""Published rows beside our own figures: ratios first, since a scale model shares those with what it models.

A row of a document stands beside each treatment of the names that the document's entry gives. What was published is at
full scale, so our own figures are given at full scale too, in fields of their own; ratios need no scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench.metrics import METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.published import Publication, PublishedRow


FAILED = Metric("failed", "failed", "share", "time", "run")


@dataclass(frozen=True, slots=True)
class _Document:
    """What every cell needs to know: the printed rows, and the scale model that our own figures are from, if any."""

    publication: Publication
    scale: Mapping[str, Any] | None

    @property
    def metrics(self) -> list[str]:
        """The metrics that any row prints, in the order in which they appear."""
        return list(dict.fromkeys(metric for row in self.publication.rows for metric in row.printed))

    def row_named(self, name: str | None) -> PublishedRow | None:
        """Return the row that another is compared with."""
        return next((row for row in self.publication.rows if row.name == name), None)


def metric_of(name: str) -> Metric:
    """Return a metric that rows may hold; failures are counted by cause elsewhere and are no metric there."""
    return FAILED if name == FAILED.name else METRICS[name]


def account(
    publication: Publication, asked: Mapping[str, Any], treatments: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Return all that the tables show; None where the publication has no rows.

    `treatments` are those of the summary. A treatment without a row, and a row without a treatment, are both there:
    what was not published, and what was not run.
    """
    if not publication.rows:
        return None
    told = _Document(publication, asked["scale"])
    own = [_line(name, item, _row_of(name, publication), told) for name, item in treatments.items()]
    met = {name for row in publication.rows for name in row.treatments if name in treatments}
    others = [_line(None, None, row, told) for row in publication.rows if not met & set(row.treatments)]
    return {
        "title": publication.title,
        "section": publication.section,
        "ratios": publication.ratios,
        "metrics": told.metrics,
        "remarks": list(publication.remarks),
        "rows": [*own, *others],
    }


def _row_of(treatment: str, publication: Publication) -> PublishedRow | None:
    return next((row for row in publication.rows if treatment in row.treatments), None)


def _line(
    name: str | None,
    item: dict[str, Any] | None,
    row: PublishedRow | None,
    told: _Document,
) -> dict[str, Any]:
    return {
        "treatment": name,
        "published_as": row.name if row is not None else None,
        "most_gain": item.get("most_gain") if item is not None else None,
        "cells": {metric: _cell(metric_of(metric), item, row, told) for metric in told.metrics},
    }


def _figure(metric: Metric, item: dict[str, Any] | None) -> dict[str, Any]:
    if item is None:
        return {"value": None, "n": 0, "refusal": None}
    if metric is FAILED:
        return {"value": sum(item["failures"].values()) / max(1, item["sent"]), "n": item["sent"], "refusal": None}
    figure: dict[str, Any] = item["metrics"][metric.name]
    return figure


def _cell(
    metric: Metric,
    item: dict[str, Any] | None,
    row: PublishedRow | None,
    told: _Document,
) -> dict[str, Any]:
    figure = _figure(metric, item)
    judged = item["comparisons"].get(metric.name) if item is not None else None
    base = told.row_named(row.against) if row is not None else None
    return {
        "n": figure["n"],
        "value": figure["value"],
        "refusal": figure["refusal"],
        "full_scale": _at_full_scale(metric, figure["value"], told.scale),
        "ratio": judged["ratio"] if judged else None,
        "low": judged["low"] if judged else None,
        "high": judged["high"] if judged else None,
        "word": judged["word"] if judged else None,
        "published": row.value(metric.name) if row is not None else None,
        "published_text": str(row.printed[metric.name]) if row is not None and metric.name in row.printed else None,
        "published_ratio": _gain(metric, row, base) if row is not None and base is not None else None,
    }


def _at_full_scale(metric: Metric, value: float | None, scale: Mapping[str, Any] | None) -> float | None:
    """Return a time multiplied by the time scale, a rate divided by it; a rate of bytes also grows by their scale."""
    if value is None or not scale or metric.unit == "share":
        return value
    time_scale = float(scale["time"])
    if metric.unit == "s":
        return value * time_scale
    return value / time_scale * (float(scale["bytes"]) if metric.unit == "bytes/s" else 1.0)


def _gain(metric: Metric, row: PublishedRow, base: PublishedRow) -> float | None:
    """Return the ratio of two printed figures, above 1 where the row is better, as our own ratios are."""
    own, other = row.value(metric.name), base.value(metric.name)
    if not own or not other:
        return None
    return own / other if metric.kind == "rate" else other / own
