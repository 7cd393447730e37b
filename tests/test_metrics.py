"""Metrics by hand: each formula, what n refuses, and who counts as independent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scipy import stats as reference

from kvbench import metrics, pooled, speed_ups, touches
from kvbench.checks import Verdict
from kvbench.checks.repeated_prompts import not_first_touches
from kvbench.checks.verdict import time_scale_of
from kvbench.metrics import METRICS, Limits
from kvbench.records import Row, sum_of_all
from kvbench.sealed import SealedRun
from kvbench.speed_ups import Place

NO_SLO = Limits()


def request(number: int, ttft_s: float | None, **changes: Any) -> Row:
    """One answered request: 1,000 prompt tokens of which 750 are cached, 11 output tokens, 10 ms each."""
    sent = number * 1_000_000_000
    latency = None if ttft_s is None else ttft_s + 0.1
    given: dict[str, Any] = {
        "run_id": "r01-g4",
        "attempt": 1,
        "treatment": "g4",
        "repeat": 1,
        "phase": "measure",
        "request_id": f"{number}",
        "prompt_id": f"p{number}",
        "conversation_id": None,
        "turn": 0,
        "isl_target": 1000,
        "isl": 1000,
        "osl": 11,
        "cached_tokens": 750,
        "scheduled_ns": sent - 500_000_000,
        "sent_ns": sent,
        "first_token_ns": None if ttft_s is None else sent + round(ttft_s * 1e9),
        "last_token_ns": None if latency is None else sent + round(latency * 1e9),
        "ttft_s": ttft_s,
        "ttft_content_s": ttft_s,
        "ttft_bound": "exact",
        "tpot_s": 0.01,
        "latency_s": latency,
        "send_lag_s": 0.5,
        "receive_lag_s": 0.0,
        "status": "ok",
        "error": None,
        "http_status": 200,
        "tier": "g4",
        "driver": "native",
    }
    return Row(**{**given, **changes})


def run(rows: list[Row], window_s: float | None = 10.0, repeat: int = 1, word: str = "valid") -> SealedRun:
    record = {
        "run": {"run_id": f"r{repeat:02d}-g4", "treatment": "g4", "repeat": repeat},
        "load_s": window_s,
        "blocks": {"kv_bytes_per_token": 100.0},
        "cache": {"state": "warm(g4)"},
    }
    return SealedRun(record, rows, rows, Verdict(word, ()))  # type: ignore[arg-type]


FOUR = [request(number, ttft) for number, ttft in enumerate([0.1, 0.2, 0.3, 0.4])]


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
    assert metrics.of_run(METRICS[name], run(FOUR), NO_SLO) == (None if value is None else pytest.approx(value))


def test_a_failed_request_is_in_no_time_and_meets_no_slo() -> None:
    cut = request(9, 9.0, status="cut", latency_s=None)
    whole = run([*FOUR, cut])
    assert metrics.of_run(METRICS["ttft_max"], whole, NO_SLO) == 0.4
    assert metrics.of_run(METRICS["requests_per_s"], whole, NO_SLO) == pytest.approx(0.4)
    limits = Limits(ttft_s=0.25)
    assert metrics.of_run(METRICS["slo_attainment"], whole, limits) == pytest.approx(2 / 5)
    assert metrics.of_run(METRICS["goodput_per_s"], whole, limits) == pytest.approx(0.2)
    assert metrics.failures([whole]) == {"cut": 1}


def test_a_scale_models_times_are_held_against_the_slo_at_full_scale() -> None:
    limits = Limits(ttft_s=1.0, time_scale=4)  # 0.4, 0.8, 1.2 and 1.6 s
    assert metrics.of_run(METRICS["slo_attainment"], run(FOUR), limits) == 0.5


def test_an_open_loop_is_held_against_the_slo_from_its_schedule() -> None:
    """All were due half a second before they were sent: 0.6, 0.7, 0.8 and 0.9 s."""
    limits = Limits(ttft_s=0.75, open_loops=frozenset({"g4"}))
    assert metrics.of_run(METRICS["slo_attainment"], run(FOUR), limits) == 0.5
    assert metrics.of_run(METRICS["goodput_per_s"], run(FOUR), limits) == pytest.approx(0.2)
    closed = replace(limits, open_loops=frozenset({"another"}))
    assert metrics.of_run(METRICS["slo_attainment"], run(FOUR), closed) == 1.0
    told = {"treatments": ["off", "g4"], "slo": {"ttft": 0.75}, "scale": None}
    loops = {"g4": {"request_rate": 4.0, "arrival": "poisson"}}
    assert metrics.limits_of({**told, "open_loops": loops}) == limits
    assert metrics.limits_of(told).open_loops == frozenset()


def test_an_unproven_request_takes_the_figures_of_its_run_away() -> None:
    rows = [*FOUR[:3], request(3, 0.4, tier="unproven")]
    assert metrics.of_run(METRICS["ttft_max"], run(rows), NO_SLO) == 0.3
    for name in ("requests_per_s", "total_time", "hit_rate", "kv_bytes_per_s"):
        assert metrics.of_run(METRICS[name], run(rows), NO_SLO) is None, name
    figure = metrics.of_treatment(METRICS["requests_per_s"], [run(rows)], NO_SLO)
    assert (figure.value, figure.refusal) == (None, "n/a (1 of 1 runs without it)")


def test_what_is_not_reported_is_not_zero() -> None:
    rows = [*FOUR[:3], request(3, 0.4, cached_tokens=None, osl=None)]
    assert metrics.of_run(METRICS["hit_rate"], run(rows), NO_SLO) is None
    assert metrics.of_run(METRICS["output_tokens_per_s"], run(rows), NO_SLO) is None
    assert metrics.of_run(METRICS["requests_per_s"], run(FOUR, window_s=None), NO_SLO) is None
    assert (
        metrics.of_run(METRICS["latency_from_schedule_p50"], run([request(1, 0.1, scheduled_ns=None)]), NO_SLO) is None
    )


def test_rounds_give_a_mean_with_a_t_interval() -> None:
    runs = [run(FOUR, window, repeat) for repeat, window in enumerate([8.0, 10.0, 12.0], 1)]
    figure = metrics.of_treatment(METRICS["total_time"], runs, NO_SLO)
    low, high = reference.t.interval(0.95, 2, loc=10, scale=reference.sem([8, 10, 12]))
    assert (figure.value, figure.n, figure.rounds) == (10.0, 3, 3)
    assert [figure.low, figure.high] == pytest.approx([low, high])
    two = metrics.of_treatment(METRICS["total_time"], runs[:2], NO_SLO)
    assert (two.value, two.low, two.refusal) == (9.0, None, "n/a (rounds=2 < 3)")
    share = metrics.of_treatment(METRICS["hit_rate"], runs, NO_SLO)
    assert [share.low, share.high] == pytest.approx([0.75, 0.75])


def test_an_interval_stays_where_the_figure_can_be() -> None:
    figure = pooled.over_rounds([0.2, 0.9, 1.0], share=True)
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
    whole = run([request(number, 0.001 * (number + 1)) for number in range(n)])
    figure = metrics.of_treatment(METRICS[name], [whole], NO_SLO)
    assert (figure.n, figure.refusal) == (n, refusal)
    assert (figure.value is None) == (refusal is not None and refusal.startswith("n/a") and name != "ttft_p50")


def test_requests_of_one_prompt_are_not_separate_evidence() -> None:
    """Ten requests of each of eight prompts: the median's interval is wider than that of eighty independent ones."""
    rows = [request(number, 0.1 + 0.1 * (number % 8) + 0.0001 * number) for number in range(80)]
    shared = [request(number, row.ttft_s, prompt_id=f"p{number % 8}") for number, row in enumerate(rows)]
    alone = metrics.of_treatment(METRICS["ttft_p50"], [run(rows)], NO_SLO)
    units = metrics.of_treatment(METRICS["ttft_p50"], [run(shared)], NO_SLO)
    assert (units.n, units.units, alone.units) == (80, 8, 80)
    assert units.value == alone.value
    assert units.low is not None
    assert alone.low is not None
    assert units.high is not None
    assert alone.high is not None
    assert units.high - units.low > 1.5 * (alone.high - alone.low)
    tail = metrics.of_treatment(METRICS["ttft_p95"], [run(shared)], NO_SLO)
    assert (tail.value, tail.refusal) == (None, "n/a (8 prompts < 59)")


