"""Exact rank test of two small unpaired samples: whether one lies below the other.

Ranks need no shape of the distribution. With very few values even complete separation can be chance, and the least
p-value that the numbers permit is given beside the one that was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy
from scipy.special import ndtri

from kvbench.errors import ResultError
from kvbench.percentile import tail_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST_P = 0.05  # complete separation of so few values that its p-value is larger shows nothing
EXACT_MOST = 100  # values of both arms together; beyond, the normal approximation is as good


@dataclass(frozen=True, slots=True)
class RankFigure:
    """How arm A lies against arm B.

    `superiority` is the probability that a value of A is below one of B, ties counted half, with its interval;
    `least_p` is the p-value of complete separation with these n; `exact` says that `p_value` is no approximation.
    """

    n_a: int
    n_b: int
    superiority: float
    low: float
    high: float
    confidence: float
    p_value: float
    least_p: float
    exact: bool
    sentence: str

    @property
    def is_separate(self) -> bool:
        """Whether all values of one arm lie beyond all of the other, which so few values do not do by chance."""
        return self.superiority in (0.0, 1.0) and self.least_p <= LEAST_P


def rank_test(
    a: Sequence[float], b: Sequence[float], *, names: tuple[str, str] = ("A", "B"), confidence: float = 0.95
) -> RankFigure:
    """Return the Mann-Whitney test of two arms, and the probability that a value of A is below one of B.

    Formula: superiority = (pairs with a < b + half of the ties) / (n_a n_b). The two-sided p-value is twice the smaller
    tail of A's rank sum over all ways to share out the pooled (mid)ranks, exact up to 100 values, ties included;
    beyond, the normal approximation with the correction for ties. Values within an arm must be independent.
    Source: Mann and Whitney, Ann. Math. Statist. 18 (1947) 50; Streitberg and Roehmel, Stat. Softw. Newsl. 12 (1986)
    10.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not len(first) or not len(second) or not np.isfinite([*first, *second]).all():
        raise ResultError("a rank test needs finite values in both arms", "Leave failed requests out.")
    n_a, n_b = len(first), len(second)
    ordered = np.sort(second)
    above = n_b - np.searchsorted(ordered, first, "right")
    level = np.searchsorted(ordered, first, "right") - np.searchsorted(ordered, first, "left")
    superiority = float((above + 0.5 * level).sum()) / (n_a * n_b)
    exact = n_a + n_b <= EXACT_MOST
    ranks = _doubled_ranks(np.concatenate([first, second]))
    p_value = _exact_p(ranks, n_a) if exact else _normal_p(ranks, n_a)
    least_p = min(1.0, 2 / math.comb(n_a + n_b, n_a))
    low, high = _superiority_interval(superiority, n_a, n_b, confidence)
    sentence = _say(first, second, names, superiority, least_p)
    return RankFigure(n_a, n_b, superiority, low, high, confidence, p_value, least_p, exact, sentence)


def _say(a: NDArray[np.float64], b: NDArray[np.float64], names: tuple[str, str], share: float, least_p: float) -> str:
    """Return the sentence for people; it warns where even complete separation would show nothing."""
    if a.max() < b.min() or b.max() < a.min():
        side = "below" if a.max() < b.min() else "above"
        text = f"all {len(a)} of {names[0]} are {side} all {len(b)} of {names[1]}"
    else:
        text = f"{names[0]} is below {names[1]} in {100 * share:.0f} % of {len(a)} x {len(b)} pairs"
    if least_p <= LEAST_P:
        return text
    return f"{text}; so few values cannot show a difference (p is at least {least_p:.2g})"


def _doubled_ranks(pooled: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return twice the midranks, which are whole numbers."""
    ordered = np.sort(pooled)
    ranks: NDArray[np.int64] = np.searchsorted(ordered, pooled, "left") + np.searchsorted(ordered, pooled, "right") + 1
    return ranks


def _exact_p(ranks: NDArray[np.int64], n_a: int) -> float:
    """Count, by the shift algorithm, the choices of n_a ranks that reach each sum."""
    total = int(ranks.sum())
    ways = np.zeros((n_a + 1, total + 1))
    ways[0, 0] = 1
    for rank in map(int, ranks):
        ways[1:, rank:] += ways[:-1, : total + 1 - rank].copy()
    seen, share = int(ranks[:n_a].sum()), ways[n_a] / ways[n_a].sum()
    return min(1.0, 2 * float(min(share[: seen + 1].sum(), share[seen:].sum())))


def _normal_p(ranks: NDArray[np.int64], n_a: int) -> float:
    """Use the mean and the variance that the rank sum has over all ways to share out these ranks, and continuity."""
    n, n_b = len(ranks), len(ranks) - n_a
    away = abs(float(ranks[:n_a].sum()) - n_a * float(ranks.mean()))
    variance = n_a * n_b / n * float(ranks.var(ddof=1))
    return math.erfc(max(0.0, away - 1) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _superiority_interval(share: float, n_a: int, n_b: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a probability of superiority; it also exists for complete separation.

    Formula: the ends are the t with |share - t| = z sqrt(V(t)), V(t) = t (1 - t) (1 + m ((1 - t) / (2 - t) +
    t / (1 + t))) / (n_a n_b), m = (n_a + n_b) / 2 - 1. Source: Newcombe, Stat. Med. 25 (2006) 559, method 5.
    """
    z, m = float(ndtri(1 - tail_of(confidence))), (n_a + n_b) / 2 - 1

    def excess(t: float) -> float:
        """Return by how much the squared distance from the estimate exceeds what the variance at t allows."""
        variance = t * (1 - t) * (1 + m * ((1 - t) / (2 - t) + t / (1 + t))) / (n_a * n_b)
        return (share - t) ** 2 - z**2 * variance

    nothing = 1e-12  # at 0 and 1 the variance is 0, and the estimate itself would be the root
    low = float(scipy.optimize.brentq(excess, 0.0, share - nothing, xtol=1e-15)) if share > 0 else 0.0
    high = float(scipy.optimize.brentq(excess, share + nothing, 1.0, xtol=1e-15)) if share < 1 else 1.0
    return low, high
