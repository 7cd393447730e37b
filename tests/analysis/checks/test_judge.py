"""Verdicts on runs: each rule trips on a made-up run that breaks it, and is silent just inside its bound."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis.measured import total_time_s
from kvbench.result.plan_record import Ceiling
from kvbench.result.run_record import Attempt, BottleneckRecord, NeighborRecord, Step, Window
from kvbench.result.verdict import Reason, Verdict
from tests.builders.made_up_runs import KV_BYTES, TOKENS, Shape, honest_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.result.records import Tier
    from kvbench.result.run_record import Outcome
    from tests.builders.made_up_runs import MadeUpRun

    Change = Callable[[MadeUpRun], None]

SHARES = 1e-3  # how far beyond, or inside, a bound
OVER, UNDER = 1 + SHARES, 1 - SHARES
MANY = Shape(prompts=101)
FOUR_SLOTS = Shape(concurrency=4, prompts=40)
OFF = Shape(state="off", treatment="recompute")
COLD = Shape(state="cold", treatment="empty", touches=2)


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


def ledger(**fields: Any) -> Change:
    return lambda run: run.edit_ledger(**fields)


def driver(**fields: Any) -> Change:
    return lambda run: run.edit_driver(**fields)


def changed(*facts: str) -> Change:
    """Let facts of the host change in mid-run."""

    def change(run: MadeUpRun) -> None:
        assert run.record.host is not None
        run.edit_record(host=replace(run.record.host, changed=facts))

    return change


def pressure(**fields: float) -> Change:
    return lambda run: run.edit_pressure(**fields)


def step(outcome: Outcome, name: str = "prove warm, canary-last") -> Change:
    def change(run: MadeUpRun) -> None:
        cache = run.record.cache
        run.edit_record(cache=replace(cache, steps=(*cache.steps, Step(name, outcome, "seen"))))

    return change


def shares(**fields: float) -> Change:
    return lambda run: run.edit_all(**fields)


def cpu(**fields: float) -> Change:
    """Set processor times to shares of the wall time."""

    def change(run: MadeUpRun) -> None:
        wall_s = run.record.driver.wall_s or 0.0
        run.edit_driver(**{name: share * wall_s for name, share in fields.items()})

    return change


def drop_one(run: MadeUpRun) -> None:
    run.rows.pop(3)


def efficiency(beyond_tokens: int) -> Change:
    """Leave out one block for each request, and so many tokens more."""

    def change(run: MadeUpRun) -> None:
        ledger, blocks = run.record.ledger, run.record.blocks
        assert blocks is not None
        left_out = blocks.tokens * ledger.requests + beyond_tokens
        run.edit_ledger(cached_tokens=(ledger.cached_tokens or 0) - left_out)

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
        run.expect(ceilings={"g4": Ceiling(fastest * share, "tiers.g4.bandwidth of the scenario")})

    return change


def window_ceiling(share: float) -> Change:
    """Say that the tier delivers this share of what the whole run got, from a server that tells of no request."""

    def change(run: MadeUpRun) -> None:
        for number in range(len(run.rows)):
            run.edit(number, server_read_bytes=None, server_storage_s=None)
        rate = run.record.ledger.read_bytes["g4"] / (run.record.load_s or 0.0)
        run.expect(ceilings={"g4": Ceiling(rate * share, "measured")})

    return change


def ledger_share(name: str, share: float) -> Change:
    """Set bytes of the ledger to a share of what the hits need."""

    def change(run: MadeUpRun) -> None:
        needed = (run.record.ledger.cached_tokens or 0) * KV_BYTES * share
        run.edit_ledger(**{name: {"g4": needed} if name == "read_bytes" else needed})

    return change


def cached_beyond(tokens: int) -> Change:
    return lambda run: run.edit(1, cached_tokens=(run.rows[1].isl or 0) + tokens)


def window(share: float) -> Change:
    return lambda run: run.edit_record(load_s=(run.record.load_s or 0.0) * share)


def repeated_from(tier: Tier) -> Change:
    return lambda run: run.edit(1, prompt_id=run.rows[0].prompt_id, tier=tier)


def floor(share: float) -> Change:
    return lambda run: run.edit_record(network_floor_s=share * min(row.ttft_s or 0.0 for row in run.rows))


def stream_s(seconds: float) -> Change:
    return lambda run: run.edit(1, last_token_ns=(run.rows[1].first_token_ns or 0) + round(seconds * 1e9))


def held(*numbers: int) -> Change:
    """Let these requests of an open loop be due before the one slot is free."""

    def change(run: MadeUpRun) -> None:
        for number in numbers:
            due_ns = (run.rows[number - 1].last_token_ns or 0) - 100_000_000
            lag_s = ((run.rows[number].sent_ns or 0) - due_ns) / 1e9
            run.edit(number, scheduled_ns=due_ns, send_lag_s=lag_s)
        run.expect(is_open_loop=True)

    return change


def client_error(share: float) -> Change:
    def change(run: MadeUpRun) -> None:
        for number in range(len(run.rows)):
            run.edit(number, ttft_s=1.0 + run.rows[number].isl_target)  # type: ignore[operator]
        run.expect(client_error_s=share * (1.0 + min(row.isl_target or 0 for row in run.rows)))

    return change


NEIGHBORS = NeighborRecord(
    load="storage",
    generator="fio",
    target="g4",
    delivered_bytes_per_s=1e6,
    label="storage",
    window=Window(0, 1),
    verdict=Verdict("valid"),
)


def neighbors(*, made: bool = True, attempts: Sequence[str] = (), load: str | None = "storage") -> Change:
    """Put the run beside neighbours that did what they should, behind a bottleneck or not."""

    def change(run: MadeUpRun) -> None:
        how = "cgroup v1 blkio" if made else None
        run.edit_record(
            neighbors=replace(NEIGHBORS, load=load, attempts=tuple(map(Attempt, attempts))),
            bottleneck=BottleneckRecord("disk", 1e6, how, "not permitted"),
        )

    return change


def quiet_draw(share: float) -> Change:
    """Let a quiet run draw this share of a disk's limit."""

    def change(run: MadeUpRun) -> None:
        neighbors(load=None)(run)
        drawn = (run.record.ledger.counted_bytes or 0.0) / (total_time_s(run.record, run.measured) or 0.0)
        run.edit_record(bottleneck=BottleneckRecord("disk", drawn / share, "cgroup v1 blkio"))

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
    Case("promoted", "note", repeated_from("g1"), repeated_from("g4")),
    Case("tier unproven", "suspect", one(tier="unproven"), one(tier="g4")),
    Case("ledger", "suspect", ledger(gap="the books"), ledger(gap=None)),
    Case("tier files", "suspect", ledger(bad_files=1.0), ledger(bad_files=0.0)),
    Case("tier files", "suspect", ledger(write_errors=2.0), ledger(write_errors=None)),
    Case("hit efficiency", "invalid", efficiency(1), efficiency(0)),
    Case("answers", "invalid", matches("other"), matches("same")),
    Case("answers", "suspect", matches("unknown"), matches("same")),
    Case("another model", "invalid", one(model="n"), one(model=None)),
    Case("time order", "invalid", first_token(-1), first_token(0)),
    Case("time order", "invalid", one(send_lag_s=-0.00101), one(send_lag_s=-0.00099)),
    Case("storage clock", "suspect", storage(1.0205), storage(1.0195)),
    Case("bytes over bandwidth", "suspect", ceiling(UNDER / 1.02), ceiling(OVER / 1.02)),
    Case("bytes over bandwidth", "suspect", window_ceiling(UNDER / 1.02), window_ceiling(OVER / 1.02), FOUR_SLOTS),
    Case("bytes over bandwidth", "suspect", ceiling(UNDER / 1.02), ceiling(OVER / 1.02), COLD, COLD),
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
    Case("user clock", "note", driver(stamps="user"), nothing),
    Case("order", "suspect", driver(out_of_order=1), driver(out_of_order=0)),
    Case("no record", "suspect", driver(missing=1), driver(missing=0)),
    Case("clock step", "suspect", driver(clock_step_s=-0.0101), driver(clock_step_s=-0.0099)),
    Case("clock step", "suspect", pressure(clock_step_s=0.0101), pressure(clock_step_s=0.0099)),
    Case("send lag", "suspect", shares(send_lag_s=0.05 * OVER), shares(send_lag_s=0.05 * UNDER)),
    Case("held at the cap", "suspect", held(40, 60), held(40), MANY, MANY),
    Case("receive lag", "note", shares(receive_lag_s=0.05 * OVER), shares(receive_lag_s=0.05 * UNDER)),
    Case("client CPU", "suspect", cpu(client_cpu_s=0.8 * OVER), cpu(client_cpu_s=0.8 * UNDER)),
    Case("receiver CPU", "suspect", cpu(receiver_cpu_s=0.5 * OVER), cpu(receiver_cpu_s=0.5 * UNDER)),
    Case("retries", "note", driver(retries=1), driver(retries=0)),
    Case("reconnects", "note", driver(connections_opened=2), driver(connections_opened=1)),
    Case("client error", "note", client_error(0.05 * OVER), client_error(0.05 * UNDER)),
    Case("overrun", "suspect", shares(server_overrun_s=0.02 * OVER), shares(server_overrun_s=0.02 * UNDER)),
    Case(
        "changed in mid-run",
        "suspect",
        changed("governor: a before, b after"),
        changed(),
    ),
    Case("steal", "suspect", pressure(steal_share=0.0501), pressure(steal_share=0.0499)),
    Case("steal", "note", pressure(steal_share=0.0101), pressure(steal_share=0.0099)),
    Case("CPU pressure", "note", pressure(cpu_some_share=0.501), pressure(cpu_some_share=0.499)),
    Case("memory pressure", "suspect", pressure(memory_full_share=0.0101), pressure(memory_full_share=0.0099)),
    Case("memory pressure", "note", pressure(memory_some_share=0.0501), pressure(memory_some_share=0.0499)),
    Case("swapping", "suspect", pressure(swapped_bytes=(1 << 20) + 4096), pressure(swapped_bytes=1 << 20)),
    Case("I/O pressure", "note", pressure(io_full_share=0.101), pressure(io_full_share=0.099), OFF),
    Case("neighbour retry", "note", neighbors(attempts=["c2 was lost"]), neighbors()),
    Case("no bottleneck", "suspect", neighbors(made=False), neighbors()),
    Case("not storage-bound", "suspect", quiet_draw(0.95 * UNDER), quiet_draw(0.95 * OVER)),
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


