"""Open loops by hand: figures from the send and from the schedule, and a queue told from a server that keeps up."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvbench.analysis.measured import Limits
from kvbench.analysis.open_loop import open_loop
from kvbench.result.plan_record import OpenLoop
from tests.builders.made_up_runs import MadeUpRun, Shape, honest_run

if TYPE_CHECKING:
    from kvbench.analysis.measured_result import SealedRun
    from kvbench.result.records import Row

CONSTANT = OpenLoop(10, "constant")


def made_of(waits_s: list[float]) -> MadeUpRun:
    """A made-up open loop: a request is due each 100 ms, is sent after its wait, and takes what it takes."""
    made = honest_run(1, Shape(concurrency=4))
    start_ns = made.rows[0].sent_ns or 0
    rows: list[Row] = []
    for number, wait_s in enumerate(waits_s):
        due_ns = start_ns + number * 100_000_000
        sent_ns = due_ns + round(wait_s * 1e9)
        name = f"r{number}"
        rows.append(
            replace(
                made.rows[0],
                request_id=name,
                prompt_id=name,
                scheduled_ns=due_ns,
                sent_ns=sent_ns,
                first_token_ns=sent_ns + 50_000_000,
                last_token_ns=sent_ns + 80_000_000,
                ttft_s=0.05,
                latency_s=0.08,
                send_lag_s=wait_s,
            )
        )
    window_s = (max(row.last_token_ns or 0 for row in rows) - start_ns) / 1e9
    made.rows = rows
    made.edit_record(load_s=window_s)
    return made


def run_of(waits_s: list[float]) -> SealedRun:
    return made_of(waits_s).sealed()


def test_the_arithmetic_of_an_open_loop() -> None:
    steady = open_loop([run_of([0.0] * 40)], CONSTANT, Limits(ttft_s=0.06))
    assert steady.offered_per_s == pytest.approx(10)
    assert not steady.grew
    assert all(one.from_send.value == one.from_schedule.value for one in steady.figures)
    queue = open_loop([run_of([0.02 * number for number in range(40)])], CONSTANT, Limits(ttft_s=0.06))
    assert queue.waited_mean_s == pytest.approx(0.39)  # 0.02 x (0 + ... + 39) / 40
    assert queue.first_quarter_s == pytest.approx(0.08 + 0.02 * 4.5)
    assert queue.last_quarter_s == pytest.approx(0.08 + 0.02 * 34.5)
    assert queue.growth == pytest.approx(0.2)  # 0.02 s each 0.1 s
    assert queue.grew
    found = {one.name: [one.from_send.value, one.from_schedule.value] for one in queue.figures}
    assert found["ttft_p50"] == pytest.approx([0.05, 0.05 + 0.02 * 19.5])
    assert found["latency_max"] == pytest.approx([0.08, 0.08 + 0.02 * 39])
    assert found["slo_attainment"] == pytest.approx([1.0, 1 / 40])  # only the first was within 60 ms of its due time


def test_a_short_list_says_nothing_of_a_queue() -> None:
    short = open_loop([run_of([0.1 * number for number in range(8)])], CONSTANT, Limits())
    assert (short.first_quarter_s, short.grew) == (None, False)


def test_a_list_that_begins_with_an_empty_server_is_no_queue() -> None:
    """Latency rises once, to three and a half times its first, and stays: 0.2 s over 3 s of schedule."""
    risen = open_loop([run_of([0.0] * 10 + [0.2] * 30)], CONSTANT, Limits())
    assert risen.last_quarter_s is not None
    assert risen.first_quarter_s is not None
    assert risen.last_quarter_s > 3 * risen.first_quarter_s
    assert risen.growth == pytest.approx(0.2 / 3)
    assert not risen.grew


def one_server(seed: int, load: float) -> SealedRun:
    """A server that takes 80 ms for each of 60 requests, which arrive by chance at this load of its capacity."""
    chance = random.Random(seed)  # noqa: S311 - a draw, no secret
    made = made_of([0.0] * 60)
    rows, due_s, free_s = [], 0.0, 0.0
    for row in made.rows:
        due_s += chance.expovariate(load / 0.08)
        free_s = max(due_s, free_s) + 0.08
        at = {"scheduled_ns": round(due_s * 1e9), "sent_ns": round(due_s * 1e9), "last_token_ns": round(free_s * 1e9)}
        rows.append(replace(row, **at, latency_s=free_s - due_s))  # type: ignore[arg-type]
    made.rows = rows
    made.edit_record(load_s=free_s)
    return made.sealed()


@pytest.mark.parametrize(("load", "grew"), [(0.5, False), (0.67, False), (1.5, True), (2.0, True)])
def test_a_queue_is_told_from_a_server_that_keeps_up(load: float, grew: bool) -> None:  # noqa: FBT001 - a parameter
    for seed in range(0, 200, 5):
        runs = [one_server(seed + number, load) for number in range(5)]
        assert open_loop(runs, CONSTANT, Limits()).grew is grew, seed
