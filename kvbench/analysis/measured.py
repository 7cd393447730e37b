"""What is read off the measured requests of a run: values of each, sums, the load window, the total time.

A run's measured requests are a DataFrame with pyarrow-backed columns: the fields of `records.Row`, and `length`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kvbench.result.run_record import RunRecord
    from kvbench.result.verdict import Verdict

    OfRequests = Callable[[pd.DataFrame], pd.Series]
    Array = NDArray[np.float64]


class MeasuredRun(Protocol):
    """What figures need of a sealed run; `dataset.SealedRun` is one."""

    @property
    def record(self) -> RunRecord:
        """The content of its `run.json`."""

    @property
    def measured(self) -> pd.DataFrame:
        """Its measured requests, answered or not."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on it."""

    @property
    def answered(self) -> pd.DataFrame:
        """Its measured requests that were answered."""

    @property
    def proven(self) -> pd.DataFrame:
        """Its answered requests but those whose tier was not proven: only these give figures of requests."""

    @property
    def request_values(self) -> RequestValues:
        """The values of its proven requests."""


class RequestValues:
    """The values of a run's proven requests as plain floats, each computed once; NaN is one that is not known."""

    def __init__(self, proven: pd.DataFrame) -> None:
        """Take the requests that give figures."""
        self._proven = proven
        self._known: dict[OfRequests, Array] = {}

    def of(self, of_requests: OfRequests) -> Array:
        """Return what a function of `metrics` reads off each request."""
        if of_requests not in self._known:
            self._known[of_requests] = as_floats(of_requests(self._proven))
        return self._known[of_requests]

    @cached_property
    def lengths(self) -> Array:
        """The prompt length that the figures of each request stand under."""
        return as_floats(self._proven["length"])

    @cached_property
    def units(self) -> NDArray[np.intp]:
        """The conversation or the prompt that each request belongs to, as a number from 0."""
        numbers, _ = pd.factorize(self._proven["conversation_id"].fillna(self._proven["prompt_id"]))
        return numbers


def as_floats(values: pd.Series) -> Array:
    """Return values as plain floats, NaN where one is not known."""
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def sum_of_all(values: pd.Series) -> float | None:
    """Return the sum, or None where one value is missing or there is none: a sum of some would pass for that of all."""
    if values.empty or values.isna().any():
        return None
    total: float = values.sum()
    return total


def load_window_ns(measured: pd.DataFrame) -> tuple[int, int] | None:
    """Return the first send and the last token; what a driver needs to start and to end is outside.

    Failed requests count with what is known of them. Where no token came at all the window ends with the last send;
    None where nothing was sent.
    """
    sent, ended = measured["sent_ns"].dropna(), measured["last_token_ns"].dropna()
    if sent.empty:
        return None
    last = ended if not ended.empty else sent
    return int(sent.min()), max(int(sent.min()), int(last.max()))


def total_time_s(record: RunRecord, measured: pd.DataFrame) -> float | None:
    """Return how long the load of a run took, which every rate is divided by.

    Formula: the length of the load window (`load_s`); the sum of latencies where requests were sent one by one
    (`sent_one_by_one`), because between them kvbench reads counters and the server waits. A driver that takes the whole
    list at once, as AIPerf does, sends nothing one by one, even at concurrency 1.
    None where nothing was answered, where one of these latencies is not known, and where the tier of an answer was not
    proven: a rate would be told as that of a cache state that nobody has shown.
    """
    is_answered = measured["status"] == "ok"
    if not is_answered.any() or (is_answered & (measured["tier"] == "unproven")).any():
        return None
    if record.sent_one_by_one:
        return sum_of_all(measured.loc[is_answered, "latency_s"]) or None
    return record.load_s or None
