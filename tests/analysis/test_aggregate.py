"""Figures of a treatment: what n refuses, and who counts as independent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from scipy import stats as reference

from kvbench.analysis import aggregate
from kvbench.analysis.measured import Limits
from kvbench.analysis.metrics import METRICS
from tests.builders.requests import FOUR, request, run_of

if TYPE_CHECKING:
    from kvbench.analysis.measured_result import SealedRun

NO_SLO = Limits()


def test_rounds_give_a_mean_with_a_t_interval() -> None:
    runs = [run_of(FOUR, window, repeat) for repeat, window in enumerate([8.0, 10.0, 12.0], 1)]
    figure = aggregate.of_treatment(METRICS["total_time"], runs, NO_SLO)
    low, high = reference.t.interval(0.95, 2, loc=10, scale=reference.sem([8, 10, 12]))
    assert (figure.value, figure.n, figure.rounds) == (10.0, 3, 3)
    assert [figure.low, figure.high] == pytest.approx([low, high])
    two = aggregate.of_treatment(METRICS["total_time"], runs[:2], NO_SLO)
    assert (two.value, two.low, two.refusal) == (9.0, None, "n/a (rounds=2 < 3)")
    share = aggregate.of_treatment(METRICS["hit_rate"], runs, NO_SLO)
    assert [share.low, share.high] == pytest.approx([0.75, 0.75])


def test_an_interval_stays_where_the_figure_can_be() -> None:
    figure = aggregate.over_rounds([0.2, 0.9, 1.0], is_share=True)
    assert (figure.low, figure.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("n", "name", "refusal"),
    [
        (16, "ttft_p99", "n/a (n=16 < 299)"),
        (58, "ttft_p95", "n/a (n=58 < 59)"),
        (60, "ttft_p95", "upper 95 % bound only (n=60 < 72)"),
        (72, "ttft_p95", None),
        (4, "ttft_p50", "n/a (n=4 < 5)"),
        (6, "ttft_p50", None),
    ],
)
def test_percentiles_are_refused_below_what_they_need(n: int, name: str, refusal: str | None) -> None:
    whole = run_of([request(number, 0.001 * (number + 1)) for number in range(n)])
    figure = aggregate.of_treatment(METRICS[name], [whole], NO_SLO)
    assert (figure.n, figure.refusal) == (n, refusal)
    assert (figure.value is None) == (refusal is not None and refusal.startswith("n/a") and name != "ttft_p50")


def test_requests_of_one_prompt_are_not_separate_evidence() -> None:
    """Ten requests of each of eight prompts: the median's interval is wider than that of eighty independent ones."""
    rows = [request(number, 0.1 + 0.1 * (number % 8) + 0.0001 * number) for number in range(80)]
    shared = [request(number, row.ttft_s, prompt_id=f"p{number % 8}") for number, row in enumerate(rows)]
    alone = aggregate.of_treatment(METRICS["ttft_p50"], [run_of(rows)], NO_SLO)
    units = aggregate.of_treatment(METRICS["ttft_p50"], [run_of(shared)], NO_SLO)
    assert (units.n, units.units, alone.units) == (80, 8, 80)
    assert units.value == alone.value
    assert units.low is not None
    assert alone.low is not None
    assert units.high is not None
    assert alone.high is not None
    assert units.high - units.low > 1.5 * (alone.high - alone.low)
    tail = aggregate.of_treatment(METRICS["ttft_p95"], [run_of(shared)], NO_SLO)
    assert (tail.value, tail.refusal) == (None, "n/a (8 prompts < 59)")


def test_turns_are_told_as_those_of_conversations() -> None:
    held = [request(number, 0.1 + 0.001 * number, conversation_id=f"c{number // 2}") for number in range(130)]
    prompts = [replace(row, conversation_id=None, prompt_id=str(row.conversation_id)) for row in held]
    refused = aggregate.of_treatment(METRICS["ttft_p99"], [run_of(held)], NO_SLO)
    assert (refused.value, refused.refusal) == (None, "n/a (65 conversations < 299)")
    tail = aggregate.of_treatment(METRICS["ttft_p95"], [run_of(held)], NO_SLO)
    assert tail.value is not None
    assert tail.refusal == "no interval: 130 requests of 65 conversations, several turns each"
    other = aggregate.of_treatment(METRICS["ttft_p95"], [run_of(prompts)], NO_SLO)
    assert (other.value, other.refusal) == (tail.value, "no interval: 130 requests of 65 prompts, prompts repeat")


@pytest.mark.parametrize("runs", [[], [run_of([], None)], [run_of([request(1, 0.1, status="cut")])]])
def test_a_treatment_without_any_answer_has_no_figure_and_no_error(runs: list[SealedRun]) -> None:
    for metric in METRICS.values():
        figure = aggregate.of_treatment(metric, runs, Limits(ttft_s=1.0))
        if metric.name not in ("slo_attainment", "goodput_per_s"):  # nothing answered is nothing met
            assert (figure.n, figure.value) == (0, None), metric.name


def test_several_metrics_at_once_are_each_as_alone() -> None:
    runs = [run_of([request(number, 0.001 * (1 + number % 37)) for number in range(90)], repeat=n) for n in (1, 2, 3)]
    for name, figure in aggregate.of_all(runs, Limits(ttft_s=0.02)).items():
        assert figure == aggregate.of_treatment(METRICS[name], runs, Limits(ttft_s=0.02)), name


def test_counts_keep_the_order_in_which_causes_appear() -> None:
    rows = [request(0, 0.1, status="timeout"), request(1, 0.1), request(2, 0.1, status="cut"), request(3, 0.1)]
    runs = [run_of(rows), run_of([request(0, 0.1, status="cut", tier=None)])]
    assert list(aggregate.failures(runs).items()) == [("timeout", 1), ("cut", 2)]
    assert aggregate.tiers([run.measured["tier"] for run in runs]) == {"g4": 4, "unproven": 1}


def test_a_value_that_is_not_known_is_left_out_and_never_zero() -> None:
    rows = [request(0, 0.2), request(1, None), request(2, 0.4, tpot_s=None)]
    assert aggregate.of_run(METRICS["ttft_p50"], run_of(rows), NO_SLO) == pytest.approx(0.3)
    figure = aggregate.of_treatment(METRICS["tpot_max"], [run_of(rows)], NO_SLO)
    assert (figure.n, figure.value) == (2, 0.01)
