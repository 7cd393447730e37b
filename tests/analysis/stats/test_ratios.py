"""Ratios by round, equivalence, what may be said and Holm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from kvbench.analysis.stats import ratios
from kvbench.errors import ResultError

LOGS = st.lists(st.floats(min_value=-2, max_value=2), min_size=3, max_size=19)


def figure(*values: float) -> ratios.RatioFigure:
    return ratios.figure_of([math.log(value) for value in values])


def test_ratio_by_hand() -> None:
    """Log ratios log 2, log 4, log 8: mean log 4, sd log 2, se log 2 / sqrt 3, t(2) = 4.302653."""
    baseline = {1: [2.0, 2.0, 90.0], 2: [4.0], 3: [8.0]}
    treatment = {1: [1.0], 2: [1.0], 3: [1.0, 1.0]}
    found = ratios.ratio_by_round(baseline, treatment)
    assert found.ratio == pytest.approx(4)
    reach = 2 ** (4.302653 / math.sqrt(3))
    assert found.low == pytest.approx(4 / reach, rel=1e-5)
    assert found.high == pytest.approx(4 * reach, rel=1e-5)
    assert (found.method, found.rounds, found.left_out, found.refusal) == ("t", 3, (), None)
    assert found.sd_log == pytest.approx(math.log(2))
    assert found.p_value == pytest.approx(reference.ttest_1samp(found.logs, 0).pvalue)


def test_rates_are_turned_round_and_centres_differ() -> None:
    slow, fast = {n: [1.0, 1.0, 4.0] for n in range(3)}, {n: [2.0] for n in range(3)}
    assert ratios.ratio_by_round(slow, fast, kind="rate").ratio == pytest.approx(2)
    assert ratios.ratio_by_round(slow, fast, kind="rate", centre="mean").ratio == pytest.approx(1)
    assert ratios.ratio_by_round(slow, fast, centre="geometric").ratio == pytest.approx(4 ** (1 / 3) / 2)


def test_rounds_that_one_arm_lacks_are_named() -> None:
    found = ratios.ratio_by_round({1: [2.0], 2: [2.0], 3: [], 5: [1.0]}, {1: [1.0], 2: [1.0], 3: [1.0], 4: [1.0]})
    assert (found.rounds, found.left_out) == (2, (3, 4, 5))
    assert (found.low, found.high, found.method, found.p_value) == (None, None, "none", None)
    assert found.refusal == "n/a (rounds=2 < 3)"
    assert found.ratio == pytest.approx(2)
    assert ratios.ratio_by_round({}, {}).ratio is None


def test_values_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ResultError, match="above zero"):
        ratios.ratio_by_round({1: [0.0]}, {1: [1.0]})


@given(LOGS)
def test_swapping_the_arms_inverts_the_figure(logs: list[float]) -> None:
    there = ratios.figure_of(logs)
    back = ratios.figure_of([-log for log in logs])
    assert there.low is not None
    assert there.high is not None
    assert there.ratio is not None
    assert back.low == pytest.approx(1 / there.high)
    assert back.high == pytest.approx(1 / there.low)
    assert there.low <= there.ratio * (1 + 1e-12)
    assert there.ratio <= there.high * (1 + 1e-12)


@given(LOGS)
def test_more_confidence_is_wider_and_holds_the_narrower(logs: list[float]) -> None:
    narrow, wide = ratios.log_interval(logs, 0.8), ratios.log_interval(logs, 0.99)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=10), st.lists(st.floats(-3, 3), min_size=10, max_size=10))
def test_drift_common_to_a_round_changes_nothing(times: list[float], drift: list[float]) -> None:
    baseline = dict(enumerate([time] for time in times))
    treatment = {n: [1.0 + 0.1 * n] for n in baseline}
    drifted = [{n: [math.exp(drift[n]) * one for one in arm[n]] for n in arm} for arm in (baseline, treatment)]
    still, moved = ratios.ratio_by_round(baseline, treatment), ratios.ratio_by_round(*drifted)
    assert still.logs == pytest.approx(moved.logs, abs=1e-9)


def test_bootstrap_from_twenty_rounds_on_is_seeded_and_near_the_t_interval() -> None:
    logs = np.random.default_rng(5).normal(0.2, 0.1, 20).tolist()
    assert ratios.figure_of(logs[:19]).method == "t"
    found = ratios.log_interval(logs, seed=1)
    assert found == ratios.log_interval(logs, seed=1)
    assert found != ratios.log_interval(logs, seed=2)
    expected = reference.t.interval(0.95, 19, loc=np.mean(logs), scale=reference.sem(logs))
    assert found[2] == "bootstrap"
    assert found[0] == pytest.approx(expected[0], abs=0.015)
    assert found[1] == pytest.approx(expected[1], abs=0.015)


def test_a_long_tail_pulls_the_bootstrap_interval_to_its_side() -> None:
    logs = np.random.default_rng(6).exponential(1, 40).tolist()
    low, high, method = ratios.log_interval(logs)
    assert method == "bootstrap"
    assert high - np.mean(logs) > np.mean(logs) - low


def test_rounds_without_spread() -> None:
    same = ratios.figure_of([0.5] * 4)
    assert (same.low, same.high, same.p_value) == (math.exp(0.5), math.exp(0.5), 0.0)
    assert ratios.figure_of([0.0] * 3).p_value == 1.0
    assert ratios.log_interval([0.0] * 24 + [1.0])[2] == "t"  # resamples without any spread are likely
    with pytest.raises(ResultError, match="2 rounds have no interval"):
        ratios.log_interval([0.1, 0.2])


def test_equivalence_is_the_ninety_percent_interval_inside_the_margin() -> None:
    close = figure(1.01, 0.99, 1.0, 1.005, 0.995)
    found = ratios.equivalent(close)
    low, high = reference.t.interval(0.9, 4, loc=np.mean(close.logs), scale=reference.sem(close.logs))
    assert found.low == pytest.approx(math.exp(low))
    assert found.high == pytest.approx(math.exp(high))
    assert found.shown
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert not ratios.equivalent(figure(1.2, 0.85, 1.1, 0.95, 1.0)).shown
    beyond = ratios.equivalent(figure(1.10, 1.11, 1.09))
    assert (beyond.shown, beyond.p_value) == (False, 1.0)
    assert not ratios.equivalent(figure(1.0, 1.0)).shown


@given(LOGS, st.floats(0.01, 1))
def test_equivalence_agrees_with_its_two_tests_and_with_the_inverse(logs: list[float], margin: float) -> None:
    found = ratios.equivalent(ratios.figure_of(logs), margin)
    edge = math.log1p(margin)
    if np.ptp(logs) > 1e-6:
        upper = float(reference.ttest_1samp(logs, edge, alternative="less").pvalue)
        lower = float(reference.ttest_1samp(logs, -edge, alternative="greater").pvalue)
        if abs(max(upper, lower) - 0.05) > 1e-6:
            assert found.shown == (max(upper, lower) < 0.05)
        if abs(np.mean(logs)) < edge:
            assert found.p_value == pytest.approx(max(upper, lower), abs=1e-9)
    assert found.shown == ratios.equivalent(ratios.figure_of([-log for log in logs]), margin).shown


@pytest.mark.parametrize(
    ("values", "options", "word", "reason"),
    [
        ((2.0, 2.1, 1.9), {}, "faster", "the 95 % interval excludes 1"),
        ((0.5, 0.52, 0.48), {}, "slower", "the 95 % interval excludes 1"),
        ((1.3, 0.8, 1.1), {}, "no difference shown", "the 95 % interval contains 1"),
        ((1.01, 0.99, 1.0, 1.0), {}, "equivalent within 5 %", "the 90 % interval lies within 5 %"),
        (
            (1.02, 1.021, 1.019),
            {},
            "equivalent within 5 %",
            "the 90 % interval lies within 5 %; the 95 % interval excludes 1, but inside the margin",
        ),
        ((1.02, 1.021, 1.019), {"margin": None}, "faster", "the 95 % interval excludes 1"),
        ((1.02, 1.021, 1.019), {"margin": 0.01}, "faster", "the 95 % interval excludes 1"),
        ((1.1, 1.11, 1.09), {"floor": 1.153}, "no difference shown", "the baseline differs from itself by up to 1.15x"),
        ((0.9, 0.91, 0.89), {"floor": 1.153}, "no difference shown", "the baseline differs from itself by up to 1.15x"),
        ((1.001, 0.999, 1.0), {"floor": 1.153}, "no difference shown", "the 95 % interval contains 1"),
        ((2.0, 2.1, 1.9), {"adjusted_p": 0.06}, "no difference shown", "among several treatments p is 0.06 (Holm)"),
        ((2.0, 2.1), {}, "too few rounds", "no interval below 3 rounds (n=2)"),
    ],
)
def test_what_may_be_said(values: tuple[float, ...], options: dict[str, float | None], word: str, reason: str) -> None:
    said = ratios.compare_ratio(figure(*values), **options)  # type: ignore[arg-type]
    assert (said.word, said.reason) == (word, reason)


def test_the_noise_floor_is_the_farther_end() -> None:
    same = figure(1.02, 0.97, 1.01)
    assert same.low is not None
    assert same.high is not None
    assert ratios.noise_floor(same) == pytest.approx(max(same.high, 1 / same.low))
    assert ratios.noise_floor(figure(8.15 / 9.40)) == pytest.approx(9.40 / 8.15)
    with pytest.raises(ResultError, match="against itself"):
        ratios.noise_floor(ratios.figure_of([]))


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06."""
    assert ratios.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ratios.holm([0.9, 0.8]) == [1.0, 1.0]
    assert ratios.holm([]) == []
    with pytest.raises(ValueError, match="p-value"):
        ratios.holm([1.1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(p_values: list[float]) -> None:
    adjusted = ratios.holm(p_values)
    for plain, after in zip(p_values, adjusted, strict=True):
        assert plain <= after <= min(1.0, len(p_values) * plain) or after == pytest.approx(max(adjusted))
    by_plain = [after for _, after in sorted(zip(p_values, adjusted, strict=True))]
    assert by_plain == sorted(by_plain)


def test_two_samples_by_hand() -> None:
    """Welch's interval of the logs, as scipy gives it for unequal variances."""
    base, other = (
        {n: [value, value, 90.0] for n, value in enumerate((1.0, 1.1, 0.9, 1.05), 1)},
        {n: [value] for n, value in enumerate((1.5, 1.7, 1.4), 5)},
    )
    found = ratios.ratio_of_samples(base, other)
    logs = [np.log([1.0, 1.1, 0.9, 1.05]), np.log([1.5, 1.7, 1.4])]
    expected = reference.ttest_ind(logs[0], logs[1], equal_var=False)
    ends = expected.confidence_interval(0.95)
    assert found.ratio == pytest.approx(math.exp(logs[0].mean() - logs[1].mean()))
    assert [found.low, found.high] == pytest.approx([math.exp(ends.low), math.exp(ends.high)])
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.rounds, found.refusal) == ((4, 3), None)
    rate = ratios.ratio_of_samples(base, other, kind="rate")
    assert rate.ratio == pytest.approx(1 / (found.ratio or 0))
    assert ratios.compare_ratio(found).word == "slower"
    assert ratios.compare_ratio(rate).word == "faster"


@pytest.mark.parametrize(
    ("rounds", "refusal"), [((2, 5), "n/a (rounds=2 < 3)"), ((5, 1), "n/a (rounds=1 < 3)"), ((0, 5), "n/a (no round)")]
)
def test_two_samples_with_too_few_rounds_have_no_interval(rounds: tuple[int, int], refusal: str) -> None:
    arms = [{n: [1.0 + 0.1 * n] for n in range(count)} for count in rounds]
    found = ratios.ratio_of_samples(arms[0], arms[1])
    assert (found.low, found.high, found.refusal) == (None, None, refusal)
    assert (found.ratio is None) == (0 in rounds)
    assert ratios.compare_ratio(found).word == "too few rounds"
    assert not ratios.equivalent(found).shown


def test_two_samples_without_spread() -> None:
    same = ratios.ratio_of_samples({n: [2.0] for n in range(3)}, {n: [2.0] for n in range(4)})
    assert (same.ratio, same.low, same.high, same.p_value) == (1.0, 1.0, 1.0, 1.0)
    apart = ratios.ratio_of_samples({n: [2.0] for n in range(3)}, {n: [1.0] for n in range(3)})
    assert [apart.ratio, apart.low, apart.p_value] == pytest.approx([2.0, 2.0, 0.0])


@given(LOGS, LOGS)
def test_swapping_two_samples_inverts_the_figure(one: list[float], other: list[float]) -> None:
    arms = [{n: [math.exp(log)] for n, log in enumerate(logs)} for logs in (one, other)]
    there, back = ratios.ratio_of_samples(arms[0], arms[1]), ratios.ratio_of_samples(arms[1], arms[0])
    assert there.low is not None
    assert there.high is not None
    assert [back.low, back.high] == pytest.approx([1 / there.high, 1 / there.low])
    assert there.p_value == pytest.approx(back.p_value)
    assert ratios.equivalent(there).shown == ratios.equivalent(back).shown


def test_equivalence_of_two_samples_is_two_tests() -> None:
    base, other = [0.0, 0.01, -0.01, 0.005], [0.02, 0.01, 0.015]
    arms = [{n: [math.exp(log)] for n, log in enumerate(logs)} for logs in (base, other)]
    found = ratios.equivalent(ratios.ratio_of_samples(arms[0], arms[1]), 0.05)
    edge = math.log(1.05)
    below = reference.ttest_ind([one - edge for one in base], other, equal_var=False, alternative="less")
    above = reference.ttest_ind([one + edge for one in base], other, equal_var=False, alternative="greater")
    tails = [float(below.pvalue), float(above.pvalue)]
    assert found.p_value == pytest.approx(max(tails))
    assert found.shown
