"""Ratios of two treatments by round with their intervals, and tests of difference and equivalence.

A ratio always reads "above 1 is faster". Rounds are what is independent: within a round all treatments see the same
drift, so the log ratio of a round is free of it, and the interval is over rounds. The t intervals and p-values are
those of `scipy.stats.ttest_1samp` and `ttest_ind`, which give NaN or a warning for rounds without spread.
`bench/coverage.py` holds the coverage of these intervals against their confidence by simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import stdtr

from kvbench.analysis.stats.intervals import Centre, centre_of, t_quantile
from kvbench.errors import ResultError
from kvbench.percentile import tail_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["time", "rate"]
Method = Literal["t", "bootstrap", "none"]

FEWEST_ROUNDS = 3  # two give a t quantile of 12.7 on a spread known from one difference
BOOTSTRAP_ROUNDS = 20
TOO_FEW = "too few rounds"  # the word below three: neither a difference nor its absence can be claimed
RESAMPLES = 4999


@dataclass(frozen=True, slots=True)
class RatioFigure:
    """The ratio of two arms over their rounds: the geometric mean of the rounds' ratios, above 1 is faster.

    `logs` are the rounds' log ratios, `sd_log` their standard deviation, `left_out` the rounds that one arm lacks.
    Below three rounds there is no interval; `refusal` says so.
    """

    rounds: int
    ratio: float | None
    low: float | None
    high: float | None
    confidence: float
    method: Method
    p_value: float | None
    sd_log: float | None
    logs: tuple[float, ...]
    left_out: tuple[int, ...]
    refusal: str | None


@dataclass(frozen=True, slots=True)
class SampleFigure:
    """The ratio of two arms whose rounds are not pairs: of their geometric means over rounds, above 1 is faster.

    `rounds` are those of the baseline and of the treatment, `error` the standard error of the log ratio and `freedom`
    its degrees of freedom. With fewer than three rounds on a side there is no interval; `refusal` says so.
    """

    rounds: tuple[int, int]
    ratio: float | None
    low: float | None
    high: float | None
    confidence: float
    p_value: float | None
    error: float | None
    freedom: float | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two one-sided tests: the 90 % interval, whether it lies within the margin, and the larger of the p-values."""

    margin: float
    low: float | None
    high: float | None
    p_value: float | None
    shown: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """`faster`, `slower`, `no difference shown`, `equivalent within x %` or `too few rounds`, and the reason."""

    word: str
    reason: str


def ratio_by_round(
    baseline: Mapping[int, Sequence[float]],
    treatment: Mapping[int, Sequence[float]],
    *,
    centre: Centre = "median",
    kind: Kind = "time",
    confidence: float = 0.95,
    seed: int = 0,
) -> RatioFigure:
    """Return how much faster the treatment is than the baseline, with an interval over rounds.

    Formula: per round d = log(centre of baseline / centre of treatment) for times, its negative for rates; the ratio is
    exp(mean d), the interval that of `log_interval`. The p-value is that of the paired t test of mean d = 0.
    The centre within a round is the median unless told otherwise: one stalled request must not move a round, and it
    stays what it is under any monotone rescaling. The geometric mean has a third less variance where times are
    lognormal without stalls; the mean is for totals. Where turns of a conversation are alike, pass the values of
    `intervals.by_unit`.
    Source: Kalibera and Jones, ISMM 2013 (repeat where the variation is); paired t: Student, Biometrika 6 (1908) 1.
    """
    both = [number for number in sorted(baseline) if baseline[number] and treatment.get(number)]
    sign = 1.0 if kind == "time" else -1.0
    logs = tuple(
        sign * (_log_centre(baseline[number], centre) - _log_centre(treatment[number], centre)) for number in both
    )
    left_out = tuple(sorted({*baseline, *treatment} - {*both}))
    return figure_of(logs, confidence=confidence, seed=seed, left_out=left_out)


def figure_of(
    logs: Sequence[float], *, confidence: float = 0.95, seed: int = 0, left_out: tuple[int, ...] = ()
) -> RatioFigure:
    """Return the figure of log ratios that are already there, one for each round."""
    rounds, kept = len(logs), tuple(logs)
    ratio = math.exp(float(np.mean(kept))) if kept else None
    sd = float(np.std(kept, ddof=1)) if rounds > 1 else None
    if rounds < FEWEST_ROUNDS:
        refusal = f"n/a (rounds={rounds} < {FEWEST_ROUNDS})"
        return RatioFigure(rounds, ratio, None, None, confidence, "none", None, sd, kept, left_out, refusal)
    low, high, method = log_interval(kept, confidence, seed)
    p_value = 2 * _t_tail(kept, 0.0)
    return RatioFigure(
        rounds, ratio, math.exp(low), math.exp(high), confidence, method, p_value, sd, kept, left_out, None
    )


