"""Finds the place in a series of values where their mean changes most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import xlogy

from kvbench.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Shares = Sequence[float] | Array

MOST_BLOCKS = 1000  # of requests that random orders move; beyond, neighbours move together


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The request (counted from 0) from which on the hit rate was another one, and the rates on both sides."""

    index: int
    before: float
    after: float
    p_value: float


def change_point(
    hits: Shares,
    *,
    confidence: float = 0.95,
    smallest: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> ChangePoint | None:
    """Return where the hit rate changed in the order of requests, or None if no change was shown.

    `hits` are 0 or 1, or shares of a prompt between them. It separates a cold start from the steady part; where the
    rate climbs slowly it gives the best single step. Formula: the split with at least `smallest` requests on both sides
    that maximises the binomial log likelihood L(before) + L(after), L = n (r log r + (1 - r) log(1 - r)); its p-value
    is the share of random orders whose best split is at least as good, the observed order counted among them. Of more
    than 1,000 requests, random orders move blocks of neighbours with their mean, at most 1,000 of equal length, and
    the observed order of the blocks is held against them; the split itself is found among all requests.
    Source: Hinkley and Hinkley, Biometrika 57 (1970) 477; Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39.
    """
    array = np.asarray(hits, dtype=float)
    if len(array) and not (array.min() >= 0 and array.max() <= 1):
        raise ResultError("a hit rate lies between 0 and 1", "Pass cached tokens over prompt tokens.")
    if len(array) < 2 * smallest or (array == array[0]).all():
        return None
    index = int(_split_gains(array, smallest).argmax()) + smallest
    blocks = _block_means(array)
    best, random = float(_split_gains(blocks, smallest).max()), np.random.default_rng(seed)
    better = sum(
        int(_split_gains(random.permutation(blocks), smallest).max() >= best - 1e-9) for _ in range(permutations)
    )
    p_value = (1 + better) / (1 + permutations)
    if p_value > 1 - confidence + 1e-12:
        return None
    return ChangePoint(index, float(array[:index].mean()), float(array[index:].mean()), p_value)


def _block_means(array: Array) -> Array:
    """Return the mean of each block of neighbours, at most `MOST_BLOCKS` of them; few requests are a block each."""
    size = -(-len(array) // MOST_BLOCKS)
    means: Array = array[: len(array) // size * size].reshape(-1, size).mean(axis=1)
    return means


def _split_gains(array: Array, smallest: int) -> Array:
    """Return the log likelihood of each allowed split, less that of no split (constant over orders, so left out)."""
    n = len(array)
    left_n = np.arange(smallest, n - smallest + 1, dtype=float)
    left = np.cumsum(array)[smallest - 1 : n - smallest]
    right_n, right = n - left_n, array.sum() - left
    gains: Array = np.zeros(len(left))
    for part, whole in ((left, left_n), (right, right_n)):
        part_in = np.clip(part, 0, whole)  # sums round
        gains += xlogy(part_in, part_in / whole) + xlogy(whole - part_in, 1 - part_in / whole)
    return gains
