"""The load window and the total time: one definition for the run, its verdict, its figures and its plots."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvbench.result.records import Response
from kvbench.result.run_time import length_s, load_window_ns, total_time_s, window_of_stamps_ns
from tests.builders.made_up_runs import Shape, honest_run

ONE = Response("a", "ok", 0, sent_ns=5_000_000_000, last_token_ns=6_000_000_000)
TWO = Response("b", "ok", 0, sent_ns=4_000_000_000, last_token_ns=5_500_000_000)
UNSENT = Response("c", "refused", 0)


def test_the_load_window_is_from_the_first_send_to_the_last_token() -> None:
    assert load_window_ns([ONE, TWO, UNSENT]) == (4_000_000_000, 6_000_000_000)
    early = replace(TWO, status="timeout", sent_ns=3_000_000_000, last_token_ns=None)
    assert load_window_ns([ONE, early]) == (3_000_000_000, 6_000_000_000)


def test_without_a_token_the_load_window_ends_with_the_last_send() -> None:
    silent = [replace(one, status="timeout", last_token_ns=None) for one in (ONE, TWO)]
    assert load_window_ns(silent) == (4_000_000_000, 5_000_000_000)
    assert window_of_stamps_ns([(7, 5)]) == (7, 7)  # a clock that was set back


def test_where_nothing_was_sent_there_is_no_window_and_no_length() -> None:
    assert load_window_ns([UNSENT]) is None
    assert load_window_ns([]) is None
    assert length_s(None) is None


def test_a_list_sent_in_one_go_takes_its_load_window_at_concurrency_1_too() -> None:
    run = honest_run(1, Shape(gap_s=0.5))
    latencies_s = sum(row.latency_s or 0.0 for row in run.rows)
    assert total_time_s(run.record, run.rows) == pytest.approx(latencies_s)
    run.record["sent_one_by_one"] = False
    assert total_time_s(run.record, run.rows) == run.record["load_s"] > latencies_s + 2.0


def test_a_run_without_answers_or_proof_has_no_total_time() -> None:
    run = honest_run(1)
    assert total_time_s(run.record, []) is None
    assert total_time_s({**run.record, "sent_one_by_one": False, "load_s": None}, run.rows) is None
    run.edit(0, tier="unproven")
    assert total_time_s(run.record, run.rows) is None
