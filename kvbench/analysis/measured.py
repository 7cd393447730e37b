"""What is read off the measured requests of a run: values of each, sums, the load window, the total time.

A run's measured requests are a DataFrame with pyarrow-backed columns: the fields of `records.Row`, and `length`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kvbench.result.run_record import RunRecord
    from kvbench.result.verdict import Verdict

    OfRequests = Callable[["Columns"], pd.Series]
    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Units = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Limits:
    """The SLOs, and the factor by which a scale model's times are multiplied before they are held against them.

    Requests of the treatments in `open_loops` are held against them from the moment at which they were due.
    """

    ttft_s: float | None = None
    time_scale: float = 1.0
    open_loops: frozenset[str] = frozenset()


class Columns(Protocol):
    """Requests of which columns can be asked: a DataFrame, or `SelectedRequests`."""

    def __getitem__(self, name: str, /) -> pd.Series:
        """Return one column."""


class JudgedRun(Protocol):
    """What rules on treatments need of a sealed run; `dataset.SealedRun` is one."""

    @property
    def record(self) -> RunRecord:
        """The content of its `run.json`."""

    @property
    def measured(self) -> pd.DataFrame:
        """Its measured requests, answered or not."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on it."""


class MeasuredRun(JudgedRun, Protocol):
    """What figures need of a sealed run; `dataset.SealedRun` is one."""

    @property
    def answered(self) -> SelectedRequests:
        """Its measured requests that were answered."""

    @property
    def proven(self) -> SelectedRequests:
        """Its answered requests but those whose tier was not proven: only these give figures of requests."""

    @property
    def request_values(self) -> RequestValues:
        """The values of its proven requests."""


class SelectedRequests:
    """The requests of a run for which something holds; a column is gathered when asked for, so none is kept twice."""

    def __init__(self, requests: pd.DataFrame, keep: pd.Series) -> None:
        """Select the requests for which `keep` is true; where it is null it does not hold."""
        kept = is_true(keep)
        self._requests, self._kept = requests, None if kept.all() else kept

    def __len__(self) -> int:
        """Return how many requests there are."""
        return len(self._requests) if self._kept is None else int(np.count_nonzero(self._kept))

    @overload
    def __getitem__(self, names: str, /) -> pd.Series: ...
    @overload
    def __getitem__(self, names: list[str], /) -> pd.DataFrame: ...
    def __getitem__(self, names: str | list[str], /) -> pd.Series | pd.DataFrame:
        """Return one column, or several as a DataFrame; rows keep their number in the run."""
        if self._kept is None:
            return self._requests[names]
        index = self._requests.index[self._kept]
        if isinstance(names, str):
            return pd.Series(self._requests[names].array[self._kept], index=index, name=names, copy=False)
        # A DataFrame's own way to select rows takes ten times as long with pyarrow-backed columns.
        columns = {name: self._requests[name].array[self._kept] for name in names}
        return pd.DataFrame(columns, index=index, copy=False)

    def of_length(self, length: int) -> SelectedRequests:
        """Return those of them that stand under one prompt length."""
        keep = (self._requests["length"] == length).to_numpy(dtype=bool, na_value=False)
        return SelectedRequests(self._requests, pd.Series(keep if self._kept is None else keep & self._kept))

    def frame(self) -> pd.DataFrame:
        """Return all columns."""
        return self[[str(name) for name in self._requests]]


class RequestValues:
    """The values of a run's proven requests as plain floats, each computed once."""

    def __init__(self, proven: Columns) -> None:
        """Take the requests that give figures."""
        self._proven = proven
        self._known: dict[OfRequests, tuple[Array, Units, Array]] = {}

    def of(self, of_requests: OfRequests, length: int | None = None) -> tuple[Array, Units]:
        """Return what a function of `metrics` reads off each request that has it, and the request's unit.

        The unit is its conversation or its prompt, as a number from 0. Without a length all requests are meant.
        """
        if of_requests not in self._known:
            found = as_floats(of_requests(self._proven))
            self._known[of_requests] = _where(~np.isnan(found), found, self._units, self._lengths)
        values, units, lengths = self._known[of_requests]
        if length is None:
            return values, units
        values, units, _ = _where(lengths == length, values, units, lengths)
        return values, units

    @cached_property
    def _lengths(self) -> Array:
        return as_floats(self._proven["length"])

    @cached_property
    def _units(self) -> Units:
        numbers, _ = pd.factorize(self._proven["conversation_id"].fillna(self._proven["prompt_id"]))
        return numbers


def _where(keep: Mask, values: Array, units: Units, lengths: Array) -> tuple[Array, Units, Array]:
    """Return what is kept; the same arrays where all is kept, so that none is copied."""
    return (values, units, lengths) if keep.all() else (values[keep], units[keep], lengths[keep])


def rows_where(requests: pd.DataFrame, keep: pd.Series) -> pd.DataFrame:
    """Return the requests for which something holds; the same frame where it holds for all, so that none is copied."""
    return SelectedRequests(requests, keep).frame()


def as_floats(values: pd.Series) -> Array:
    """Return values as plain floats, NaN where one is not known."""
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def is_true(values: pd.Series) -> Mask:
    """Return where a condition holds; where it is null it does not."""
    holds: Mask = values.to_numpy(dtype=bool, na_value=False)
    return holds


def counts(parts: Sequence[pd.Series]) -> dict[str, int]:
    """Count the values of several columns together, in the order in which they appear."""
    total: Counter[str] = Counter()
    for part in parts:
        codes, names = pd.factorize(part)
        total.update(dict(zip(map(str, names), map(int, np.bincount(codes)), strict=True)))
    return dict(total)


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


def per_second(run: MeasuredRun, amount: float | None) -> float | None:
    """Return an amount of a run over its total time."""
    window = total_time_s(run.record, run.measured)
    return amount / window if amount is not None and window else None
