"""The load window of requests that are no rows yet, or no DataFrame: while a run goes on, and in a calibration.

`kvbench.analysis.measured` has the same definition for the measured requests of a sealed run, and the total time that
every rate is divided by; one test holds both against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def load_window_ns(stamps: Iterable[tuple[int | None, int | None]]) -> tuple[int, int] | None:
    """Return the first send and the last token, from pairs of both; what a driver needs to start and end is outside.

    Failed requests count with what is known of them. Where no token came at all the window ends with the last send;
    None where nothing was sent.
    """
    known = list(stamps)
    sent = [sent_ns for sent_ns, _ in known if sent_ns is not None]
    ended = [ended_ns for _, ended_ns in known if ended_ns is not None]
    return (min(sent), max(min(sent), max(ended, default=max(sent)))) if sent else None


def length_s(window_ns: tuple[int, int] | None) -> float | None:
    """Return how long a window is."""
    return None if window_ns is None else (window_ns[1] - window_ns[0]) / 1e9
