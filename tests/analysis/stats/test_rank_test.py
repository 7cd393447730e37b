"""The rank test against enumeration, and the wording of complete separation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from kvbench.analysis.stats import rank_test
from kvbench.errors import ResultError

SMALL = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def enumerated_p(a: list[int], b: list[int]) -> float:
    """Every way to call len(a) of the pooled values A, judged by pairs won."""

    def wins(first: list[int], second: list[int]) -> float:
        return sum((x < y) + 0.5 * (x == y) for x in first for y in second)

    pooled, seen, lower, upper, ways = a + b, wins(a, b), 0, 0, 0
    for chosen in itertools.combinations(range(len(pooled)), len(a)):
        rest = [pooled[place] for place in range(len(pooled)) if place not in chosen]
        found = wins([pooled[place] for place in chosen], rest)
        lower, upper, ways = lower + (found <= seen), upper + (found >= seen), ways + 1
    return min(1.0, 2 * min(lower, upper) / ways)


@settings(max_examples=60)
@given(SMALL, SMALL)
def test_exact_p_equals_enumeration_with_ties(a: list[int], b: list[int]) -> None:
    found = rank_test.rank_test(a, b)
    assert found.p_value == pytest.approx(enumerated_p(a, b))
    assert found.exact
    assert found.p_value >= found.least_p - 1e-12 or len(set(a + b)) < len(a + b)


@given(SMALL, SMALL)
def test_superiority_counts_pairs_and_mirrors(a: list[int], b: list[int]) -> None:
    there, back = rank_test.rank_test(a, b), rank_test.rank_test(b, a)
    share = sum((x < y) + 0.5 * (x == y) for x in a for y in b) / len(a) / len(b)
    assert there.superiority == pytest.approx(share)
    assert back.superiority == pytest.approx(1 - share)
    assert there.low <= there.superiority <= there.high
    assert back.low == pytest.approx(1 - there.high, abs=1e-9)
    assert there.p_value == pytest.approx(back.p_value)


def test_without_ties_it_is_scipys_exact_test() -> None:
    random = np.random.default_rng(8)
    a, b = random.normal(0, 1, 16).tolist(), random.normal(0.8, 1, 14).tolist()
    assert rank_test.rank_test(a, b).p_value == pytest.approx(reference.mannwhitneyu(a, b, method="exact").pvalue)


def test_many_values_use_the_normal_approximation() -> None:
    random = np.random.default_rng(9)
    a, b = random.integers(0, 30, 80).tolist(), random.integers(2, 32, 70).tolist()
    found = rank_test.rank_test(a, b)
    assert not found.exact
    assert found.p_value == pytest.approx(reference.mannwhitneyu(a, b, method="asymptotic").pvalue, rel=1e-6)


def test_complete_separation_is_said() -> None:
    fast, slow = [0.1 + 0.01 * n for n in range(16)], [1.0 + 0.01 * n for n in range(16)]
    found = rank_test.rank_test(fast, slow, names=("g4", "recompute"))
    assert found.sentence == "all 16 of g4 are below all 16 of recompute"
    assert found.superiority == found.high == 1.0
    assert 0.8 < found.low < 1.0
    assert found.p_value == found.least_p == pytest.approx(2 / math.comb(32, 16))
    assert rank_test.rank_test(slow, fast).sentence == "all 16 of A are above all 16 of B"
    assert rank_test.rank_test([1, 2, 3, 9], [4, 5, 6, 7]).sentence == "A is below B in 75 % of 4 x 4 pairs"


def test_three_against_three_cannot_show_anything_and_it_is_said() -> None:
    found = rank_test.rank_test([1, 2, 3], [4, 5, 6])
    assert found.least_p == found.p_value == pytest.approx(0.1)
    assert found.sentence == (
        "all 3 of A are below all 3 of B; so few values cannot show a difference (p is at least 0.1)"
    )


def test_more_confidence_is_wider() -> None:
    narrow, wide = (rank_test.rank_test([1, 3, 5, 7], [2, 6, 8, 9], confidence=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.superiority < narrow.high < wide.high


def test_newcombes_interval_solves_its_equation() -> None:
    found = rank_test.rank_test([1, 3, 5, 7, 4.5], [2, 6, 8, 9])
    m = (5 + 4) / 2 - 1
    for end in (found.low, found.high):
        variance = end * (1 - end) * (1 + m * ((1 - end) / (2 - end) + end / (1 + end))) / 20
        assert abs(found.superiority - end) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)


def test_bad_input() -> None:
    for wrong in ([], [math.nan]):
        with pytest.raises(ResultError, match="rank test"):
            rank_test.rank_test(wrong, [1.0])
    with pytest.raises(ValueError, match="confidence"):
        rank_test.rank_test([1.0], [2.0], confidence=2)
