"""How many rounds a comparison needs to show an effect, and which effect a number of rounds can show."""

from __future__ import annotations

import bisect
import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import scipy
from scipy.special import gammaincinv, ndtr

from kvbench.analysis.stats.intervals import t_quantile
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def power_of(sd_log: float, effect: float, rounds: int, alpha: float = 0.05) -> float:
    """Return the probability that a paired t test over so many rounds shows a difference of `effect` (0.05 is 5 %).

    Formula: with shift = |log(1 + effect)| / sd_log * sqrt(n) and c = t(1 - alpha / 2, n - 1), power = P(|T| > c) for
    the noncentral T = (Z + shift) / S, S^2 = chi2(n - 1) / (n - 1). That is the mean of Phi(shift - c S) +
    Phi(-shift - c S), integrated over the quantiles of S; scipy's nctdtr is NaN for some shifts.
    Source: Cohen, Statistical Power Analysis, 2nd ed., chapter 2.
    """
    if sd_log < 0 or effect <= -1:
        raise ValueError("a standard deviation is not negative, and an effect is above -1")
    if rounds < FEWEST_ROUNDS or effect == 0:
        return 0.0 if rounds < FEWEST_ROUNDS else alpha
    if sd_log == 0:
        return 1.0
    shift = abs(math.log1p(effect)) / sd_log * math.sqrt(rounds)
    points, weights = _quadrature()
    spread = np.sqrt(gammaincinv((rounds - 1) / 2, (points + 1) / 2) * 2 / (rounds - 1))
    limit = t_quantile(rounds - 1, 1 - alpha) * spread
    return float(weights @ (ndtr(shift - limit) + ndtr(-shift - limit))) / 2


@functools.cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points and weights that integrate over [-1, 1]; the power is then right to 1e-5."""
    points, weights = np.polynomial.legendre.leggauss(100)
    return points, weights


def rounds_needed(
    sd_log: float, effect: float, power: float = 0.8, alpha: float = 0.05, most: int = 10_000
) -> int | None:
    """Return the fewest rounds (at least 3) that show a difference of `effect` with this power; None above `most`.

    `sd_log` is the standard deviation of the rounds' log ratios, as a pilot gave it in `RatioFigure.sd_log`. Where it
    came from few rounds it is itself uncertain: from 5, by a factor between 0.6 and 2.9.
    """
    if power_of(sd_log, effect, most, alpha) < power:
        return None
    counts = range(FEWEST_ROUNDS, most)
    place = bisect.bisect_left(counts, True, key=lambda rounds: power_of(sd_log, effect, rounds, alpha) >= power)  # noqa: FBT003
    return FEWEST_ROUNDS + place


def detectable_effect(sd_log: float, rounds: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Return the smallest difference (0.05 is 5 %) that so many rounds show with this power; None below 3 rounds."""
    if rounds < FEWEST_ROUNDS:
        return None
    if sd_log == 0:
        return 0.0

    def surplus(effect: float) -> float:
        return power_of(sd_log, effect, rounds, alpha) - power

    high = 1e-6
    while surplus(high) < 0:
        high *= 2
    return float(scipy.optimize.brentq(surplus, high / 2, high, rtol=1e-9)) if surplus(high / 2) < 0 else high
