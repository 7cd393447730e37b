"""What an empty start is made of: first and repeat touches, and where in a run the hit rate became another one.

A request whose prompt the run has not sent before cannot be served from a cache that began empty, unless prompts share
beginnings; one whose prompt was sent before can. They are two populations, so they never stand in one figure here.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kvbench.analysis.stats.change_point import change_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.records import Row
    from kvbench.sealed import SealedRun


def history(runs: Sequence[SealedRun]) -> dict[str, Any] | None:
    """Return both populations, and for each run that has one the request at which its hit rate changed.

    Every request that was sent touches its prompt, whether or not it was answered or its tier proven; only those that
    were stand in a population. None for conversations: a turn repeats the beginning of the turn before, so it is
    neither.
    """
    if any(row.conversation_id for run in runs for row in run.measured):
        return None
    first: list[Row] = []
    repeat: list[Row] = []
    changes = []
    for run in runs:
        proven = {row.request_id for row in run.proven}
        seen: set[str] = set()
        ordered = []
        for row in sorted((row for row in run.measured if row.sent_ns is not None), key=lambda row: row.sent_ns or 0):
            if row.request_id in proven:
                (repeat if row.prompt_id in seen else first).append(row)
                ordered.append(row)
            seen.add(row.prompt_id)
        found = change_point(shares) if (shares := _hit_shares(ordered)) else None
        if found is not None:
            changes.append({"run_id": run.run_id, "requests": len(shares), **asdict(found)})
    return {"first_touch": _population(first), "repeat_touch": _population(repeat), "changes": changes}


def _hit_shares(rows: Sequence[Row]) -> list[float]:
    """Return the cached share of each prompt in order; nothing where one of them is not known."""
    shares = [min(1.0, row.cached_tokens / row.isl) for row in rows if row.cached_tokens is not None and row.isl]
    return shares if len(shares) == len(rows) else []


def _population(rows: Sequence[Row]) -> dict[str, Any]:
    times = [row.ttft_s for row in rows if row.ttft_s is not None]
    shares = _hit_shares(rows)
    return {
        "n": len(rows),
        "median_s": statistics.median(times) if times else None,
        "hit_rate": statistics.fmean(shares) if shares else None,
    }
