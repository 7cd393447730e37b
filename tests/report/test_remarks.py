"""Sentences below the tables: how an empty start went."""

from __future__ import annotations

from dataclasses import replace

from kvbench.analysis.summary_types import FirstTouch, TimeSeries, TouchFigures
from kvbench.report.remarks import time_series_sentences
from tests.builders import summaries

SERIES = TimeSeries(
    run_id="r01-g4",
    repeat=1,
    slice_s=2.0,
    answered=(2, 2, 4, 4, 8, 8, 8, 8, 8),
    answered_per_s=(1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0),
    hit_rate=(None, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    distinct_prompts=(1, 2, 3, 4, 5, 6, 7, 8, 9),
)


def sentences(*series: TimeSeries) -> list[str]:
    none = TouchFigures(0, None, None)
    item = summaries.treatment(first_touch=FirstTouch(none, none, ()), time_series=series)
    return list(time_series_sentences(summaries.summary(treatments={"g4": item})))


def test_an_empty_start_is_told_by_quarters() -> None:
    """Nine slices do not divide by four: each quarter is the rate of its own slices."""
    (text,) = sentences(SERIES, SERIES)
    rates, hits, prompts = text.split("; ")
    assert rates == "g4 by quarters of its time: 1.00, 2.00, 4.00, 4.00 answers/s"
    assert (hits, prompts) == ("hit rate so far 10, 20, 50, 70 %", "distinct prompts so far 2, 4, 7, 9")


def test_a_start_without_hit_rates_or_no_empty_start_tells_less() -> None:
    (text,) = sentences(replace(SERIES, hit_rate=None))
    assert "hit rate" not in text
    assert sentences() == []
    assert list(time_series_sentences(summaries.summary())) == []
