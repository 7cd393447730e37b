"""What is read off the measured requests of a run: the load window, the total time, counts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from kvbench.analysis.measured import counts, load_window_ns, total_time_s
from tests.builders.made_up_runs import Shape, honest_run
from tests.builders.requests import frame_of, request

ONE = request(0, 0.1, sent_ns=5_000_000_000, last_token_ns=6_000_000_000)
TWO = request(1, 0.1, sent_ns=4_000_000_000, last_token_ns=5_500_000_000)
UNSENT = request(2, None, status="refused", sent_ns=None)


def test_the_load_window_is_from_the_first_send_to_the_last_token() -> None:
    assert load_window_ns(frame_of([ONE, TWO, UNSENT])) == (4_000_000_000, 6_000_000_000)
    early = replace(TWO, status="timeout", sent_ns=3_000_000_000, last_token_ns=None)
    assert load_window_ns(frame_of([ONE, early])) == (3_000_000_000, 6_000_000_000)


def test_without_a_token_the_load_window_ends_with_the_last_send() -> None:
    silent = [replace(one, status="timeout", last_token_ns=None) for one in (ONE, TWO)]
    assert load_window_ns(frame_of(silent)) == (4_000_000_000, 5_000_000_000)
    set_back = replace(ONE, sent_ns=7, last_token_ns=5)  # a clock that was set back
    assert load_window_ns(frame_of([set_back])) == (7, 7)


def test_where_nothing_was_sent_there_is_no_window() -> None:
    assert load_window_ns(frame_of([UNSENT])) is None
    assert load_window_ns(frame_of([])) is None


def test_a_list_sent_in_one_go_takes_its_load_window_at_concurrency_1_too() -> None:
    run = honest_run(1, Shape(gap_s=0.5))
    latencies_s = sum(row.latency_s or 0.0 for row in run.rows)
    assert total_time_s(run.record, run.measured) == pytest.approx(latencies_s)
    run.edit_record(sent_one_by_one=False)
    assert total_time_s(run.record, run.measured) == run.record.load_s
    assert (run.record.load_s or 0.0) > latencies_s + 2.0


def test_a_run_without_answers_or_proof_has_no_total_time() -> None:
    run = honest_run(1)
    assert total_time_s(run.record, run.measured[:0]) is None
    assert total_time_s(replace(run.record, sent_one_by_one=False, load_s=None), run.measured) is None
    run.edit(0, tier="unproven")
    assert total_time_s(run.record, run.measured) is None


def test_values_are_counted_in_the_order_in_which_they_appear() -> None:
    assert list(counts([pd.Series(["b", "a", "b"]), pd.Series(["c", "a"])]).items()) == [("b", 2), ("a", 2), ("c", 1)]
