"""Open-loop figures, from the send and from the schedule, and whether the server kept up with the rate.

A request is scheduled for the moment at which it is due. When `concurrency` requests are already out, it waits to be
sent: that wait is in no figure that counts from the send, and it is what a user of a server that is too slow would see.
In a closed loop nothing is due, so none of this is told of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis import metrics
from kvbench.analysis.aggregate import of_treatment
from kvbench.analysis.measured import as_floats
from kvbench.analysis.metrics import METRICS, Metric
from kvbench.analysis.summary_types import OpenLoopSummary, ScheduleFigure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from kvbench.analysis.measured import Limits, MeasuredRun
    from kvbench.result.plan_record import OpenLoop

GROWING = 0.15  # s of latency per s of schedule; offered a load of r times its capacity, a queue grows by r - 1
_FEWEST = 20  # requests of a run, below which a quarter says nothing


def _ttft_from_schedule(send: Metric) -> Metric:
    """Return the metric that counts a TTFT from the schedule."""
    name = send.name.replace("ttft", "ttft_from_schedule")
    return replace(send, name=name, of_requests=metrics.ttft_from_schedule_s)


_PAIRS: tuple[tuple[Metric, Metric], ...] = (
    *((METRICS[name], _ttft_from_schedule(METRICS[name])) for name in ("ttft_p50", "ttft_p95")),
    *((METRICS[f"latency_{key}"], METRICS[f"latency_from_schedule_{key}"]) for key in ("p50", "p95", "max")),
    *((METRICS[name], METRICS[name]) for name in ("slo_attainment", "goodput_per_s")),  # the limits tell which TTFT
)


def open_loop(runs: Sequence[MeasuredRun], schedule: OpenLoop, limits: Limits) -> OpenLoopSummary:
    """Return what a treatment's schedule asked for, what became of it, and its figures from the send and from the due.

    `grew` tells whether latency from the schedule kept growing along the list (`growth` in seconds per second): then
    its figures are those of a list of this length, and no level of the server. A quarter of a list that a server keeps
    up with is slower than another by chance, and its first one begins with an empty server, so their ratio tells
    nothing; the slope of a queue is what the load is above the capacity.
    """
    offered = [rate for run in runs if (rate := _offered_per_s(run.measured)) is not None]
    quarters = [found for run in runs if (found := _quarters(run)) is not None]
    waits = np.concatenate([as_floats(run.measured["send_lag_s"].dropna()) for run in runs])
    growth = float(np.mean([one.growth for one in quarters])) if quarters else None
    by_send = replace(limits, open_loops=frozenset())
    by_schedule = replace(limits, open_loops=frozenset(run.record.treatment for run in runs))
    return OpenLoopSummary(
        request_rate=schedule.request_rate,
        arrival=schedule.arrival,
        offered_per_s=float(np.mean(offered)) if offered else None,
        achieved_per_s=of_treatment(METRICS["requests_per_s"], runs, limits),
        waited_mean_s=float(waits.mean()) if len(waits) else None,
        first_quarter_s=_median([one.first for one in quarters]),
        last_quarter_s=_median([one.last for one in quarters]),
        growth=growth,
        grew=growth is not None and growth > GROWING,
        figures=tuple(
            ScheduleFigure(
                name=send.name,
                label=send.label,
                unit=send.unit,
                from_send=of_treatment(send, runs, by_send),
                from_schedule=of_treatment(due, runs, by_schedule),
            )
            for send, due in _PAIRS
        ),
    )


def _offered_per_s(measured: pd.DataFrame) -> float | None:
    """Return the rate at which requests were due."""
    due_ns = measured["scheduled_ns"].dropna()
    span_ns = int(due_ns.max() - due_ns.min()) if len(due_ns) > 1 else 0
    return (len(due_ns) - 1) / (span_ns / 1e9) if span_ns > 0 else None


@dataclass(frozen=True, slots=True)
class _Quarters:
    """Latencies from the schedule of the first and of the last quarter of a list, and how fast they grew between."""

    first: NDArray[np.float64]
    last: NDArray[np.float64]
    growth: float


def _quarters(run: MeasuredRun) -> _Quarters | None:
    """Return the outer quarters of a list; None where it is too short, or all of it was due at once.

    Formula of the growth: (median latency of the last quarter - that of the first) / (median due time of the last
    quarter - that of the first).
    """
    times = as_floats(metrics.latency_from_schedule_s(run.proven))
    known = ~np.isnan(times)
    due_ns = run.proven["scheduled_ns"].to_numpy(dtype=np.int64, na_value=0)[known]
    order = np.lexsort((times[known], due_ns))
    times, due_ns, size = times[known][order], due_ns[order], len(order) // 4
    if len(order) < _FEWEST:
        return None
    first, last = times[:size], times[-size:]
    since_ns = due_ns - due_ns[0]  # a float holds these to the nanosecond
    apart_s = float(np.median(since_ns[-size:]) - np.median(since_ns[:size])) / 1e9
    if apart_s <= 0:
        return None
    return _Quarters(first, last, float(np.median(last) - np.median(first)) / apart_s)


def _median(parts: Sequence[NDArray[np.float64]]) -> float | None:
    return float(np.median(np.concatenate(parts))) if parts else None
