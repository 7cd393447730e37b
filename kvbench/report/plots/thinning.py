"""Chooses which requests a plot draws where there are very many: some of them by a fixed rule, and the extremes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvbench.analysis.summary_types import Summary

MOST_DOTS = 5000  # in one plot; each is about 120 bytes of the page
_EXTREMES_SHARE = 0.2  # of the dots of a plot over time


def chosen_dots(values: NDArray[np.float64], groups: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return the places of the values to draw: all where there are at most `most`, else about as many.

    Of each group as many are kept, evenly spaced by rank, its smallest and its largest value among them: so a group's
    dots lie as its values do, and no outlier is lost.
    """
    if len(values) <= most:
        return np.arange(len(values))
    order = np.lexsort((values, groups))
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], len(ordered))
    each = max(2, most // len(starts))
    kept = [
        np.linspace(start, end - 1, min(each, end - start)).round() for start, end in zip(starts, ends, strict=True)
    ]
    return np.sort(order[np.concatenate(kept).astype(np.intp)])


def chosen_over_time(times: NDArray[np.float64], values: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Return the places of the values to draw over time: all where there are at most `most`, else about as many.

    Some are kept evenly spaced in order of time, so that dots are as dense as requests are; and the smallest and the
    largest value of each of many equal slices of time, so that no outlier is lost.
    """
    if len(values) <= most:
        return np.arange(len(values))
    slices = max(1, int(most * _EXTREMES_SHARE / 2))
    edges = np.linspace(times.min(), times.max(), slices + 1)
    extremes = chosen_dots(values, np.searchsorted(edges[1:-1], times, side="right"), 2 * slices)
    even = np.linspace(0, len(values) - 1, most - len(extremes)).round().astype(np.intp)
    return np.union1d(np.argsort(times, kind="stable")[even], extremes)


def rule_text(summary: Summary, rule: str) -> str:
    """Return the rule as a sentence for a caption; nothing for a result of so few requests that all are drawn."""
    if sum(run.requests for run in summary.runs) <= MOST_DOTS:
        return ""
    return f" Of more than {MOST_DOTS:,} requests only some are drawn, and the plot says how many: {rule}."


def drawn_text(drawn: int, requests: int) -> str:
    """Say how many requests are drawn; nothing where all are."""
    return "" if drawn == requests else f"{drawn:,} of {requests:,} requests are drawn"