def test_turns_are_told_as_those_of_conversations() -> None:
    held = [request(number, 0.1 + 0.001 * number, conversation_id=f"c{number // 2}") for number in range(130)]
    prompts = [replace(row, conversation_id=None, prompt_id=str(row.conversation_id)) for row in held]
    refused = metrics.of_treatment(METRICS["ttft_p99"], [run(held)], NO_SLO)
    assert (refused.value, refused.refusal) == (None, "n/a (65 conversations < 299)")
    tail = metrics.of_treatment(METRICS["ttft_p95"], [run(held)], NO_SLO)
    assert tail.value is not None
    assert tail.refusal == "no interval: 130 requests of 65 conversations, several turns each"
    other = metrics.of_treatment(METRICS["ttft_p95"], [run(prompts)], NO_SLO)
    assert (other.value, other.refusal) == (tail.value, "no interval: 130 requests of 65 prompts, prompts repeat")


def test_the_time_scale_is_one_without_a_scale_model() -> None:
    assert [time_scale_of(asked) for asked in ({}, {"scale": None}, {"scale": {"time": 8, "bytes": 2}})] == [
        1,
        1,
        8,
    ]


@pytest.mark.parametrize("runs", [[], [run([], None)], [run([request(1, 0.1, status="cut")])]])
def test_a_treatment_without_any_answer_has_no_figure_and_no_error(runs: list[SealedRun]) -> None:
    for metric in METRICS.values():
        figure = metrics.of_treatment(metric, runs, Limits(ttft_s=1.0))
        if metric.name not in ("slo_attainment", "goodput_per_s"):  # nothing answered is nothing met
            assert (figure.n, figure.value) == (0, None), metric.name