def rules_in(files: str, name: str) -> set[str]:
    """Return the rules of all reasons that a call of `name` makes in these files."""
    calls = [
        node
        for path in Path("kvbench").glob(files)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]
    assert calls
    for call in calls:
        assert isinstance(call.args[1], ast.Constant), ast.unparse(call)
    return {str(call.args[1].value) for call in calls if isinstance(call.args[1], ast.Constant)}


RULES = rules_in("analysis/checks/*.py", "Reason")
TAKEN_OVER = rules_in("testbed/neighbors/delivery.py", "Reason")  # with tests of their own


def test_every_rule_has_a_row_in_the_protocol_and_every_row_a_rule() -> None:
    section = Path("docs/protocol.md").read_text().partition("## Verdicts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ((?:invalid|suspect|note)[^|]*?) \|", section, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert set(dict(rows)) == RULES | TAKEN_OVER
    assert not [case for case in CASES if case.level not in dict(rows)[case.rule]]


def test_every_rule_on_runs_has_a_case_here() -> None:
    elsewhere = {"imported", "Little's law", "starved loop"}  # tests of their own
    assert {case.rule for case in CASES} | elsewhere == RULES - rules_in("analysis/checks/treatment.py", "Reason")


def test_a_quiet_run_is_not_held_to_a_bottleneck_that_was_never_made() -> None:
    run = honest_run()
    quiet_draw(0.5)(run)
    assert run.rules == ["not storage-bound"]
    neighbors(made=False, load=None)(run)
    assert not run.rules
    quiet_draw(0.5)(run)
    run.expect(is_open_loop=True)
    assert "not storage-bound" not in run.rules


def test_what_the_kernel_says_was_read_counts_where_the_server_has_no_counter() -> None:
    run = honest_run()
    quiet_draw(0.99)(run)
    run.edit_ledger(read_bytes={})
    assert not run.rules
    run.edit_ledger(read_bytes={}, process_read_bytes=None)
    (reason,) = run.verdict.reasons
    assert (reason.rule, reason.level) == ("not storage-bound", "suspect")
    assert reason.text == "nobody counted what the quiet run read, so it is not shown that storage bound it"
    run.edit_ledger(read_bytes={"g4": 0.0}, process_read_bytes=10**12)  # a counter that says 0 is believed
    assert set(run.rules) == {"not storage-bound", "bytes below the hits"}


def test_what_neighbours_did_is_taken_over_as_it_was_judged() -> None:
    run = honest_run()
    lost = Reason("invalid", "neighbour lost", "c2 was lost", "Repeat the run.")
    run.edit_record(neighbors=replace(NEIGHBORS, verdict=Verdict("invalid", (lost,))))
    assert run.verdict == Verdict("invalid", (lost,))
