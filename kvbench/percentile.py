"""A percentile of measured values, and how many values it needs: one rule of each, without numpy, for a run too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile_of(values: Sequence[float], percentile: float) -> float:
    """Return a percentile of one value or more.

    Formula: of x(1) <= ... <= x(n) the value at rank 1 + (n - 1) p, interpolated between its neighbours (Hyndman and
    Fan's type 7), which is numpy's default; rounded as numpy does, so that both give the same number.
    Source: Hyndman and Fan, Am. Stat. 50 (1996) 361.
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * probability_of(percentile)
    below = ordered[math.floor(place)]
    above = ordered[min(math.floor(place) + 1, len(ordered) - 1)]
    share = place - math.floor(place)
    return below + (above - below) * share if share < 0.5 else above - (above - below) * (1 - share)


def needed_n(percentile: float, confidence: float = 0.95, *, two_sided: bool = True) -> int:
    """Return how many independent values an interval for a percentile needs.

    Formula: with q = max(p, 1 - p), all n values lie on the near side of the percentile with probability q^n, and then
    not even the extreme value bounds it. So n is the smallest with q^n <= alpha; alpha = 1 - confidence for one bound,
    half of that for each side of a two-sided interval. P95: 59 and 72; P99: 299 and 368; median: 5 and 6.
    Source: Wilks, Ann. Math. Statist. 12 (1941) 91; David and Nagaraja, Order Statistics, 3rd ed., section 7.1.
    """
    q = max(probability_of(percentile), 1 - percentile / 100)
    tail = tail_of(confidence, two_sided=two_sided)
    n = max(1, math.floor(math.log(tail) / math.log(q)) - 1)  # start below: the logarithms round
    while q**n > tail:
        n += 1
    return n


def probability_of(percentile: float) -> float:
    """Return a percentile as a share between 0 and 1."""
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {percentile:g}")
    return percentile / 100


def tail_of(confidence: float, *, two_sided: bool = True) -> float:
    """Return the probability of error on a side of an interval."""
    if not 0.5 <= confidence < 1:
        raise ValueError(f"a confidence lies between 0.5 and 1, not at {confidence:g}")
    return (1 - confidence) / (2 if two_sided else 1) * (1 + 1e-12)  # 1 - 0.95 is not quite 0.05
