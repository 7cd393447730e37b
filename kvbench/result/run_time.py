"""How long a run took, and the window of its load: one definition of each, for the run and for all that read it later.

The load window is from the first send to the last token of the measured requests. The total time, which every rate is
divided by, is as long as that window, or the sum of latencies where kvbench read counters between the requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.result.records import sum_of_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kvbench.result.records import Response, Row


def load_window_ns(requests: Iterable[Response | Row]) -> tuple[int, int] | None:
    """Return the first send and the last token (ns); what a driver needs to start and to end is outside.

    Failed requests count with what is known of them. Where no token came at all the window ends with the last send;
    None where nothing was sent.
    """
    return window_of_stamps_ns((one.sent_ns, one.last_token_ns) for one in requests)


def window_of_stamps_ns(stamps: Iterable[tuple[int | None, int | None]]) -> tuple[int, int] | None:
    """Return the load window of pairs of send and last token, for requests that are no rows yet."""
    known = list(stamps)
    sent = [sent_ns for sent_ns, _ in known if sent_ns is not None]
    ended = [ended_ns for _, ended_ns in known if ended_ns is not None]
    return (min(sent), max(min(sent), max(ended, default=max(sent)))) if sent else None


def length_s(window_ns: tuple[int, int] | None) -> float | None:
    """Return how long a window is."""
    return None if window_ns is None else (window_ns[1] - window_ns[0]) / 1e9


def total_time_s(record: Mapping[str, Any], measured: Sequence[Row]) -> float | None:
    """Return how long the load of a run took; `record` is its `run.json`, `measured` its measured rows.

    Formula: the length of the load window (`load_s`); the sum of latencies where requests were sent one by one
    (`sent_one_by_one`), because between them kvbench reads counters and the server waits. A driver that takes the whole
    list at once, as AIPerf does, sends nothing one by one, even at concurrency 1.
    None where nothing was answered, where one of these latencies is not known, and where the tier of an answer was not
    proven: a rate would be told as that of a cache state that nobody has shown.
    """
    answered = [row for row in measured if row.status == "ok"]
    if not answered or any(row.tier == "unproven" for row in answered):
        return None
    if record.get("sent_one_by_one"):
        return sum_of_all(row.latency_s for row in answered) or None
    return float(record.get("load_s") or 0.0) or None