def ratio_of_samples(
    baseline: Mapping[int, Sequence[float]],
    treatment: Mapping[int, Sequence[float]],
    *,
    centre: Centre = "median",
    kind: Kind = "time",
    confidence: float = 0.95,
) -> SampleFigure:
    """Return how much faster the treatment is than the baseline where their rounds were not made side by side.

    Formula: with a and b the logs of the rounds' centres, d = mean a - mean b for times, its negative for rates; the
    ratio is exp(d), the interval d +- t(f) se with se^2 = var a / m + var b / n and f by Welch and Satterthwaite. What
    drifted between the two is in d: nothing but the noise floor speaks of it.
    Source: Welch, Biometrika 34 (1947) 28.
    """
    logs = [np.array([_log_centre(arm[n], centre) for n in sorted(arm) if arm[n]]) for arm in (baseline, treatment)]
    sizes = (len(logs[0]), len(logs[1]))
    if not all(sizes):
        return SampleFigure(sizes, None, None, None, confidence, None, None, None, "n/a (no round)")
    middle = (1.0 if kind == "time" else -1.0) * float(logs[0].mean() - logs[1].mean())
    if min(sizes) < FEWEST_ROUNDS:
        refusal = f"n/a (rounds={min(sizes)} < {FEWEST_ROUNDS})"
        return SampleFigure(sizes, math.exp(middle), None, None, confidence, None, None, None, refusal)
    parts = [float(log.var(ddof=1)) / len(log) for log in logs]
    error = math.sqrt(sum(parts))
    freedom = _welch_freedom(parts, sizes)
    reach = t_quantile(freedom, confidence) * error
    p_value = 2 * _tail(middle, error, freedom)
    ends = (math.exp(middle - reach), math.exp(middle + reach))
    return SampleFigure(sizes, math.exp(middle), *ends, confidence, p_value, error, freedom, None)


def mean_over_rounds(arm: Mapping[int, Sequence[float]], centre: Centre = "median") -> float | None:
    """Return the geometric mean of an arm's rounds: what `ratio_of_samples` divides; None without a round."""
    logs = [_log_centre(values, centre) for values in arm.values() if values]
    return math.exp(float(np.mean(logs))) if logs else None


def _welch_freedom(parts: Sequence[float], sizes: tuple[int, int]) -> float:
    """Return the degrees of freedom of a sum of two variances; without any spread those of the pooled one."""
    weight = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    return sum(parts) ** 2 / weight if weight > 0 else float(sum(sizes) - 2)


def log_interval(logs: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float, Method]:
    """Return the ends of the interval for the mean of at least three log ratios, and its method.

    Formula, 3 to 19 rounds: mean +- t(n - 1) sd / sqrt(n). A percentile bootstrap of so few values is far too narrow
    (its spread is short by sqrt((n - 1) / n), and it uses no t). From 20 rounds on: the bootstrap-t, mean - q sd /
    sqrt(n) with q the quantiles of (mean* - mean) / (sd* / sqrt(n)) over 4,999 resamples, which follows a skewed
    distribution; with 20 skewed rounds it covers more than the percentile and the BCa bootstrap do. Where values repeat
    so much that a resample has no spread, the t interval stays.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, section 12.5.
    """
    array = np.asarray(logs, dtype=float)
    n, mean, sd = len(array), float(array.mean()), float(array.std(ddof=1))
    if n < FEWEST_ROUNDS:
        raise ResultError(f"{n} rounds have no interval", f"Run at least {FEWEST_ROUNDS} rounds: set repeats.")
    error, tail = sd / math.sqrt(n), tail_of(confidence)
    if n >= BOOTSTRAP_ROUNDS and sd > 0:
        drawn = array[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))]
        spread = drawn.std(axis=1, ddof=1)
        if spread.min() > 1e-9 * sd:
            below, above = np.quantile((drawn.mean(axis=1) - mean) / (spread / math.sqrt(n)), [tail, 1 - tail])
            return mean - float(above) * error, mean - float(below) * error, "bootstrap"
    reach = t_quantile(n - 1, confidence) * error
    return mean - reach, mean + reach, "t"


