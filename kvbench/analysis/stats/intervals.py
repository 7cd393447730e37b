"""Percentiles and means of one sample with their intervals, or with the reason why the sample is too small.

Nothing here assumes a shape of the distribution unless its docstring says so, and everything that draws random numbers
takes a seed. Sequences of latencies are autocorrelated, so an interval over requests is only right where requests are
independent; elsewhere the conversation or the prompt is the unit (`by_unit`, `mean_by_unit`, `median_by_unit`).
Comparisons of two arms are in `ratios` (paired by round) and `rank_test` (not paired).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.special import bdtr, bdtrik, stdtrit

from kvbench.errors import ResultError
from kvbench.percentile import needed_n, probability_of, tail_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Values = Sequence[float] | Array
    Units = Sequence[Hashable] | NDArray[np.intp]

Bound = Literal["two-sided", "upper", "lower", "none"]
Centre = Literal["median", "geometric", "mean"]

FEWEST_UNITS = 3  # with two, the t quantile is 12.7 and the interval says nothing
FEWEST_UNITS_MEDIAN = 6  # below, not even the range of independent values covers a median with 95 %


@dataclass(frozen=True, slots=True)
class PercentileFigure:
    """A percentile with its interval, or the reason why there is none.

    `bound` says what the interval is: `two-sided`; only an `upper` or a `lower` bound of the full confidence (n
    supports one side alone, the other end is None); or `none`. `needed_n` is what a two-sided interval needs.
    """

    percentile: float
    n: int
    value: float | None
    low: float | None
    high: float | None
    confidence: float
    bound: Bound
    needed_n: int
    refusal: str | None

    @property
    def note(self) -> str | None:
        """Return the words that must stand beside the figure: the refusal, or that it has one bound only."""
        if self.refusal or self.bound == "two-sided":
            return self.refusal
        return f"{self.bound} {100 * self.confidence:g} % bound only (n={self.n} < {self.needed_n})"


@dataclass(frozen=True, slots=True)
class CentreFigure:
    """A mean or median over requests whose interval counts units, not requests, as independent.

    `design_effect` is the variance by units over the variance by requests: 4 means that n requests are worth n / 4.
    """

    centre: Centre
    n: int
    units: int
    value: float
    low: float | None
    high: float | None
    confidence: float
    design_effect: float | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Influence:
    """How few of the values make up more than half of their sum; `sentence` is None where that is nothing special."""

    n: int
    fewest: int
    share: float
    sentence: str | None


def percentile_interval(values: Values, percentile: float, confidence: float = 0.95) -> PercentileFigure:
    """Return a percentile of independent values with a distribution-free interval, as far as n supports one.

    Formula: with x(1) <= ... <= x(n), the count of values below the percentile is Binomial(n, p), whatever the
    distribution. low = x(l) with the largest l for which P(B <= l - 1) <= alpha / 2, high = x(u) with the smallest u
    for which P(B >= u) <= alpha / 2: each side errs with at most alpha / 2 (the exact, equal-tailed interval). The
    value is that of `percentile.percentile_of`, as numpy gives it.
    Below `needed_n(..., two_sided=False)` all is refused, the value too; from there to `needed_n` only the bound on the
    far side is given, at full confidence: the extreme value.
    Source: Hahn and Meeker, Statistical Intervals, section 5.2.
    """
    ordered, n, p = np.sort(_array(values)), len(values), probability_of(percentile)
    one, two = needed_n(percentile, confidence, two_sided=False), needed_n(percentile, confidence)
    if n < one:
        refusal = f"n/a (n={n} < {one})"
        return PercentileFigure(percentile, n, None, None, None, confidence, "none", two, refusal)
    value = float(np.quantile(ordered, p))
    if n >= two:
        tail = tail_of(confidence)
        low = float(ordered[_low_rank(n, p, tail) - 1])
        high = float(ordered[n - _low_rank(n, 1 - p, tail)])
        return PercentileFigure(percentile, n, value, low, high, confidence, "two-sided", two, None)
    if p >= 0.5:
        return PercentileFigure(percentile, n, value, None, float(ordered[-1]), confidence, "upper", two, None)
    return PercentileFigure(percentile, n, value, float(ordered[0]), None, confidence, "lower", two, None)


def _low_rank(n: int, p: float, tail: float) -> int:
    """Return the largest rank l (from 1) with P(Binomial(n, p) <= l - 1) <= tail; 0 if there is none.

    The rank of the upper end is n + 1 minus this for 1 - p, by symmetry.
    """
    near = float(bdtrik(tail, n, p))  # what `scipy.stats.binom.ppf` does too, which takes a second to import
    rank = 0 if math.isnan(near) else max(math.ceil(near) - 1, 0)
    while bdtr(rank, n, p) < tail:
        rank += 1
    return rank


def centre_of(values: Values, centre: Centre = "median") -> float:
    """Return the median, the geometric mean (of positive values) or the mean."""
    array = _array(values)
    if not len(array):
        raise ResultError("there is no value to take a middle of", "Leave out rounds and units that have no request.")
    if centre == "median":
        return float(np.median(array))
    return float(np.mean(array)) if centre == "mean" else math.exp(float(np.mean(logarithms(array))))


def logarithms(values: Values) -> Array:
    """Return natural logarithms; a value that is not positive has none and is an error."""
    array = _array(values)
    if (array <= 0).any():
        raise ResultError(
            f"a ratio needs values above zero, and one is {array.min():g}",
            "Look for a request with a wrong clock, or compare a figure that cannot be zero.",
        )
    logs: Array = np.log(array)
    return logs


def by_unit(values: Values, units: Units, centre: Centre = "median") -> list[float]:
    """Reduce requests to one value for each conversation or prompt, in the order in which the units first appear.

    Turns of a conversation are alike, so they are not separate evidence; their middle is one independent value.
    """
    array, (index, _) = _array(values), _index_units(values, units)
    if centre == "geometric":
        return [float(value) for value in np.exp(pd.Series(logarithms(array)).groupby(index, sort=False).mean())]
    grouped = pd.Series(array).groupby(index, sort=False)
    return [float(value) for value in (grouped.median() if centre == "median" else grouped.mean())]


def mean_by_unit(values: Values, units: Units, confidence: float = 0.95) -> CentreFigure:
    """Return the mean over requests with an interval in which units, not requests, are independent.

    Formula: mean +- t(J - 1) se, se^2 = J / (J - 1) sum over units of (sum of (value - mean) in the unit)^2 / n^2, for
    J units and n requests: the linearised error of a ratio of sums, so units may differ in size. With units of one
    request it is the ordinary t interval.
    Source: Cochran, Sampling Techniques, 3rd ed., section 9A.2.
    """
    array, (index, count) = _array(values), _index_units(values, units)
    mean = float(array.mean())
    if count < FEWEST_UNITS:
        return _refused("mean", array, count, confidence, FEWEST_UNITS)
    error = _error_by_unit(array - mean, index, count)
    reach = t_quantile(count - 1, confidence) * error
    effect = _design_effect(array - mean, error)
    return CentreFigure("mean", len(array), count, mean, mean - reach, mean + reach, confidence, effect, None)


def median_by_unit(values: Values, units: Units, confidence: float = 0.95) -> CentreFigure:
    """Return the median over requests with an interval in which units, not requests, are independent.

    Formula: the share of values below the median has a standard error by units (as in `mean_by_unit`); the interval
    ends at the quantiles 0.5 +- t(J - 1) se of the values. It needs 6 units, and quantiles that stay inside (0, 1).
    Source: Woodruff, J. Am. Stat. Assoc. 47 (1952) 635.
    """
    array, (index, count) = _array(values), _index_units(values, units)
    if count < FEWEST_UNITS_MEDIAN:
        return _refused("median", array, count, confidence, FEWEST_UNITS_MEDIAN)
    median = float(np.median(array))
    below = (array < median) + 0.5 * (array == median)
    residual = below - below.mean()
    error = _error_by_unit(residual, index, count)
    reach = t_quantile(count - 1, confidence) * error
    effect = _design_effect(residual, error)
    if reach >= 0.5:
        refusal = f"n/a (the {count} units differ too much)"
        return CentreFigure("median", len(array), count, median, None, None, confidence, effect, refusal)
    low, high = np.quantile(array, [0.5 - reach, 0.5 + reach])
    return CentreFigure("median", len(array), count, median, float(low), float(high), confidence, effect, None)


def influence(values: Values) -> Influence:
    """Return how few values make up more than half of a sum; with more than four values, one or two are worth saying.

    Formula: the smallest k for which the k largest of the values (none negative) sum to more than half of the total.
    """
    ordered = np.sort(_array(values))[::-1]
    total = float(ordered.sum())
    if total <= 0 or ordered[-1] < 0:
        raise ResultError("influence needs values that are not negative, and one above zero", "Look at the rows.")
    sums = np.cumsum(ordered)
    fewest = int(np.argmax(sums > total / 2)) + 1
    share = float(sums[fewest - 1]) / total
    sentence = None
    if fewest <= 2 and len(ordered) > 4:
        who = "one request makes" if fewest == 1 else "two requests make"
        sentence = f"{who} up {100 * share:.0f} % of the mean"
    return Influence(len(ordered), fewest, share, sentence)


def _error_by_unit(residual: Array, index: NDArray[np.intp], count: int) -> float:
    """Return the standard error of a mean whose residuals add up within independent units."""
    sums = np.bincount(index, weights=residual)
    return math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(residual)


def _design_effect(residual: Array, error: float) -> float | None:
    plain = float((residual**2).sum()) / (len(residual) - 1) / len(residual)
    return error**2 / plain if plain > 0 else None


def _refused(centre: Centre, array: Array, count: int, confidence: float, fewest: int) -> CentreFigure:
    value = centre_of(array, centre)
    refusal = f"n/a ({count} units < {fewest})"
    return CentreFigure(centre, len(array), count, value, None, None, confidence, None, refusal)


def _index_units(values: Values, units: Units) -> tuple[NDArray[np.intp], int]:
    """Return the number of each value's unit, from 0, and how many units there are; not every number need be one."""
    if len(values) != len(units) or not len(values):
        raise ResultError(
            f"{len(values)} values have {len(units)} units", "Give each request its conversation or prompt."
        )
    if isinstance(units, np.ndarray):
        return units, int(np.count_nonzero(np.bincount(units)))
    index, known = pd.factorize(pd.Index(list(units), dtype=object, tupleize_cols=False))
    return index, len(known)


def t_quantile(freedom: float, confidence: float) -> float:
    """Return how many standard errors a two-sided t interval reaches to each side."""
    return float(stdtrit(freedom, 1 - tail_of(confidence)))


def _array(values: Values) -> Array:
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        raise ResultError("a value is missing or not finite", "Leave failed requests out of latency figures.")
    return array
