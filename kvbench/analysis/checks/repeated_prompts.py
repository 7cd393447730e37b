"""Which requests of a run are the first touch of their prompt, and which may find what the run itself has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST, REPEAT, OVERLAPPING = "first", "repeat", "overlapping"


def touches(measured: pd.DataFrame) -> pd.Series:
    """Return what each request is to its prompt, null where it was not sent; all measured rows of the run are needed.

    The earliest request of a prompt is its first touch, and later ones are repeat touches. Those that were sent before
    the earliest one's first token, and then the earliest itself too, are `overlapping`: the server may have taken any
    of them first, so they are neither. A request that failed may have left its blocks in a cache, so it touches its
    prompt all the same; one without any token overlaps with none, since nobody knows when it ended.
    """
    is_sent = measured["sent_ns"].notna().to_numpy(dtype=bool)
    sent = measured.loc[is_sent] if not is_sent.all() else measured
    prompt, names = pd.factorize(sent["prompt_id"])
    sent_ns, token_ns = _numbers(sent["sent_ns"]), _numbers(sent["first_token_ns"])
    order = np.lexsort((sent_ns, prompt))
    earliest = order[np.searchsorted(prompt[order], np.arange(len(names)))]
    is_earliest = np.zeros(len(sent), dtype=bool)
    is_earliest[earliest] = True
    overlaps = ~is_earliest & (sent_ns < token_ns[earliest][prompt])
    overlaps |= is_earliest & (np.bincount(prompt, weights=overlaps, minlength=len(names)) > 0)[prompt]
    kinds = np.full(len(measured), None, dtype=object)
    kinds[is_sent] = np.where(overlaps, OVERLAPPING, np.where(is_earliest, FIRST, REPEAT))
    return pd.Series(kinds, index=measured.index, dtype="category")


def not_first_touches(measured: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which requests may find what the run itself has put into a cache: all sent ones that are no first touch."""
    found = touches(measured)
    return (found.notna() & (found != FIRST)).to_numpy(dtype=bool)


def _numbers(times_ns: pd.Series) -> NDArray[np.int64]:
    return times_ns.to_numpy(dtype=np.int64, na_value=0)
