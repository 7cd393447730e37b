"""Open loops: each figure from the send and from the schedule, and whether the server kept up with the rate.

A request is scheduled for the moment at which it is due. Where as many are out as may be, it waits to be sent: that
wait is in no figure that counts from the send, and it is what a user of a server that is too slow would see. In a
closed loop nothing is due, so none of this is told of one.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from kvbench import metrics
from kvbench.metrics import METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.metrics import Limits
    from kvbench.records import Row
    from kvbench.sealed import SealedRun

GROWING = 2.0  # last quarter over first: latency that doubles along the list is a queue, not a level
_FEWEST = 20  # requests of a run, below which a quarter says nothing


def ttft_from_schedule_s(row: Row) -> float | None:
    """Return the time to the first token from the moment at which the request was due.

    Formula: first_token_ns - scheduled_ns.
    """
    if row.first_token_ns is None or row.scheduled_ns is None:
        return None
    return (row.first_token_ns - row.scheduled_ns) / 1e9


def slo_attainment(run: SealedRun, limits: Limits) -> float | None:
    """Return the share of requests that met every SLO, their waiting to be sent included.

    Formula: requests with TTFT from schedule x time scale <= limit / requests sent.
    """
    met = metrics.met_by(run, limits, ttft_from_schedule_s)
    return met / len(run.measured) if met is not None and run.measured else None


def goodput_per_s(run: SealedRun, limits: Limits) -> float | None:
    """Return the rate of requests that met every SLO, their waiting to be sent included.

    Formula: requests with TTFT from schedule x time scale <= limit / total time.
    """
    return metrics.per_second(run, metrics.met_by(run, limits, ttft_from_schedule_s))


_PAIRS: tuple[tuple[Metric, Metric], ...] = (
    *(
        (
            METRICS[f"ttft_{key}"],
            Metric(f"ttft_from_schedule_{key}", METRICS[f"ttft_{key}"].label, "s", "time", key, ttft_from_schedule_s),
        )
        for key in ("p50", "p95")
    ),
    *((METRICS[f"latency_{key}"], METRICS[f"latency_from_schedule_{key}"]) for key in ("p50", "p95", "max")),
    (
        METRICS["slo_attainment"],
        Metric("slo_attainment_from_schedule", "SLO attainment", "share", "rate", "run", of_run=slo_attainment),
    ),
    (
        METRICS["goodput_per_s"],
        Metric("goodput_from_schedule_per_s", "goodput", "1/s", "rate", "run", of_run=goodput_per_s),
    ),
)


def account(runs: Sequence[SealedRun], told: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Return what a treatment's schedule asked for, what became of it, and its figures from the send and from the due.

    `told` is the rate and the arrival of the plan. `grew` tells whether latency from the schedule kept growing along
    the list: then its figures are those of a list of this length, and no level of the server.
    """
    offered = [rate for run in runs if (rate := _offered_per_s(run.measured)) is not None]
    first, last = _quarters(runs)
    ratio = last / first if first and last is not None else None
    return {
        **told,
        "offered_per_s": statistics.fmean(offered) if offered else None,
        "achieved_per_s": metrics.of_treatment(METRICS["requests_per_s"], runs, limits).to_json(),
        "waited_mean_s": _mean([row.send_lag_s for run in runs for row in run.measured]),
        "first_quarter_s": first,
        "last_quarter_s": last,
        "grew": ratio is not None and ratio > GROWING,
        "figures": [
            {
                "name": send.name,
                "label": send.label,
                "unit": send.unit,
                "from_send": metrics.of_treatment(send, runs, limits).to_json(),
                "from_schedule": metrics.of_treatment(due, runs, limits).to_json(),
            }
            for send, due in _PAIRS
        ],
    }


def _offered_per_s(rows: Sequence[Row]) -> float | None:
    """Return the rate at which requests were due."""
    due = sorted(row.scheduled_ns for row in rows if row.scheduled_ns is not None)
    return (len(due) - 1) / ((due[-1] - due[0]) / 1e9) if len(due) > 1 and due[-1] > due[0] else None


def _quarters(runs: Sequence[SealedRun]) -> tuple[float | None, float | None]:
    """Return the median latency from the schedule of the first and of the last quarter of each list, over all runs."""
    first: list[float] = []
    last: list[float] = []
    for run in runs:
        rows = sorted((row for row in run.proven if row.scheduled_ns is not None), key=lambda r: r.scheduled_ns or 0)
        times = [time for row in rows if (time := metrics.latency_from_schedule_s(row)) is not None]
        if len(times) >= _FEWEST:
            first += times[: len(times) // 4]
            last += times[-(len(times) // 4) :]
    return (statistics.median(first), statistics.median(last)) if first else (None, None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