def test_first_and_repeat_touches_are_two_populations() -> None:
    """Ten prompts, each sent twice: computed first, cached then; the hit rate changes at the eleventh request."""
    first = [request(number, 1.0, prompt_id=f"p{number}", cached_tokens=0) for number in range(10)]
    again = [request(10 + number, 0.1, prompt_id=f"p{number}", cached_tokens=1000) for number in range(10)]
    found = touches.history([run([*again, *first])])  # the order is that of sending
    assert found is not None
    assert found["first_touch"] == {"n": 10, "median_s": 1.0, "hit_rate": 0.0}
    assert found["repeat_touch"] == {"n": 10, "median_s": 0.1, "hit_rate": 1.0}
    (change,) = found["changes"]
    assert (change["index"], change["before"], change["after"]) == (10, 0.0, 1.0)
    nothing = touches.history([])
    assert nothing is not None
    assert nothing["repeat_touch"] == {"n": 0, "median_s": None, "hit_rate": None}


def test_a_prompt_that_was_sent_without_proof_or_answer_is_touched() -> None:
    rows = [
        request(0, 1.0, prompt_id="a", tier="unproven"),
        request(1, None, prompt_id="b", status="timeout", tier=None),
        request(2, None, prompt_id="c", status="refused", sent_ns=None, tier=None),
        *(request(3 + number, 0.1, prompt_id=name) for number, name in enumerate("abc")),
    ]
    found = touches.history([run(rows)])
    assert found is not None
    assert (found["first_touch"]["n"], found["repeat_touch"]["n"]) == (1, 2)  # c was never sent before


def test_requests_of_one_prompt_that_were_out_at_once_are_a_third_population() -> None:
    """Verdicts and figures count alike: b is sent twice before its first token comes, and once after it."""
    rows = [
        request(0, 0.5, prompt_id="a"),
        request(1, 1.5, prompt_id="b"),
        request(2, 1.5, prompt_id="b"),
        request(3, 0.1, prompt_id="b"),
        request(4, 0.1, prompt_id="a"),
    ]
    found = touches.history([run(rows)])
    assert found is not None
    assert [found[key]["n"] for key in ("first_touch", "repeat_touch", "overlapping")] == [1, 2, 2]
    assert not_first_touches(rows) == {"1", "2", "3", "4"}
    assert len(rows) - len(not_first_touches(rows)) == found["first_touch"]["n"]


def test_the_hit_rate_of_touches_is_that_of_a_run() -> None:
    """Cached tokens over prompt tokens: a long prompt counts for more than a short one."""
    first = [request(number, 0.1, prompt_id=f"p{number}", cached_tokens=0) for number in range(2)]
    again = [
        request(10, 0.1, prompt_id="p0", cached_tokens=1000),
        request(11, 0.1, prompt_id="p1", isl=3000, isl_target=3000, cached_tokens=0),
    ]
    found = touches.history([run([*first, *again])])
    assert found is not None
    assert found["repeat_touch"]["hit_rate"] == metrics.hit_rate(run(again)) == 0.25


def test_turns_of_conversations_are_neither_first_nor_repeat_touches() -> None:
    turns = [request(number, 1.0, prompt_id="a", conversation_id="a", turn=number) for number in range(4)]
    assert touches.history([run(turns)]) is None


def test_one_answer_without_latency_leaves_no_total_of_requests_sent_one_by_one() -> None:
    alone = run(FOUR)
    alone.record["sent_one_by_one"] = True
    assert metrics.total_time_s(alone) == pytest.approx(1.4)
    short = run([*FOUR[:3], replace(FOUR[3], latency_s=None)])
    short.record["sent_one_by_one"] = True
    assert metrics.total_time_s(short) is None
    assert metrics.requests_per_s(short) is None


def test_sums_are_of_all_or_none() -> None:
    assert sum_of_all([1, 2]) == 3
    assert sum_of_all(iter([0.5])) == 0.5
    assert sum_of_all([0, 0]) == 0
    assert sum_of_all([1, None]) is None
    assert sum_of_all([]) is None


def test_ranks_speak_where_rounds_are_too_few() -> None:
    arms = (run(FOUR), run([request(number, 1.0 + number) for number in range(16)]))
    found = speed_ups.ranks_between(([arms[0]], [arms[1]]), Place(METRICS["ttft_p50"]), ("g4", "recompute"))
    assert found is not None
    assert found["sentence"] == "all 4 of g4 are below all 16 of recompute"
    assert found["p_value"] < 0.001
    assert speed_ups.ranks_between(([], [arms[1]]), Place(METRICS["ttft_p50"]), ("a", "b")) is None
    assert speed_ups.ranks_between(([arms[0]], [arms[1]]), Place(METRICS["hit_rate"]), ("a", "b")) is None


def test_a_zero_has_no_ratio() -> None:
    none_cached = run([request(1, 0.1, cached_tokens=0)])
    assert speed_ups.rounds_of([none_cached], Place(METRICS["hit_rate"]), NO_SLO) == {}


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert (metric.of_run is None) != (metric.of_request is None)
        assert "Formula:" in str((metric.of_run or metric.of_request).__doc__), name
