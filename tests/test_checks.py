"""Verdicts on runs: each rule trips on a made-up run that breaks it, and is silent just inside its bound."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import checks, plan
from kvbench.checks.verdict import repeats
from tests.made_up_runs import KV_BYTES, TOKENS, Shape, honest_run
from tests.test_store import row
from tests.worlds import make_scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.made_up_runs import MadeUpRun

    Change = Callable[[MadeUpRun], None]

RUN: dict[str, Any] = honest_run().record
SHARES = 1e-3  # how far beyond, or inside, a bound
OVER, UNDER = 1 + SHARES, 1 - SHARES
MANY = Shape(prompts=101)
FOUR_SLOTS = Shape(concurrency=4, prompts=40)
OFF = Shape(state="off", treatment="recompute")


@dataclass(frozen=True)
class Case:
    """One rule: a change that trips it, and one that stays just inside; `shape` is of the run that is changed."""

    rule: str
    level: str
    trips: Change
    inside: Change
    shape: Shape | None = None
    inside_shape: Shape | None = None


def nothing(_run: MadeUpRun) -> None:
    """Leave the run as it is."""


def one(**fields: Any) -> Change:
    """Change the second row."""
    return lambda run: run.edit(1, **fields)


def part(name: str, **fields: Any) -> Change:
    """Change a part of run.json."""
    return lambda run: run.record[name].update(fields)


def pressure(**fields: Any) -> Change:
    return lambda run: run.record["world"]["pressure"].update(fields)


def asked(**fields: Any) -> Change:
    return lambda run: run.expect(**fields)


def step(outcome: str, name: str = "prove warm, canary-last") -> Change:
    return lambda run: run.record["cache"]["steps"].append({"name": name, "outcome": outcome, "evidence": "seen"})


def shares(**fields: float) -> Change:
    return lambda run: run.edit_all(**fields)


def cpu(**fields: float) -> Change:
    """Set processor times to shares of the wall time."""

    def change(run: MadeUpRun) -> None:
        driver = run.record["driver"]
        driver.update({name: share * driver["wall_s"] for name, share in fields.items()})

    return change


def drop_one(run: MadeUpRun) -> None:
    run.rows.pop(3)


def efficiency(beyond_tokens: int) -> Change:
    """Leave out one block for each request, and so many tokens more."""

    def change(run: MadeUpRun) -> None:
        ledger = run.record["ledger"]
        ledger["cached_tokens"] -= run.record["blocks"]["tokens"] * ledger["requests"] + beyond_tokens

    return change


def matches(last: str) -> Change:
    """Compare answers: all are as recomputed, but perhaps the last."""

    def change(run: MadeUpRun) -> None:
        run.expect(check_answers=True)
        for number in range(len(run.rows)):
            run.edit(number, answers_match=True)
        run.edit(len(run.rows) - 1, answers_match={"same": True, "other": False, "unknown": None}[last])

    return change


def first_token(after_send_ns: int) -> Change:
    return lambda run: run.edit(1, first_token_ns=(run.rows[1].sent_ns or 0) + after_send_ns)


def storage(share: float) -> Change:
    return lambda run: run.edit(1, server_storage_s=share * (run.rows[1].ttft_s or 0.0))


def ceiling(share: float) -> Change:
    """Say that the tier delivers this share of the fastest rate that was seen."""

    def change(run: MadeUpRun) -> None:
        fastest = max((row.server_read_bytes or 0) / (row.server_storage_s or 1.0) for row in run.rows)
        run.expect(ceilings={"g4": checks.Ceiling(fastest * share, "tiers.g4.bandwidth of the scenario")})

    return change


def window_ceiling(share: float) -> Change:
    """Say that the tier delivers this share of what the whole run got, from a server that tells of no request."""

    def change(run: MadeUpRun) -> None:
        for number in range(len(run.rows)):
            run.edit(number, server_read_bytes=None, server_storage_s=None)
        rate = run.record["ledger"]["read_bytes"]["g4"] / run.record["load_s"]
        run.expect(ceilings={"g4": checks.Ceiling(rate * share, "measured")})

    return change


def ledger_share(name: str, share: float) -> Change:
    """Set bytes of the ledger to a share of what the hits need."""

    def change(run: MadeUpRun) -> None:
        needed = run.record["ledger"]["cached_tokens"] * KV_BYTES * share
        run.record["ledger"][name] = {"g4": needed} if name == "read_bytes" else needed

    return change


def cached_beyond(tokens: int) -> Change:
    return lambda run: run.edit(1, cached_tokens=(run.rows[1].isl or 0) + tokens)


def window(share: float) -> Change:
    def change(run: MadeUpRun) -> None:
        run.record["load_s"] *= share

    return change


def floor(share: float) -> Change:
    def change(run: MadeUpRun) -> None:
        run.record["network_floor_s"] = share * min(row.ttft_s or 0.0 for row in run.rows)

    return change


def stream_s(seconds: float) -> Change:
    return lambda run: run.edit(1, last_token_ns=(run.rows[1].first_token_ns or 0) + round(seconds * 1e9))


def client_error(share: float) -> Change:
    def change(run: MadeUpRun) -> None:
        for number in range(len(run.rows)):
            run.edit(number, ttft_s=1.0 + run.rows[number].isl_target)  # type: ignore[operator]
        run.expect(client_error_s=share * (1.0 + min(row.isl_target or 0 for row in run.rows)))

    return change


CASES = [
    Case("cache state", "invalid", step("failed"), step("done")),
    Case("cache state", "suspect", step("not established", "page cache"), step("proven", "page cache")),
    Case("cache state", "note", step("not established", "prove cold"), step("proven", "prove cold")),
    Case("requests missing", "invalid", drop_one, nothing),
    Case("failures", "invalid", one(status="cut"), nothing),
    Case("no token", "suspect", one(ttft_s=None), nothing),
    Case("prompt length", "suspect", one(isl=None), nothing),
    Case("prompt length", "invalid", one(isl=20_001), nothing),
    Case("answer length", "suspect", one(osl=3), one(osl=TOKENS)),
    Case("another tier", "invalid", one(tier="g1"), one(tier="g4")),
    Case("tier unproven", "suspect", one(tier="unproven"), one(tier="g4")),
    Case("ledger", "suspect", part("ledger", gap="the books"), part("ledger", gap=None)),
    Case("hit efficiency", "invalid", efficiency(1), efficiency(0)),
    Case("answers", "invalid", matches("other"), matches("same")),
    Case("answers", "suspect", matches("unknown"), matches("same")),
    Case("another model", "invalid", one(model="n"), one(model=None)),
    Case("time order", "invalid", first_token(-1), first_token(0)),
    Case("time order", "invalid", one(send_lag_s=-0.00101), one(send_lag_s=-0.00099)),
    Case("storage clock", "suspect", storage(1.0205), storage(1.0195)),
    Case("bytes over bandwidth", "suspect", ceiling(UNDER / 1.02), ceiling(OVER / 1.02)),
    Case("bytes over bandwidth", "suspect", window_ceiling(UNDER / 1.02), window_ceiling(OVER / 1.02), FOUR_SLOTS),
    Case("hits above what was written", "invalid", cached_beyond(1), cached_beyond(0)),
    Case(
        "hits above what was written",
        "suspect",
        ledger_share("expected_read_bytes", UNDER / 1.01),
        ledger_share("expected_read_bytes", OVER / 1.01),
    ),
    Case(
        "bytes below the hits",
        "suspect",
        ledger_share("read_bytes", 0.99 * UNDER),
        ledger_share("read_bytes", 0.99 * OVER),
    ),
    Case("load window", "suspect", window(1.0206), window(1.0195)),
    Case("network floor", "suspect", floor(OVER), floor(UNDER)),
    Case("one piece", "suspect", stream_s(0), stream_s(0), inside_shape=MANY),
    Case("token rate", "suspect", stream_s(7 / 20_000 * UNDER), stream_s(7 / 20_000 * OVER)),
    Case("upper bounds", "suspect", one(ttft_bound="upper"), one(ttft_bound="upper"), inside_shape=MANY),
    Case("user clock", "note", part("driver", stamps="user"), nothing),
    Case("order", "suspect", part("driver", out_of_order=1), part("driver", out_of_order=0)),
    Case("no record", "suspect", part("driver", missing=1), part("driver", missing=0)),
    Case("clock step", "suspect", part("driver", clock_step_s=-0.0101), part("driver", clock_step_s=-0.0099)),
    Case("clock step", "suspect", pressure(clock_step_s=0.0101), pressure(clock_step_s=0.0099)),
    Case("send lag", "suspect", shares(send_lag_s=0.05 * OVER), shares(send_lag_s=0.05 * UNDER)),
    Case("receive lag", "note", shares(receive_lag_s=0.05 * OVER), shares(receive_lag_s=0.05 * UNDER)),
    Case("client CPU", "suspect", cpu(client_cpu_s=0.8 * OVER), cpu(client_cpu_s=0.8 * UNDER)),
    Case("receiver CPU", "suspect", cpu(receiver_cpu_s=0.5 * OVER), cpu(receiver_cpu_s=0.5 * UNDER)),
    Case("retries", "note", part("driver", retries=1), part("driver", retries=0)),
    Case("reconnects", "note", part("driver", connections_opened=2), part("driver", connections_opened=1)),
    Case("client error", "note", client_error(0.05 * OVER), client_error(0.05 * UNDER)),
    Case("overrun", "suspect", shares(server_overrun_s=0.02 * OVER), shares(server_overrun_s=0.02 * UNDER)),
    Case(
        "changed in mid-run",
        "suspect",
        part("world", changed=["governor: a before, b after"]),
        part("world", changed=[]),
    ),
    Case("steal", "suspect", pressure(steal_share=0.0501), pressure(steal_share=0.0499)),
    Case("steal", "note", pressure(steal_share=0.0101), pressure(steal_share=0.0099)),
    Case("CPU pressure", "note", pressure(cpu_some_share=0.501), pressure(cpu_some_share=0.499)),
    Case("memory pressure", "suspect", pressure(memory_full_share=0.0101), pressure(memory_full_share=0.0099)),
    Case("memory pressure", "note", pressure(memory_some_share=0.0501), pressure(memory_some_share=0.0499)),
    Case("swapping", "suspect", pressure(swapped_bytes=(1 << 20) + 4096), pressure(swapped_bytes=1 << 20)),
    Case("I/O pressure", "note", pressure(io_full_share=0.101), pressure(io_full_share=0.099), OFF),
]
ORDER = {"note": 0, "suspect": 1, "invalid": 2}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}, {case.level}")
def test_each_rule_trips_beyond_its_bound_and_is_silent_inside(case: Case) -> None:
    broken, fine = honest_run(1, case.shape), honest_run(1, case.inside_shape or case.shape)
    case.trips(broken)
    verdict = broken.verdict
    assert [(reason.rule, reason.level) for reason in verdict.reasons] == [(case.rule, case.level)]
    assert verdict.word == ("valid" if case.level == "note" else case.level)
    assert verdict.reasons[0].remedy.endswith(".")
    case.inside(fine)
    same = [reason for reason in fine.verdict.reasons if reason.rule == case.rule]
    assert not [reason for reason in same if ORDER[reason.level] >= ORDER[case.level]]
    assert {reason.rule for reason in fine.verdict.reasons} <= {case.rule}


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
    assert [reason.rule for reason in run.verdict.reasons] == ["token rate"]
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
    assert [reason.rule for reason in lied.verdict.reasons] == ["another tier"]


def test_of_two_requests_at_once_for_one_prompt_either_may_find_the_other() -> None:
    run = honest_run(1, Shape(state="cold", treatment="empty", touches=2))
    first, second = sorted((one for one in run.rows if one.prompt_id == "p3"), key=lambda one: one.sent_ns or 0)
    assert repeats(run.rows) >= {second.request_id}
    assert first.request_id not in repeats(run.rows)
    run.edit(run.rows.index(second), sent_ns=(first.first_token_ns or 0) - 1)
    assert repeats(run.rows) >= {first.request_id, second.request_id}


def test_later_turns_may_be_served_from_anywhere_but_not_from_nowhere() -> None:
    run = honest_run(1)
    run.edit(1, turn=1, conversation_id="c", tier="mixed")
    assert run.verdict.word == "valid"
    run.edit(1, tier="unproven")
    assert [reason.rule for reason in run.verdict.reasons] == ["tier unproven"]


def test_the_ledgers_gap_is_not_said_twice() -> None:
    run = honest_run(1)
    run.record["ledger"].update(read_bytes={"g4": 1.0}, gap="tiers read 1 B, the hits need 9 MB")
    assert [reason.rule for reason in run.verdict.reasons] == ["ledger"]


def test_a_run_of_before_the_host_was_watched_is_judged_by_what_it_has() -> None:
    run = honest_run(1)
    del run.record["world"], run.record["network_floor_s"], run.record["load_s"]
    assert run.verdict == checks.Verdict("valid", ())


def test_a_long_request_does_not_hide_what_happened_to_a_short_one() -> None:
    run = honest_run(1, Shape(prompts=2))
    run.edit(0, ttft_s=0.15, server_overrun_s=0.078)
    run.edit(1, ttft_s=4.0, server_overrun_s=0.0)
    assert [reason.rule for reason in run.verdict.reasons] == ["overrun"]


def test_failures_within_the_limit_are_counted_but_do_not_condemn() -> None:
    run = honest_run(1)
    run.edit(1, status="timeout")
    run.expect(max_fail=1)
    assert run.verdict.word == "valid"
    assert "1 timeout" in run.verdict.reasons[0].text


def test_warmup_and_priming_are_not_judged() -> None:
    run = honest_run(1)
    run.rows.append(row(2, phase="prime", status="cut"))
    assert run.verdict.word == "valid"


def test_the_worst_word_wins() -> None:
    assert checks.worst(["valid", "suspect"]) == "suspect"
    assert checks.worst(["suspect", "invalid", "valid"]) == "invalid"
    assert checks.worst([]) == "invalid"


def test_what_was_asked_is_read_from_the_plan() -> None:
    told = {
        "output_tokens": 8,
        "max_fail": 1,
        "concurrency": 4,
        "concurrencies": {"g4": 28},
        "scale": {"time": 8, "bytes": 512},
        "setting": {"tiers": {"g1": 0, "g4": {"bandwidth": 2e9}}, "load": {"request_rate": 3.0}},
        "definitions": {"far": {"tiers": {"g4": {"bandwidth": 1e9}}}},
    }
    found = checks.Asked.of_plan(told, "g4", 7, 0.1)
    assert (found.requests, found.concurrency, found.is_open_loop, found.time_scale) == (7, 28, True, 8)
    assert found.ceilings["g4"] == checks.Ceiling(2e9, "tiers.g4.bandwidth of the scenario")
    other = checks.Asked.of_plan(told, "far", 7)
    assert (other.concurrency, other.ceilings["g4"].bytes_per_s) == (4, 1e9)
    bare = checks.Asked.of_plan({"output_tokens": 8, "max_fail": 0}, "g4", 1)
    assert (bare.concurrency, bare.is_open_loop, bare.time_scale, bare.ceilings) == (None, False, 1.0, {})


def test_a_tiers_bandwidth_goes_from_the_scenario_into_the_plan() -> None:
    tiers = {"g4": {"path": "kvcache", "capacity": "1GB", "bandwidth": "16Gbit/s"}}
    laid_out = plan.expand(make_scenario(tiers=tiers, load={"concurrency": 3}))
    found = checks.Asked.of_plan(laid_out.asked, "g4", 2)
    assert (found.ceilings["g4"].bytes_per_s, found.concurrency, found.time_scale) == (2e9, 3, 8)


def rules_in_code(files: str = "*.py") -> set[str]:
    calls = [
        node
        for path in Path("kvbench/checks").glob(files)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason"
    ]
    assert calls
    for call in calls:
        assert isinstance(call.args[1], ast.Constant), ast.unparse(call)
    return {str(call.args[1].value) for call in calls if isinstance(call.args[1], ast.Constant)}


def test_every_rule_has_a_row_in_the_protocol_and_every_row_a_rule() -> None:
    section = Path("docs/protocol.md").read_text().partition("## Verdicts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ((?:invalid|suspect|note)[^|]*?) \|", section, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert set(dict(rows)) == rules_in_code()
    assert not [case for case in CASES if case.level not in dict(rows)[case.rule]]


def test_every_rule_on_runs_has_a_case_here() -> None:
    elsewhere = {"imported", "Little's law", "starved loop"}  # tests of their own
    assert {case.rule for case in CASES} | elsewhere == rules_in_code() - rules_in_code("treatment.py")
