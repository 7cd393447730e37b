"""Metrics of one run by hand: each formula, and what is not reported stays unknown."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from kvbench.analysis import aggregate, measured, metrics
from kvbench.analysis.measured import Limits
from kvbench.analysis.metrics import METRICS
from kvbench.result.plan_record import Design, OpenLoop, Scale, Slo
from tests.builders.requests import FOUR, frame_of, request, run_of

NO_SLO = Limits()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_time", 10.0),
        ("requests_per_s", 0.4),  # 4 requests in 10 s
        ("output_tokens_per_s", 4.4),  # 4 x 11
        ("prompt_tokens_per_s", 400.0),
        ("hit_rate", 0.75),
        ("kv_bytes_per_s", 30_000.0),  # 4 x 750 tokens x 100 bytes in 10 s
        ("ttft_p50", 0.25),
        ("ttft_max", 0.4),
        ("latency_p50", 0.35),
        ("latency_from_schedule_p50", 0.85),  # half a second later
        ("tpot_p50", 0.01),
        ("ttft_p95", None),
        ("slo_attainment", None),
        ("goodput_per_s", None),
    ],
)
def test_one_run_by_hand(name: str, value: float | None) -> None:
    assert aggregate.of_run(METRICS[name], run_of(FOUR), NO_SLO) == (None if value is None else pytest.approx(value))


def test_a_failed_request_is_in_no_time_and_meets_no_slo() -> None:
    cut = request(9, 9.0, status="cut", latency_s=None)
    whole = run_of([*FOUR, cut])
    assert aggregate.of_run(METRICS["ttft_max"], whole, NO_SLO) == 0.4
    assert aggregate.of_run(METRICS["requests_per_s"], whole, NO_SLO) == pytest.approx(0.4)
    limits = Limits(ttft_s=0.25)
    assert aggregate.of_run(METRICS["slo_attainment"], whole, limits) == pytest.approx(2 / 5)
    assert aggregate.of_run(METRICS["goodput_per_s"], whole, limits) == pytest.approx(0.2)
    assert aggregate.failures([whole]) == {"cut": 1}


def test_a_scale_models_times_are_held_against_the_slo_at_full_scale() -> None:
    limits = Limits(ttft_s=1.0, time_scale=4)  # 0.4, 0.8, 1.2 and 1.6 s
    assert aggregate.of_run(METRICS["slo_attainment"], run_of(FOUR), limits) == 0.5


def test_an_open_loop_is_held_against_the_slo_from_its_schedule() -> None:
    """All were due half a second before they were sent: 0.6, 0.7, 0.8 and 0.9 s."""
    limits = Limits(ttft_s=0.75, open_loops=frozenset({"g4"}))
    assert aggregate.of_run(METRICS["slo_attainment"], run_of(FOUR), limits) == 0.5
    assert aggregate.of_run(METRICS["goodput_per_s"], run_of(FOUR), limits) == pytest.approx(0.2)
    closed = replace(limits, open_loops=frozenset({"another"}))
    assert aggregate.of_run(METRICS["slo_attainment"], run_of(FOUR), closed) == 1.0
    design = Design("q", "emulator", ("off", "g4"), 1, slo=Slo(0.75))
    assert metrics.limits_of(replace(design, open_loops={"g4": OpenLoop(4.0, "poisson")})) == limits
    assert metrics.limits_of(design).open_loops == frozenset()


def test_an_unproven_request_takes_the_figures_of_its_run_away() -> None:
    rows = [*FOUR[:3], request(3, 0.4, tier="unproven")]
    assert aggregate.of_run(METRICS["ttft_max"], run_of(rows), NO_SLO) == 0.3
    for name in ("requests_per_s", "total_time", "hit_rate", "kv_bytes_per_s"):
        assert aggregate.of_run(METRICS[name], run_of(rows), NO_SLO) is None, name
    figure = aggregate.of_treatment(METRICS["requests_per_s"], [run_of(rows)], NO_SLO)
    assert (figure.value, figure.refusal) == (None, "n/a (1 of 1 runs without it)")


def test_what_is_not_reported_is_not_zero() -> None:
    rows = [*FOUR[:3], request(3, 0.4, cached_tokens=None, osl=None)]
    assert aggregate.of_run(METRICS["hit_rate"], run_of(rows), NO_SLO) is None
    assert aggregate.of_run(METRICS["output_tokens_per_s"], run_of(rows), NO_SLO) is None
    assert aggregate.of_run(METRICS["requests_per_s"], run_of(FOUR, load_s=None), NO_SLO) is None
    assert (
        aggregate.of_run(METRICS["latency_from_schedule_p50"], run_of([request(1, 0.1, scheduled_ns=None)]), NO_SLO)
        is None
    )


def test_the_time_scale_is_one_without_a_scale_model() -> None:
    design = Design("q", "emulator", ("off",), 1, scale=Scale(8, 2))
    assert (design.time_scale, replace(design, scale=None).time_scale) == (8, 1)


def test_one_answer_without_latency_leaves_no_total_of_requests_sent_one_by_one() -> None:
    alone = run_of(FOUR, sent_one_by_one=True)
    assert metrics.total_time_s(alone) == pytest.approx(1.4)
    short = run_of([*FOUR[:3], replace(FOUR[3], latency_s=None)], sent_one_by_one=True)
    assert metrics.total_time_s(short) is None
    assert metrics.requests_per_s(short) is None


@pytest.mark.parametrize(
    ("values", "total"), [([1, 2], 3), ([0.5], 0.5), ([0, 0], 0), ([1, None], None), ([], None), ([None], None)]
)
def test_sums_are_of_all_or_none(values: list[float | None], total: float | None) -> None:
    assert measured.sum_of_all(pd.Series(values, dtype="double[pyarrow]")) == total


def test_the_load_window_ends_with_the_last_token_or_the_last_send() -> None:
    sent = [request(1, 0.5), request(2, None, status="timeout")]
    assert measured.load_window_ns(frame_of(sent)) == (1_000_000_000, 2_000_000_000 - 400_000_000)
    none = [request(1, None, status="timeout"), request(3, None, status="timeout")]
    assert measured.load_window_ns(frame_of(none)) == (1_000_000_000, 3_000_000_000)
    assert measured.load_window_ns(frame_of([request(1, None, sent_ns=None, status="refused")])) is None


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert (metric.of_run is None) != (metric.of_requests is None)
        assert "Formula:" in str((metric.of_run or metric.of_requests).__doc__), name
