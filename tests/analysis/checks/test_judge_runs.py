"""Whole runs under all rules together: honest ones, and what single rules cannot see."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis.checks.expected import Expected
from kvbench.analysis.checks.judge import judge_imported
from kvbench.analysis.checks.repeated_prompts import may_repeat_prompt
from kvbench.result.plan_record import Ceiling, Design, OpenLoop, PlannedRun, Scale, Turns
from kvbench.result.verdict import Verdict
from tests.analysis.checks.test_judge import FOUR_SLOTS, OFF, stream_s
from tests.builders.made_up_runs import Shape, honest_run
from tests.builders.requests import frame_of, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.result.records import Status
    from tests.builders.made_up_runs import MadeUpRun

    Change = Callable[[MadeUpRun], None]

SHAPES = [
    Shape(),
    OFF,
    Shape(state="cold", treatment="empty", touches=3),
    Shape(concurrency=4, prompts=40),
    Shape(concurrency=28, prompts=100, touches=2),
    Shape(state="off", treatment="recompute", concurrency=28, prompts=100, touches=2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.state}, {shape.concurrency} slots")
def test_honest_runs_are_never_called_suspect(shape: Shape) -> None:
    found = {seed: honest_run(seed, shape).verdict for seed in range(20)}
    assert {verdict.word for verdict in found.values()} == {"valid"}, found
    assert not [reason for verdict in found.values() for reason in verdict.reasons]


def test_more_in_flight_than_there_are_slots_is_invalid() -> None:
    run = honest_run(1, FOUR_SLOTS)
    run.expect(concurrency=3)
    assert {(reason.rule, reason.level) for reason in run.verdict.reasons} == {("Little's law", "invalid")}
    assert "with 3 slots" in run.verdict.reasons[0].text


@pytest.mark.parametrize(("idle", "rules"), [(0.08, set()), (0.14, {"starved loop"})])
def test_a_client_that_is_slow_between_requests_starves_the_loop(idle: float, rules: set[str]) -> None:
    run = honest_run(1, replace(FOUR_SLOTS, prompts=200))
    latencies = [one.latency_s or 0.0 for one in run.rows]
    gap_s = idle / (1 - idle) * sum(latencies) / len(latencies)
    slow = honest_run(1, replace(FOUR_SLOTS, prompts=200, gap_s=gap_s))
    slow.edit_all(send_lag_s=0.0)  # a driver that does not tell when its requests were due
    assert {reason.rule for reason in slow.verdict.reasons} == rules
    slow.expect(is_open_loop=True)
    assert not slow.verdict.reasons  # an open loop is idle between its requests


def test_one_slot_is_not_starved_by_the_counters_that_are_read_between_requests() -> None:
    paused = honest_run(1, Shape(gap_s=1.0))
    paused.edit_all(send_lag_s=0.0)
    assert not paused.verdict.reasons


def test_the_token_rate_of_a_scale_model_is_scaled() -> None:
    run = honest_run(1)
    stream_s(7 / 100_000)(run)
    assert run.rules == ["token rate"]
    run.expect(time_scale=8.0)
    assert not run.verdict.reasons


def test_a_first_touch_cannot_hit_an_empty_cache() -> None:
    run = honest_run(1, OFF)
    run.edit(1, cached_tokens=160, tier="unproven")
    found = {(reason.rule, reason.level) for reason in run.verdict.reasons}
    assert found == {("tier unproven", "suspect"), ("hits above what was written", "suspect")}
    assert any("1 of 8 prompts hit 160 cached tokens" in reason.text for reason in run.verdict.reasons)


def test_repeats_from_an_empty_start_may_hit_and_first_touches_may_not() -> None:
    shape = Shape(state="cold", treatment="empty", touches=2)
    assert honest_run(1, shape).verdict.word == "valid"
    lied = honest_run(1, shape)
    first = next(number for number, one in enumerate(lied.rows) if one.tier == "recompute")
    lied.edit(first, tier="g4")
    assert lied.rules == ["another tier"]


def test_of_two_requests_at_once_for_one_prompt_either_may_find_the_other() -> None:
    run = honest_run(1, Shape(state="cold", treatment="empty", touches=2))
    first, second = sorted((one for one in run.rows if one.prompt_id == "p3"), key=lambda one: one.sent_ns or 0)
    numbers = [run.rows.index(first), run.rows.index(second)]
    assert list(may_repeat_prompt(run.measured)[numbers]) == [False, True]
    run.edit(numbers[1], sent_ns=(first.first_token_ns or 0) - 1)
    assert list(may_repeat_prompt(run.measured)[numbers]) == [True, True]


def test_later_turns_may_be_served_from_anywhere_but_not_from_nowhere() -> None:
    run = honest_run(1)
    run.edit(1, turn=1, conversation_id="c", tier="mixed")
    assert run.verdict.word == "valid"
    run.edit(1, tier="unproven")
    assert run.rules == ["tier unproven"]


def test_the_ledgers_gap_is_not_said_twice() -> None:
    run = honest_run(1)
    run.edit_ledger(read_bytes={"g4": 1.0}, gap="tiers read 1 B, the hits need 9 MB")
    assert run.rules == ["ledger"]


def test_a_run_of_before_the_host_was_watched_is_judged_by_what_it_has() -> None:
    run = honest_run(1)
    run.edit_record(host=None, network_floor_s=None, load_s=None)
    assert run.verdict == Verdict("valid", ())


def test_a_long_request_does_not_hide_what_happened_to_a_short_one() -> None:
    run = honest_run(1, Shape(prompts=2))
    run.edit(0, ttft_s=0.15, server_overrun_s=0.078)
    run.edit(1, ttft_s=4.0, server_overrun_s=0.0)
    assert run.rules == ["overrun"]


def test_failures_within_the_limit_are_counted_but_do_not_condemn() -> None:
    run = honest_run(1)
    run.edit(1, status="timeout")
    run.expect(max_fail=1)
    assert run.verdict.word == "valid"
    assert "1 timeout" in run.verdict.reasons[0].text


def test_what_a_run_should_have_been_is_read_from_the_plan() -> None:
    design = Design(
        question="q",
        server="emulator",
        treatments=("g4", "far"),
        repeats=1,
        output_tokens=8,
        max_fail=1,
        concurrency=4,
        concurrencies={"g4": 28},
        scale=Scale(time=8, bytes=512),
        open_loops={"g4": OpenLoop(3.0, "poisson")},
        turns=Turns(3, 100, "live"),
        definitions={"far": {"tiers": {"g4": {"bandwidth": 1e9}}}},
        setting={"tiers": {"g1": 0, "g4": {"bandwidth": 2e9}}},
    )
    expected = Expected.of_plan(design, PlannedRun("r01-g4", "g4", 1, requests=7), 0.1)
    assert expected == Expected(
        requests=7,
        output_tokens=8,
        max_fail=1,
        client_error_s=0.1,
        concurrency=28,
        is_open_loop=True,
        has_live_history=True,
        time_scale=8,
        ceilings={"g4": Ceiling(2e9, "tiers.g4.bandwidth of the scenario")},
    )
    far = Expected.of_plan(design, PlannedRun("r01-far", "far", 1))
    assert (far.concurrency, far.is_open_loop, far.ceilings["g4"].bytes_per_s) == (4, False, 1e9)
    bare = Expected.of_plan(Design("q", "s", ("g4",), 1), PlannedRun("r01-g4", "g4", 1, requests=1))
    assert bare == Expected(1, None)


def test_without_a_planned_answer_length_no_answer_has_a_wrong_one() -> None:
    run = honest_run(1)
    run.expect(output_tokens=None)
    assert not run.rules


def test_an_imported_run_is_suspect_and_never_invalid() -> None:
    rows = [request(0, 0.1), request(1, None), request(2, None, status="cut"), request(3, None, status="timeout")]
    verdict = judge_imported("aiperf", frame_of([*rows, request(4, None, status="cut")]))
    assert (verdict.word, [reason.rule for reason in verdict.reasons]) == (
        "suspect",
        ["imported", "failures", "no token"],
    )
    assert verdict.reasons[1].text == "3 of 5 requests failed: 2 cut, 1 timeout; nobody said how many may"
    assert verdict.reasons[2].text == "1 of 2 answers have no TTFT, so they enter no figure"


@pytest.mark.parametrize(
    ("shape", "expected", "remedy"),
    [
        (Shape(), {}, "or leave the machine alone meanwhile."),
        (FOUR_SLOTS, {}, "or lower the concurrency."),
        (FOUR_SLOTS, {"is_open_loop": True}, "or lower load.request_rate."),
    ],
)
def test_the_remedy_of_a_late_send_fits_the_load(shape: Shape, expected: dict[str, Any], remedy: str) -> None:
    run = honest_run(1, shape)
    run.edit_all(send_lag_s=0.06)
    run.expect(**expected)
    (reason,) = (reason for reason in run.verdict.reasons if reason.rule == "send lag")
    assert remedy in reason.remedy


def open_loop(waits_s: list[float], slots: int = 4) -> MadeUpRun:
    """Make an open loop out of a run: each request is due so long before it is sent, whatever its slot did."""
    run = honest_run(1, Shape(concurrency=slots, prompts=len(waits_s)))
    for number, wait_s in enumerate(waits_s):
        sent_ns = run.rows[number].sent_ns or 0
        run.edit(number, scheduled_ns=sent_ns - round(wait_s * 1e9), send_lag_s=wait_s)
    run.expect(is_open_loop=True)
    return run


def test_an_open_loop_is_suspect_where_a_few_of_many_were_held_at_the_cap() -> None:
    """Four of ten wait as long as everything takes; the median request leaves on time."""
    run = open_loop([0.0] * 60 + [60.0] * 40)
    (reason,) = run.verdict.reasons
    assert (reason.rule, reason.level) == ("held at the cap", "suspect")
    assert reason.text == (
        "36 of 100 requests were due while 4 were out, which is the most that may be, and waited up to 1 min 00 s to"
        " be sent"  # the four that were due first had a slot, by this list
    )
    assert "load.concurrency" in reason.remedy
    run.expect(concurrency=100)  # then something else made them late
    assert not run.verdict.reasons
    run.expect(is_open_loop=False, concurrency=4)
    assert "held at the cap" not in {one.rule for one in run.verdict.reasons}


def test_a_client_that_sends_late_is_not_the_cap() -> None:
    run = open_loop([0.06] * 40, slots=1)
    run.edit_all(send_lag_s=0.06)
    run.expect(concurrency=30)
    (reason,) = run.verdict.reasons
    assert (reason.rule, reason.remedy) == (
        "send lag",
        "Give the client a core of its own, or lower load.request_rate.",
    )


@pytest.mark.parametrize("status", ["cut", "timeout"])
def test_a_prompt_whose_first_request_failed_may_be_found_in_the_cache(status: Status) -> None:
    """The server may have stored its blocks before the client lost it."""
    run = honest_run(1, Shape(state="cold", treatment="empty", touches=2))
    first = min((one for one in run.rows if one.prompt_id == "p3"), key=lambda one: one.sent_ns or 0)
    run.edit(run.rows.index(first), status=status, tier="unproven", latency_s=None)
    run.expect(max_fail=1)
    assert [(reason.rule, reason.level) for reason in run.verdict.reasons] == [("failures", "note")]
    again = honest_run(1, Shape(touches=2))  # of a warm tier: the first touch promoted its blocks
    first, second = sorted((one for one in again.rows if one.prompt_id == "p3"), key=lambda one: one.sent_ns or 0)
    again.edit(again.rows.index(first), status=status, tier="unproven", latency_s=None)
    again.edit(again.rows.index(second), tier="g1")
    again.expect(max_fail=1)
    assert again.rules == ["failures", "promoted"]


def test_a_request_that_was_never_sent_touches_nothing() -> None:
    run = honest_run(1, Shape(state="cold", treatment="empty", touches=2))
    first = min((one for one in run.rows if one.prompt_id == "p3"), key=lambda one: one.sent_ns or 0)
    run.edit(run.rows.index(first), status="cancelled", tier="unproven", sent_ns=None, latency_s=None)
    run.expect(max_fail=1)
    assert ("another tier", "invalid") in {(reason.rule, reason.level) for reason in run.verdict.reasons}


@pytest.mark.parametrize("state", ["cold", "warm(g4)"])
def test_each_tier_is_held_against_its_own_bandwidth_in_every_cache_state(state: str) -> None:
    run = honest_run(1, Shape(state=state, treatment="g4", touches=2))
    number = max(place for place, one in enumerate(run.rows) if one.prompt_id == "p3")
    run.edit(number, tier="g3")
    run.expect(ceilings={"g3": Ceiling(1e9, "the scenario")})
    assert "bytes over bandwidth" not in {reason.rule for reason in run.verdict.reasons}
    run.expect(ceilings={"g3": Ceiling(1e8, "the scenario"), "g2": Ceiling(1.0, "nobody")})
    (reason,) = (reason for reason in run.verdict.reasons if reason.rule == "bytes over bandwidth")
    assert reason.text.startswith("1 of 1 requests got their bytes faster")
    run.edit_ledger(read_bytes={"g3": 1e8 * (run.record.load_s or 0.0) * 1.03})
    run.edit(number, tier="mixed")
    assert any("the run read its bytes faster" in one.text for one in run.verdict.reasons)
