from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kvbench.report.plots import neighbor_time_series as plot
from tests.builders import summaries
from tests.builders.neighbor_runs import noisy_run, quiet_run, run_of
from tests.builders.report_inputs import report_input

if TYPE_CHECKING:
    from kvbench.analysis.neighbor_time_series import NeighborTimeSeries
    from kvbench.report.report_input import ReportInput


def given_with(*runs: NeighborTimeSeries) -> ReportInput:
    summary = summaries.summary(neighbors=summaries.neighbor_impact())
    return replace(report_input(summary), read_neighbor_runs=lambda: runs)


def test_each_run_has_its_requests_and_its_rates() -> None:
    svg = plot.neighbor_time_series(given_with(quiet_run(), noisy_run())) or ""
    assert svg.startswith("<svg viewBox=")
    assert svg.count("<use ") > 80
    assert plot.neighbor_time_series(given_with()) is None
    assert plot.neighbor_time_series(report_input()) is None


def test_a_run_in_which_nothing_was_answered_is_drawn_too() -> None:
    nothing = np.empty(0)
    assert plot.neighbor_time_series(given_with(noisy_run(sent_s=nothing, ttft_s=nothing))) is not None


def test_many_runs_fit_on_a_page() -> None:
    runs = [noisy_run(f"level_{number}") for number in range(24)]
    svg = plot.neighbor_time_series(given_with(quiet_run(), *runs)) or ""
    height_pt = float(svg.split('viewBox="')[1].split('"')[0].split()[3])
    assert height_pt <= 9.4 * 72


def test_very_many_requests_are_thinned_and_the_title_says_so() -> None:
    few, many = run_of(3_000), run_of(9_000, "a_treatment_with_a_name_that_is_far_too_long")
    chosen = plot._chosen([few, many])
    assert 4_000 <= sum(map(len, chosen)) <= 5_000
    assert all(run.ttft_s[places].max() == 7.0 for run, places in zip((few, many), chosen, strict=True))
    title = plot._title(many, 2_400, 48)
    assert title.endswith("…; 2,400 of 9,000")
    assert len(title) == 48
    assert plot._title(few, 3_000, 48) == "noisy, r1-noisy"