def equivalent(figure: RatioFigure | SampleFigure, margin: float = 0.05, seed: int = 0) -> Equivalence:
    """Return whether two arms are equivalent within a margin: two one-sided tests at 5 %.

    Formula: shown if the 90 % interval of the log ratio lies inside [-log(1 + margin), log(1 + margin)], so that
    "faster by" and "slower by" mean the same factor. The p-value is the larger of the two one-sided t tests.
    Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657.
    """
    if margin <= 0:
        raise ValueError(f"a margin is above 0, not {margin:g}")
    if figure.ratio is None or figure.low is None:
        return Equivalence(margin, None, None, None, shown=False)
    edge, mean = math.log1p(margin), math.log(figure.ratio)
    if isinstance(figure, RatioFigure):
        low, high, _ = log_interval(figure.logs, 0.9, seed)
        tails = [_t_tail(figure.logs, end) for end in (-edge, edge)]
    else:
        error, freedom = figure.error or 0.0, figure.freedom or 1.0
        reach = t_quantile(freedom, 0.9) * error
        low, high = mean - reach, mean + reach
        tails = [_tail(mean - end, error, freedom) for end in (-edge, edge)]
    p_value = max(tails) if -edge < mean < edge else 1.0
    return Equivalence(margin, math.exp(low), math.exp(high), p_value, shown=-edge < low and high < edge)


def noise_floor(same: RatioFigure) -> float:
    """Return the factor below which no difference is claimed, from the baseline against itself (A/A).

    It is the end of the A/A interval that is farther from 1: as much as the set-up may differ from itself. With fewer
    than three rounds, the largest ratio that was seen.
    """
    if not same.logs:
        raise ResultError(
            "the baseline was never measured against itself", "Add a second arm that equals the baseline."
        )
    ends = (same.low, same.high) if same.low and same.high else [math.exp(log) for log in same.logs]
    return max(max(end, 1 / end) for end in ends)


def compare_ratio(
    figure: RatioFigure | SampleFigure, margin: float | None = 0.05, floor: float = 1.0, adjusted_p: float | None = None
) -> Comparison:
    """Return what a ratio permits to say.

    Equivalence within the margin comes first, because the user said that less does not matter; it needs a noise floor
    inside the margin. A difference needs an interval without 1, a ratio beyond the noise floor and, where several
    treatments meet one baseline, a Holm-adjusted p-value (`holm`) of at most 1 - confidence. All else is "no difference
    shown", which does not say that there is none.
    """
    nothing, words = "no difference shown", f"{100 * figure.confidence:g} % interval"
    if figure.ratio is None or figure.low is None or figure.high is None:
        rounds = figure.rounds if isinstance(figure, RatioFigure) else min(figure.rounds)
        return Comparison(TOO_FEW, f"no interval below {FEWEST_ROUNDS} rounds (n={rounds})")
    differs = figure.low > 1 or figure.high < 1
    if margin is not None and floor <= 1 + margin and equivalent(figure, margin).shown:
        also = f"; the {words} excludes 1, but inside the margin" if differs else ""
        return Comparison(
            f"equivalent within {100 * margin:g} %", f"the 90 % interval lies within {100 * margin:g} %{also}"
        )
    if not differs:
        return Comparison(nothing, f"the {words} contains 1")
    if max(figure.ratio, 1 / figure.ratio) <= floor:
        return Comparison(nothing, f"the baseline differs from itself by up to {floor:.3g}x")
    if adjusted_p is not None and adjusted_p > 1 - figure.confidence:
        return Comparison(nothing, f"among several treatments p is {adjusted_p:.2g} (Holm)")
    return Comparison("faster" if figure.ratio > 1 else "slower", f"the {words} excludes 1")


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for many treatments against one baseline, in the order given.

    Formula: with p(1) <= ... <= p(m), adjusted p(i) = max over j <= i of min(1, (m - j + 1) p(j)). For intervals that
    hold together, ask `ratio_by_round` for confidence 1 - 0.05 / m (Bonferroni; wider than Holm needs, never wrong).
    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError("a p-value lies between 0 and 1")
    adjusted, running, m = [0.0] * len(p_values), 0.0, len(p_values)
    for place, index in enumerate(sorted(range(m), key=lambda number: p_values[number])):
        running = max(running, min(1.0, (m - place) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _log_centre(values: Sequence[float], centre: Centre) -> float:
    middle = centre_of(values, centre)
    if middle <= 0:
        raise ResultError(
            f"a ratio needs values above zero, and a round's {centre} is {middle:g}",
            "Look for a request with a wrong clock, or compare a figure that cannot be zero.",
        )
    return math.log(middle)


def _t_tail(logs: Sequence[float], hypothesis: float) -> float:
    """Return the one-sided p-value of a t test of the mean against a value, on the side on which the mean lies."""
    away, sd = float(np.mean(logs)) - hypothesis, float(np.std(logs, ddof=1))
    return _tail(away, sd / math.sqrt(len(logs)), len(logs) - 1)


def _tail(away: float, error: float, freedom: float) -> float:
    """Return the one-sided p-value of a distance with this standard error."""
    if error == 0:
        return 0.5 if away == 0 else 0.0
    return float(stdtr(freedom, -abs(away) / error))
