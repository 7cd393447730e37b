"""Finds the requests of a run whose prompt an earlier request of the run had already sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST, REPEAT, OVERLAPPING = "first", "repeat", "overlapping"
_KINDS = pd.CategoricalDtype([FIRST, REPEAT, OVERLAPPING])
_FIRST, _REPEAT, _OVERLAPPING, _UNSENT = 0, 1, 2, -1


def prompt_touch(measured: pd.DataFrame) -> pd.Series:
    """Return what each request is to its prompt, null where it was not sent; all measured rows of the run are needed.

    The earliest request of a prompt is its first touch, and later ones are repeat touches. Those that were sent before
    the earliest one's first token, and then the earliest itself too, are `overlapping`: the server may have taken any
    of them first, so they are neither. A request that failed may have left its blocks in a cache, so it touches its
    prompt all the same; one without any token overlaps with none, since nobody knows when it ended.
    """
    numbers = _numbers_of_kinds(measured)
    kinds = pd.Categorical.from_codes(numbers, dtype=_KINDS)  # type: ignore[arg-type] # the stub knows no arrays
    return pd.Series(kinds, index=measured.index)


def may_repeat_prompt(measured: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which requests may find what the run itself has put into a cache: all sent ones that are no first touch."""
    return _numbers_of_kinds(measured) > _FIRST


def _numbers_of_kinds(measured: pd.DataFrame) -> NDArray[np.int8]:
    is_sent = measured["sent_ns"].notna().to_numpy(dtype=bool)
    sent = measured.loc[is_sent, ["prompt_id", "sent_ns", "first_token_ns"]] if not is_sent.all() else measured
    prompt, names = pd.factorize(sent["prompt_id"])
    sent_ns, token_ns = _times(sent["sent_ns"]), _times(sent["first_token_ns"])
    latest_first = np.argsort(sent_ns, kind="stable")[::-1]
    earliest = np.empty(len(names), dtype=np.intp)
    earliest[prompt[latest_first]] = latest_first  # of several the last one stays, which was sent first
    is_earliest = np.zeros(len(sent), dtype=bool)
    is_earliest[earliest] = True
    overlaps = ~is_earliest & (sent_ns < token_ns[earliest][prompt])
    overlaps[earliest] = np.bincount(prompt[overlaps], minlength=len(names)) > 0
    kinds = np.full(len(measured), _UNSENT, dtype=np.int8)
    kinds[is_sent] = np.where(overlaps, _OVERLAPPING, np.where(is_earliest, _FIRST, _REPEAT))
    return kinds


def _times(times_ns: pd.Series) -> NDArray[np.int64]:
    return times_ns.to_numpy(dtype=np.int64, na_value=0)
