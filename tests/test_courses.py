"""Runs over time: slices add up to the run's own figures, and runs that time says nothing of have no course."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import courses, metrics
from kvbench.run_time import load_window_ns
from kvbench.sealed import SealedRun
from tests.made_up_runs import Shape, honest_run

if TYPE_CHECKING:
    from kvbench.records import Row

COLD = Shape(state="cold", treatment="cold", concurrency=4, prompts=40, touches=5)


def sealed(shape: Shape = COLD, edit: dict[int, dict[str, Any]] | None = None) -> SealedRun:
    made = honest_run(1, shape)
    rows: list[Row] = [replace(row, **(edit or {}).get(number, {})) for number, row in enumerate(made.rows)]
    return SealedRun(made.record, rows, rows, made.verdict)


def test_a_course_ends_at_the_figures_of_its_run() -> None:
    run = sealed()
    found = courses.course(run)
    assert found is not None
    window = load_window_ns(run.measured)
    assert window is not None
    assert len(found["answered"]) == 20
    assert found["slice_s"] * 20 == pytest.approx((window[1] - window[0]) / 1e9)
    assert sum(found["answered"]) == 200
    assert found["answered_per_s"] == pytest.approx([count / found["slice_s"] for count in found["answered"]])
    assert found["hit_rate"][-1] == pytest.approx(metrics.hit_rate(run))
    assert found["distinct_prompts"][-1] == 40


def test_an_empty_start_fills_up() -> None:
    found = courses.course(sealed())
    assert found is not None
    assert found["hit_rate"][0] < 0.3 < found["hit_rate"][-1]
    assert all(one <= other for one, other in itertools.pairwise(found["distinct_prompts"]))
    assert found["distinct_prompts"][0] < 40
    quarter = len(found["answered"]) // 4
    assert sum(found["answered"][:quarter]) < sum(found["answered"][-quarter:])


def test_slices_are_counted_by_hand() -> None:
    """40 answers, one each 0.1 s from 0.1 s on; four slices of one second hold ten each, the last its own end."""
    run = sealed(Shape(concurrency=4, prompts=40))
    zero_ns = 1_000_000_000
    rows = [
        replace(
            row,
            sent_ns=zero_ns + max(0, number - 3) * 100_000_000,
            last_token_ns=zero_ns + (number + 1) * 100_000_000,
            prompt_id=f"p{number % 20}",
        )
        for number, row in enumerate(run.measured)
    ]
    found = courses.course(SealedRun(run.record, rows, rows, run.verdict))
    assert found is not None
    assert found["slice_s"] == pytest.approx(1.0)
    assert found["answered"] == [9, 10, 10, 11]
    assert found["distinct_prompts"] == [13, 20, 20, 20]


def test_a_failed_request_has_sent_its_prompt_and_is_no_answer() -> None:
    whole = sealed(Shape(concurrency=4, prompts=60))
    failed: dict[str, Any] = {"status": "cut", "latency_s": None}
    found, all_found = courses.course(sealed(Shape(concurrency=4, prompts=60), {0: failed})), courses.course(whole)
    assert found is not None
    assert all_found is not None
    assert (sum(found["answered"]), sum(all_found["answered"])) == (59, 60)
    assert found["distinct_prompts"][-1] == all_found["distinct_prompts"][-1] == 60


def test_a_hit_rate_that_the_run_has_not_is_in_no_slice() -> None:
    unknowns: list[dict[str, Any]] = [{"cached_tokens": None}, {"tier": "unproven"}]
    for unknown in unknowns:
        found = courses.course(sealed(edit={7: unknown}))
        assert found is not None
        assert found["hit_rate"] is None


def test_runs_without_a_course() -> None:
    assert courses.course(sealed(Shape(concurrency=4, prompts=39))) is None  # below four slices of ten
    held = {number: {"conversation_id": f"c{number // 4}"} for number in range(200)}
    assert courses.course(sealed(edit=held)) is None
    run = sealed()
    run.record["sent_one_by_one"] = True
    assert courses.course(run) is None
    never = [replace(row, sent_ns=None, last_token_ns=None, status="refused") for row in run.measured]
    unsent = SealedRun(run.record, never, never, run.verdict)
    assert load_window_ns(unsent.measured) is None
    assert courses.courses([run, unsent, sealed()]) == [courses.course(sealed())]
