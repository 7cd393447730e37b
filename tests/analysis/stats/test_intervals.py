"""Percentiles, units and influence against hand-made and exactly computed values."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from kvbench.analysis.stats import intervals
from kvbench.errors import ResultError
from kvbench.percentile import needed_n

TIMES = st.floats(min_value=1e-3, max_value=1e3)


@pytest.mark.parametrize(
    ("percentile", "one", "two"),
    [(95, 59, 72), (99, 299, 368), (50, 5, 6), (90, 29, 36), (5, 59, 72), (1, 299, 368), (99.9, 2995, 3688)],
)
def test_needed_n(percentile: float, one: int, two: int) -> None:
    assert needed_n(percentile, two_sided=False) == one
    assert needed_n(percentile) == two


@pytest.mark.parametrize("percentile", [50, 75, 90, 95])
@pytest.mark.parametrize("confidence", [Fraction(9, 10), Fraction(95, 100), Fraction(99, 100)])
def test_needed_n_is_the_smallest_that_the_binomial_allows(percentile: int, confidence: Fraction) -> None:
    p, alpha = Fraction(percentile, 100), 1 - confidence
    for two_sided, tail in ((False, alpha), (True, alpha / 2)):
        n = needed_n(percentile, float(confidence), two_sided=two_sided)
        assert p**n <= tail < p ** (n - 1)


def exact_ranks(n: int, p: Fraction, tail: Fraction) -> tuple[int, int]:
    """Both ranks from the binomial in whole-number arithmetic, by their definition."""
    terms = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    low = max(rank for rank in range(n + 1) if sum(terms[:rank]) <= tail)
    high = min(rank for rank in range(1, n + 2) if sum(terms[rank:]) <= tail)
    return low, high


@pytest.mark.parametrize(("n", "percentile"), [(6, 50), (60, 50), (60, 90), (72, 95), (100, 95), (368, 99)])
def test_order_statistics_against_exact_arithmetic(n: int, percentile: int) -> None:
    low, high = exact_ranks(n, Fraction(percentile, 100), Fraction(25, 1000))
    figure = intervals.percentile_interval(range(1, n + 1), percentile)
    assert (figure.low, figure.high) == (low, high)
    assert figure.bound == "two-sided"
    assert figure.note is None


def test_ranks_of_sixty_values_by_hand() -> None:
    """Tables of the sign test give 22 and 39 for the median of 60 values."""
    figure = intervals.percentile_interval(range(1, 61), 50)
    assert (figure.low, figure.value, figure.high) == (22, 30.5, 39)


def test_between_the_two_limits_there_is_one_bound_and_it_is_said() -> None:
    values = list(range(1, 61))
    figure = intervals.percentile_interval(values, 95)
    assert (figure.bound, figure.low, figure.high, figure.refusal) == ("upper", None, 60, None)
    assert figure.value == pytest.approx(57.05)
    assert figure.note == "upper 95 % bound only (n=60 < 72)"
    mirrored = intervals.percentile_interval(values, 5)
    assert (mirrored.bound, mirrored.low, mirrored.high) == ("lower", 1, None)


def test_a_refusal_has_no_number() -> None:
    figure = intervals.percentile_interval([0.1] * 16, 99)
    assert figure.refusal == figure.note == "n/a (n=16 < 299)"
    assert (figure.value, figure.low, figure.high, figure.bound) == (None, None, None, "none")
    assert figure.needed_n == 368
    assert intervals.percentile_interval([], 50).refusal == "n/a (n=0 < 5)"


@given(st.integers(0, 400), st.sampled_from([50, 90, 95, 99]))
def test_refused_exactly_below_the_needed_n(n: int, percentile: int) -> None:
    figure = intervals.percentile_interval(range(n), percentile)
    assert (figure.refusal is not None) == (n < needed_n(percentile, two_sided=False))
    assert (figure.bound == "two-sided") == (n >= needed_n(percentile))


@given(st.lists(TIMES, min_size=6, max_size=150), st.sampled_from([25, 50, 90]), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_contains_the_value_and_ignores_order(
    values: list[float], percentile: float, confidence: float
) -> None:
    figure = intervals.percentile_interval(values, percentile, confidence)
    assert figure == intervals.percentile_interval(sorted(values, reverse=True), percentile, confidence)
    if figure.value is not None:
        assert figure.value == pytest.approx(np.percentile(values, percentile))
        assert figure.low is None or figure.low <= figure.value
        assert figure.high is None or figure.value <= figure.high


@given(st.lists(TIMES, min_size=20, max_size=150), st.integers(-10, 10))
def test_scaling_the_values_scales_the_figure(values: list[float], exponent: int) -> None:
    factor = 2.0**exponent  # exact in binary, so the figures must be equal
    plain, scaled = (intervals.percentile_interval([one * by for one in values], 50) for by in (1.0, factor))
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == getattr(plain, name) * factor


@given(st.lists(TIMES, min_size=20, max_size=150))
def test_more_confidence_is_never_narrower(values: list[float]) -> None:
    narrow, wide = (intervals.percentile_interval(values, 50, confidence) for confidence in (0.8, 0.99))
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_bad_input() -> None:
    for wrong in (0, 100, -5):
        with pytest.raises(ValueError, match="percentile"):
            intervals.percentile_interval([1.0], wrong)
    with pytest.raises(ValueError, match="confidence"):
        needed_n(95, 1.0)
    with pytest.raises(ResultError, match="not finite"):
        intervals.percentile_interval([1.0, math.nan], 50)
    with pytest.raises(ResultError, match="2 values have 1 units"):
        intervals.by_unit([1.0, 2.0], ["a"])
    with pytest.raises(ResultError, match="no value"):
        intervals.centre_of([])
    with pytest.raises(ResultError, match="above zero"):
        intervals.centre_of([1.0, 0.0], "geometric")


def test_by_unit_reduces_each_conversation_once() -> None:
    values, units = [1.0, 10.0, 3.0, 20.0, 8.0], ["b", "a", "b", "a", "b"]
    assert intervals.by_unit(values, units) == [3.0, 15.0]
    assert intervals.by_unit(values, units, "mean") == [4.0, 15.0]
    assert intervals.by_unit(values, units, "geometric") == pytest.approx([24 ** (1 / 3), 200**0.5])


def test_mean_by_unit_by_hand() -> None:
    """Three conversations of two alike turns: sums of residuals -4, 0, 4; se^2 = 3/2 * 32 / 36 = 4/3; t(2) = 4.303."""
    figure = intervals.mean_by_unit([1, 1, 3, 3, 5, 5], [1, 1, 2, 2, 3, 3])
    assert figure.value == 3
    assert figure.high is not None
    assert figure.high - 3 == pytest.approx(4.302653 * math.sqrt(4 / 3), rel=1e-6)
    assert figure.design_effect == pytest.approx((4 / 3) / (16 / 5 / 6))


@given(st.lists(TIMES, min_size=3, max_size=40))
def test_units_of_one_request_give_the_ordinary_t_interval(values: list[float]) -> None:
    figure = intervals.mean_by_unit(values, list(range(len(values))))
    if len(set(values)) == 1:
        assert figure.high == pytest.approx(values[0])
        return
    low, high = reference.t.interval(
        0.95, len(values) - 1, loc=statistics.fmean(values), scale=reference.sem(np.array(values))
    )
    assert figure.low == pytest.approx(low, abs=1e-9)
    assert figure.high == pytest.approx(high, abs=1e-9)


def test_repeating_each_request_is_no_more_evidence() -> None:
    values = [float(value) for value in np.random.default_rng(0).lognormal(size=30)]
    units = list(range(30))
    once, tenfold = intervals.mean_by_unit(values, units), intervals.mean_by_unit(values * 10, units * 10)
    assert tenfold.low == pytest.approx(once.low)
    assert tenfold.high == pytest.approx(once.high)
    assert tenfold.design_effect == pytest.approx(10, rel=0.1)
    median, same = intervals.median_by_unit(values, units), intervals.median_by_unit(values * 10, units * 10)
    assert median.low is not None
    assert median.high is not None
    assert same.low == pytest.approx(median.low, rel=0.2)
    assert same.high == pytest.approx(median.high, rel=0.2)
    assert median.low < median.value < median.high


def test_median_by_unit_by_hand() -> None:
    """Ties count half: residuals 0.5 and -0.5, se^2 = 6/5 * 0.5 / 36, t(5) = 2.570582; quantiles of 1 2 2 2 2 3."""
    figure = intervals.median_by_unit([1, 2, 2, 2, 2, 3], list("abcdef"))
    reach = 2.570582 * math.sqrt(6 / 5 * 0.5 / 36)
    assert figure.value == 2
    assert figure.low == pytest.approx(1 + 5 * (0.5 - reach), rel=1e-6)
    assert figure.high == pytest.approx(2 + 5 * (0.5 + reach) - 4, rel=1e-6)


def test_too_few_or_too_different_units_have_no_interval() -> None:
    assert intervals.mean_by_unit([1, 2, 3, 4], [1, 1, 2, 2]).refusal == "n/a (2 units < 3)"
    assert intervals.median_by_unit([1, 2, 3, 4], [1, 2, 3, 4]).refusal == "n/a (4 units < 6)"
    apart = intervals.median_by_unit([1] * 50 + [9] * 50 + [2, 3, 4, 5], [1] * 50 + [2] * 50 + [3, 4, 5, 6])
    assert apart.refusal == "n/a (the 6 units differ too much)"
    assert (apart.low, apart.high) == (None, None)


def test_influence_of_two_requests_of_sixteen() -> None:
    """The published table: mean 0.687 s, P95 4.581 s and P99 6.776 s of 16 turns, read as numpy interpolates them.

    P95 = x15 + 0.25 d and P99 = x15 + 0.85 d give d = 3.658, so the two slowest took 3.666 and 7.325 s: together the
    whole of 16 * 0.687 s. Here the other 14 have a short time each.
    """
    d = (6.776 - 4.581) / 0.6
    slow = 4.581 - 0.25 * d
    values = [0.02] * 14 + [slow, slow + d]
    assert np.percentile(values, [95, 99]) == pytest.approx([4.581, 6.776])
    figure = intervals.influence(values)
    assert figure.fewest == 1
    assert figure.sentence == "one request makes up 65 % of the mean"
    assert (slow + slow + d) / (16 * 0.687) == pytest.approx(1, abs=0.001)


def test_influence_sentences() -> None:
    two = intervals.influence([1.0] * 10 + [21.0, 21.5])
    assert (two.fewest, two.sentence) == (2, "two requests make up 81 % of the mean")
    assert intervals.influence([1.0] * 12).sentence is None
    assert intervals.influence([1.0, 1.0, 1.0, 9.0]).sentence is None  # of four, one is no surprise
    with pytest.raises(ResultError):
        intervals.influence([0.0, 0.0])


@given(st.lists(TIMES, min_size=1, max_size=40))
def test_influence_is_the_smallest_number(values: list[float]) -> None:
    figure, ordered = intervals.influence(values), sorted(values, reverse=True)
    assert sum(ordered[: figure.fewest]) > sum(values) / 2 * (1 - 1e-12)
    assert sum(ordered[: figure.fewest - 1]) <= sum(values) / 2 * (1 + 1e-12)


@given(st.integers(72, 3000), st.sampled_from([50, 90, 95]))
def test_the_interval_is_that_of_scipys_quantile_test(n: int, percentile: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    figure = intervals.percentile_interval(values, percentile)
    ends = reference.quantile_test(values, q=1.0, p=percentile / 100).confidence_interval(0.95)
    assert (figure.low, figure.high) == (ends.low, ends.high)


def test_units_may_be_numbers_of_an_array() -> None:
    values = np.array([1.0, 10.0, 3.0, 20.0, 8.0])
    assert intervals.by_unit(values, np.array([7, 2, 7, 2, 7])) == [3.0, 15.0]
    pairs = [("a", 1), ("a", 2), ("a", 1), ("a", 2), ("a", 1)]
    assert intervals.by_unit(values, pairs) == [3.0, 15.0]
