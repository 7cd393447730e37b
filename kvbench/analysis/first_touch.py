"""Splits the requests of an empty start into first and repeat touches, and finds where the hit rate changed.

A request whose prompt the run has not sent before cannot be served from a cache that began empty, unless prompts share
beginnings; one whose prompt was sent before can. They are two populations, so they never stand in one figure here, and
requests of one prompt that were out at once are a third (`checks.repeated_prompts` has the rule).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from kvbench.analysis.checks.repeated_prompts import FIRST, OVERLAPPING, REPEAT, prompt_touch
from kvbench.analysis.measured import as_floats, rows_where
from kvbench.analysis.metrics import hit_rate_of
from kvbench.analysis.stats.change_point import change_point
from kvbench.analysis.summary_types import FirstTouch, HitRateChange, TouchFigures

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kvbench.analysis.measured import MeasuredRun

_COLUMNS = ["sent_ns", "ttft_s", "cached_tokens", "isl"]


def first_touch(runs: Sequence[MeasuredRun]) -> FirstTouch | None:
    """Return the three populations, and for each run that has one the request at which its hit rate changed.

    Every request that was sent touches its prompt, whether or not it was answered or its tier proven; only those that
    were stand in a population. None for conversations: a turn repeats the beginning of the turn before, so it is
    neither.
    """
    if any(run.measured["conversation_id"].notna().any() for run in runs):
        return None
    parts, changes = [], []
    for run in runs:
        requests = run.proven[_COLUMNS]
        requests = requests.assign(touch=prompt_touch(run.measured).loc[requests.index])
        requests = rows_where(requests, requests["sent_ns"].notna()).sort_values("sent_ns", kind="stable")
        parts.append(requests)
        shares = _hit_shares(requests)
        change = change_point(shares) if shares is not None else None
        if change is not None and shares is not None:
            at = (change.index, change.before, change.after, change.p_value)
            changes.append(HitRateChange(run.record.run_id, len(shares), *at))
    figures = {kind: _figures([part[part["touch"] == kind] for part in parts]) for kind in (FIRST, REPEAT, OVERLAPPING)}
    return FirstTouch(figures[FIRST], figures[REPEAT], tuple(changes), figures[OVERLAPPING])


def _hit_shares(requests: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the cached share of each prompt in order; None where there is none, or one of them is not known."""
    prompt = requests["isl"]
    shares = as_floats((requests["cached_tokens"] / prompt.where(prompt != 0)).clip(upper=1.0))
    return shares if len(shares) and not pd.isna(shares).any() else None


def _figures(parts: Sequence[pd.DataFrame]) -> TouchFigures:
    requests = pd.concat(parts) if parts else pd.DataFrame(columns=_COLUMNS)
    times = requests["ttft_s"].dropna()
    return TouchFigures(
        n=len(requests),
        median_s=float(times.median()) if len(times) else None,
        hit_rate=hit_rate_of(requests),
    )
