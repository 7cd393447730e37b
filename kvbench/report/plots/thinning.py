"""Chooses which requests a plot draws where there are very many: some of each group, and always the extremes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_DOTS = 5000  # in one plot; each is about 100 bytes of the page
RULE = f"Of more than {MOST_DOTS:,} requests only some are drawn, and the plot says how many"


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


def drawn_text(drawn: int, requests: int) -> str:
    """Say how many requests are drawn; nothing where all are."""
    return "" if drawn == requests else f"{drawn:,} of {requests:,} requests are drawn"
