"""Change points of a hit rate: where they are, and that steady runs have none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.analysis.stats import change_point
from kvbench.errors import ResultError


def test_a_cold_start_is_found_where_it_ends() -> None:
    found = change_point.change_point([0] * 40 + [1] * 160)
    assert found == change_point.ChangePoint(40, 0.0, 1.0, 0.001)
    noise = np.random.default_rng(3).random(200).tolist()
    hits = [drawn < (0.2 if place < 50 else 0.8) for place, drawn in enumerate(noise)]
    late = change_point.change_point(hits)
    assert late is not None
    assert abs(late.index - 50) <= 10
    assert late.before < 0.4
    assert late.after > 0.7
    assert late == change_point.change_point(hits)  # seeded


def test_shares_of_prompts_work_as_well() -> None:
    found = change_point.change_point([0.1, 0.0, 0.2, 0.1, 0.0, 0.1, 0.9, 0.95, 0.9, 1.0, 0.9, 0.95, 1.0])
    assert found is not None
    assert found.index == 6


def test_no_change_is_an_answer() -> None:
    assert change_point.change_point([1] * 100) is None
    assert change_point.change_point([]) is None
    assert change_point.change_point([0, 1, 1, 1]) is None
    alarms = 0
    for seed in range(60):
        steady = np.random.default_rng(seed).random(60) < 0.5
        alarms += change_point.change_point(steady.tolist(), permutations=199) is not None
    assert alarms <= 9  # expected 3; more than 9 has a probability of 0.1 %
    with pytest.raises(ResultError):
        change_point.change_point([0, 2.0])


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=10, max_size=60))
def test_the_split_is_the_best_of_all(hits: list[bool]) -> None:
    found = change_point.change_point(hits, confidence=0.5, permutations=99)
    if found is None:
        return

    def fit(part: list[bool]) -> float:
        rate, n = sum(part) / len(part), len(part)
        return sum(n * share * math.log(share) for share in (rate, 1 - rate) if share > 0)

    gains = {index: fit(hits[:index]) + fit(hits[index:]) for index in range(5, len(hits) - 4)}
    assert gains[found.index] == pytest.approx(max(gains.values()))
    assert found.before == pytest.approx(sum(hits[: found.index]) / found.index)


def test_many_requests_are_moved_in_blocks_and_split_exactly() -> None:
    drawn = np.random.default_rng(5).random(30_000)
    found = change_point.change_point((drawn < np.where(np.arange(30_000) < 12_345, 0.3, 0.6)).astype(float))
    assert found is not None
    assert abs(found.index - 12_345) < 100
    assert found.p_value == 0.001
    assert change_point.change_point((drawn < 0.5).astype(float)) is None
