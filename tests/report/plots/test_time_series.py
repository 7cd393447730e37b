from __future__ import annotations

from dataclasses import replace

from kvbench.analysis.summary_types import TimeSeries
from kvbench.report.plots.time_series import drawn, scales_of, time_series
from tests.builders import summaries
from tests.builders.report_inputs import report_input


def series(slice_s: float) -> TimeSeries:
    answered = (10,) * 4
    rates = tuple(count / slice_s for count in answered)
    return TimeSeries("r1-warm", 1, slice_s, answered, rates, (None, 0.2, 0.5, 0.6), (4, 8, 9, 9))


def test_treatments_far_apart_in_time_have_scales_of_their_own() -> None:
    near = scales_of({"a": [series(1.0)], "b": [series(3.0), series(2.0)]})
    assert near.time_s == {"a": 12.0, "b": 12.0}
    assert near.rate == {"a": 10.0, "b": 10.0}
    far = scales_of({"a": [series(1.0)], "b": [series(5.0)]})
    assert far.time_s == {"a": 4.0, "b": 20.0}
    assert far.rate == {"a": 10.0, "b": 2.0}
    assert far.prompts == 9


def test_each_treatment_with_a_time_series_is_drawn() -> None:
    assert time_series(report_input()) is None
    treatments = {f"g4_{number}": summaries.treatment(time_series=(series(1.0), series(2.0))) for number in range(5)}
    summary = summaries.summary(treatments={**treatments, "other": summaries.treatment()})
    assert list(drawn(summary)) == list(treatments)
    svg = time_series(report_input(summary)) or ""
    assert svg.startswith("<svg viewBox=")
    bare = {
        name: replace(item, time_series=(replace(series(1.0), hit_rate=None),)) for name, item in treatments.items()
    }
    fewer = time_series(report_input(summaries.summary(treatments=bare))) or ""
    assert 0 < len(fewer) < len(svg)  # no panel of hit rates


def test_runs_with_neighbours_have_a_plot_of_another_kind() -> None:
    warm = summaries.treatment(time_series=(series(1.0),))
    summary = summaries.summary(treatments={"warm": warm}, neighbors=summaries.neighbor_impact())
    assert time_series(report_input(summary)) is None
