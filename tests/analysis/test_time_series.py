"""Runs over time: slices add up to the run's own figures, and runs that time says nothing of have no time series."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import measured, metrics, time_series
from tests.builders.made_up_runs import Shape, honest_run

if TYPE_CHECKING:
    from kvbench.analysis.measured_result import SealedRun

COLD = Shape(state="cold", treatment="cold", concurrency=4, prompts=40, touches=5)


def sealed(shape: Shape = COLD, edit: dict[int, dict[str, Any]] | None = None) -> SealedRun:
    made = honest_run(1, shape)
    for number, fields in (edit or {}).items():
        made.edit(number, **fields)
    return made.sealed()


def test_a_series_ends_at_the_figures_of_its_run() -> None:
    run = sealed()
    found = time_series.time_series_of(run)
    assert found is not None
    window = measured.load_window_ns(run.measured)
    assert window is not None
    assert len(found.answered) == 20
    assert found.slice_s * 20 == pytest.approx((window[1] - window[0]) / 1e9)
    assert sum(found.answered) == 200
    assert found.answered_per_s == pytest.approx([count / found.slice_s for count in found.answered])
    assert found.hit_rate is not None
    assert found.hit_rate[-1] == pytest.approx(metrics.hit_rate(run))
    assert found.distinct_prompts[-1] == 40


def test_an_empty_start_fills_up() -> None:
    found = time_series.time_series_of(sealed())
    assert found is not None
    assert found.hit_rate is not None
    assert found.hit_rate[0] is not None
    assert found.hit_rate[-1] is not None
    assert found.hit_rate[0] < 0.3 < found.hit_rate[-1]
    assert all(one <= other for one, other in itertools.pairwise(found.distinct_prompts))
    assert found.distinct_prompts[0] < 40
    quarter = len(found.answered) // 4
    assert sum(found.answered[:quarter]) < sum(found.answered[-quarter:])


def test_slices_are_counted_by_hand() -> None:
    """40 answers, one each 0.1 s from 0.1 s on; four slices of one second hold ten each, the last its own end."""
    made = honest_run(1, Shape(concurrency=4, prompts=40))
    zero_ns = 1_000_000_000
    made.rows = [
        replace(
            row,
            sent_ns=zero_ns + max(0, number - 3) * 100_000_000,
            last_token_ns=zero_ns + (number + 1) * 100_000_000,
            prompt_id=f"p{number % 20}",
        )
        for number, row in enumerate(made.rows)
    ]
    found = time_series.time_series_of(made.sealed())
    assert found is not None
    assert found.slice_s == pytest.approx(1.0)
    assert found.answered == (9, 10, 10, 11)
    assert found.distinct_prompts == (13, 20, 20, 20)


def test_a_failed_request_has_sent_its_prompt_and_is_no_answer() -> None:
    whole = sealed(Shape(concurrency=4, prompts=60))
    failed: dict[str, Any] = {"status": "cut", "latency_s": None}
    part = sealed(Shape(concurrency=4, prompts=60), {0: failed})
    found, all_found = time_series.time_series_of(part), time_series.time_series_of(whole)
    assert found is not None
    assert all_found is not None
    assert (sum(found.answered), sum(all_found.answered)) == (59, 60)
    assert found.distinct_prompts[-1] == all_found.distinct_prompts[-1] == 60


def test_a_hit_rate_that_the_run_has_not_is_in_no_slice() -> None:
    unknowns: list[dict[str, Any]] = [{"cached_tokens": None}, {"tier": "unproven"}]
    for unknown in unknowns:
        found = time_series.time_series_of(sealed(edit={7: unknown}))
        assert found is not None
        assert found.hit_rate is None


def test_runs_without_a_time_series() -> None:
    assert time_series.time_series_of(sealed(Shape(concurrency=4, prompts=39))) is None  # below four slices of ten
    held = {number: {"conversation_id": f"c{number // 4}"} for number in range(200)}
    assert time_series.time_series_of(sealed(edit=held)) is None
    made = honest_run(1, COLD)
    made.edit_record(sent_one_by_one=True)
    run = made.sealed()
    assert time_series.time_series_of(run) is None
    made.rows = [replace(row, sent_ns=None, last_token_ns=None, status="refused") for row in made.rows]
    unsent = made.sealed()
    assert measured.load_window_ns(unsent.measured) is None
    assert time_series.time_series([run, unsent, sealed()]) == (time_series.time_series_of(sealed()),)
