"""Open loops: each figure from the send and from the schedule, and whether the server kept up with the rate.

A request is scheduled for the moment at which it is due. When `concurrency` requests are already out, it waits to be
sent: that wait is in no figure that counts from the send, and it is what a user of a server that is too slow would see.
In a closed loop nothing is due, so none of this is told of one.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvbench import metrics
from kvbench.metrics import METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.metrics import Limits
    from kvbench.records import Row
    from kvbench.sealed import SealedRun

GROWING = 0.15  # s of latency per s of schedule; offered a load of r times its capacity, a queue grows by r - 1
_FEWEST = 20  # requests of a run, below which a quarter says nothing


_PAIRS: tuple[tuple[Metric, Metric], ...] = (
    *(
        (
            METRICS[f"ttft_{key}"],
            Metric(
                f"ttft_from_schedule_{key}",
                METRICS[f"ttft_{key}"].label,
                "s",
                "time",
                key,
                metrics.ttft_from_schedule_s,
            ),
        )
        for key in ("p50", "p95")
    ),
    *((METRICS[f"latency_{key}"], METRICS[f"latency_from_schedule_{key}"]) for key in ("p50", "p95", "max")),
    *((METRICS[name], METRICS[name]) for name in ("slo_attainment", "goodput_per_s")),  # the limits tell which TTFT
)


def account(runs: Sequence[SealedRun], told: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Return what a treatment's schedule asked for, what became of it, and its figures from the send and from the due.

    `told` is the rate and the arrival of the plan. `grew` tells whether latency from the schedule kept growing along
    the list (`growth` in seconds per second): then its figures are those of a list of this length, and no level of the
    server. A quarter of a list that a server keeps up with is slower than another by chance, and its first one begins
    with an empty server, so their ratio tells nothing; the slope of a queue is what the load is above the capacity.
    """
    offered = [rate for run in runs if (rate := _offered_per_s(run.measured)) is not None]
    quarters = [found for run in runs if (found := _quarters(run)) is not None]
    growth = statistics.fmean(one.growth for one in quarters) if quarters else None
    by_send = replace(limits, open_loops=frozenset())
    by_schedule = replace(limits, open_loops=frozenset(run.treatment for run in runs))
    return {
        **told,
        "offered_per_s": statistics.fmean(offered) if offered else None,
        "achieved_per_s": metrics.of_treatment(METRICS["requests_per_s"], runs, limits).to_json(),
        "waited_mean_s": _mean([row.send_lag_s for run in runs for row in run.measured]),
        "first_quarter_s": statistics.median(time for one in quarters for time in one.first) if quarters else None,
        "last_quarter_s": statistics.median(time for one in quarters for time in one.last) if quarters else None,
        "growth": growth,
        "grew": growth is not None and growth > GROWING,
        "figures": [
            {
                "name": send.name,
                "label": send.label,
                "unit": send.unit,
                "from_send": metrics.of_treatment(send, runs, by_send).to_json(),
                "from_schedule": metrics.of_treatment(due, runs, by_schedule).to_json(),
            }
            for send, due in _PAIRS
        ],
    }


def _offered_per_s(rows: Sequence[Row]) -> float | None:
    """Return the rate at which requests were due."""
    due = sorted(row.scheduled_ns for row in rows if row.scheduled_ns is not None)
    return (len(due) - 1) / ((due[-1] - due[0]) / 1e9) if len(due) > 1 and due[-1] > due[0] else None


@dataclass(frozen=True, slots=True)
class _Quarters:
    """Latencies from the schedule of the first and of the last quarter of a list, and how fast they grew between."""

    first: list[float]
    last: list[float]
    growth: float


def _quarters(run: SealedRun) -> _Quarters | None:
    """Return the outer quarters of a list; None where it is too short, or all of it was due at once.

    Formula of the growth: (median latency of the last quarter - that of the first) / (median due time of the last
    quarter - that of the first).
    """
    rows = [(row.scheduled_ns, metrics.latency_from_schedule_s(row)) for row in run.proven]
    known = sorted((due_ns, time) for due_ns, time in rows if due_ns is not None and time is not None)
    size = len(known) // 4
    if len(known) < _FEWEST:
        return None
    (due, first), (late, last) = (list(zip(*part, strict=True)) for part in (known[:size], known[-size:]))
    apart_s = (statistics.median(late) - statistics.median(due)) / 1e9
    if apart_s <= 0:
        return None
    growth = (statistics.median(last) - statistics.median(first)) / apart_s
    return _Quarters(list(first), list(last), growth)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
