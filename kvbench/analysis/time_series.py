"""Time series of one run: answers per slice of time, and hit rate and number of distinct prompts so far.

Only for runs whose requests were out beside one another: between requests that are sent one by one kvbench reads
counters, so time says nothing there. Turns of a conversation share their beginnings and are told by their turn instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis import metrics
from kvbench.analysis.measured import load_window_ns, rows_where
from kvbench.analysis.summary_types import TimeSeries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from kvbench.analysis.measured import MeasuredRun

    Numbers = NDArray[np.intp]

_MOST_SLICES, _FEWEST_SLICES = 24, 4
_ANSWERS_A_SLICE = 10  # on average; with fewer a rate is mostly chance


def time_series(runs: Sequence[MeasuredRun]) -> tuple[TimeSeries, ...]:
    """Return the time series of each run that has one, in the order of the runs."""
    return tuple(found for run in runs if (found := time_series_of(run)) is not None)


def time_series_of(run: MeasuredRun) -> TimeSeries | None:
    """Return one run in slices of equal length, each told at its end; None where it has too few answers for that.

    `answered` counts the answers whose last token came in a slice, `answered_per_s` is that over its length. Cumulative
    from the start of the run: `hit_rate`, cached over prompt tokens of what was answered (None where the run has no hit
    rate, or no answer yet), and `distinct_prompts` of what was sent, answered or not.
    """
    ends = run.answered["last_token_ns"]
    answered = rows_where(run.answered[["last_token_ns", "cached_tokens", "isl"]], ends.notna())
    window, count = load_window_ns(run.measured), min(_MOST_SLICES, len(answered) // _ANSWERS_A_SLICE)
    is_ordered = run.record.sent_one_by_one or run.measured["conversation_id"].notna().any()
    if window is None or is_ordered or count < _FEWEST_SLICES or window[1] <= window[0]:
        return None
    zero_ns, length_ns = window[0], (window[1] - window[0]) / count

    def slices(times_ns: pd.Series) -> Numbers:
        """Return the slice that each instant lies in; the end of the run belongs to the last one."""
        since = times_ns.to_numpy(dtype=np.int64) - zero_ns
        return np.minimum(count - 1, (since / length_ns).astype(np.intp))

    by_slice = slices(answered["last_token_ns"])
    totals = np.bincount(by_slice, minlength=count)
    sent = run.measured[["prompt_id", "sent_ns"]].dropna(subset=["sent_ns"])
    first_sends = sent.groupby("prompt_id", sort=False)["sent_ns"].min()
    new_prompts = np.bincount(slices(first_sends), minlength=count)
    slice_s = length_ns / 1e9
    return TimeSeries(
        run_id=run.record.run_id,
        repeat=run.record.repeat,
        slice_s=slice_s,
        answered=tuple(int(total) for total in totals),
        answered_per_s=tuple(float(total) / slice_s for total in totals),
        hit_rate=_hit_rates(answered, by_slice, count) if metrics.hit_rate(run) is not None else None,
        distinct_prompts=tuple(int(total) for total in np.cumsum(new_prompts)),
    )


def _hit_rates(answered: pd.DataFrame, by_slice: Numbers, count: int) -> tuple[float | None, ...]:
    """Return cached over prompt tokens of all answers up to the end of each slice."""
    cached, prompt = (
        np.cumsum(np.bincount(by_slice, weights=answered[name].to_numpy(dtype=np.float64), minlength=count))
        for name in ("cached_tokens", "isl")
    )
    return tuple(float(part / whole) if whole else None for part, whole in zip(cached, prompt, strict=True))
