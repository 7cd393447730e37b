"""The metrics: what is read off a request, off a run, and off all runs of a treatment, with n and what n supports.

Figures of requests (`ttft`, `tpot`, ...) become percentiles over requests; figures of a run (`requests_per_s`, ...)
become means over rounds. Failed requests are in no time. A request whose tier was not proven gives no time, and a run
that holds one gives no figure of the run, because both would be told as figures of a cache state that nobody has shown.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kvbench.analysis.stats.intervals import percentile_interval
from kvbench.checks.verdict import open_loop_of, time_scale_of
from kvbench.pooled import Figure, over_mean, over_requests, over_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from typing import TypeVar

    from kvbench.analysis.stats.ratios import Kind
    from kvbench.records import Row
    from kvbench.sealed import SealedRun

    _Number = TypeVar("_Number", int, float)

Unit = Literal["s", "1/s", "tokens/s", "bytes/s", "share"]
Statistic = Literal["p50", "p95", "p99", "max", "mean", "run"]
_PERCENTILES: dict[str, float] = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True, slots=True)
class Limits:
    """The SLOs, and the factor by which a scale model's times are multiplied before they are held against them.

    Requests of the treatments in `open_loops` are held against them from the moment at which they were due.
    """

    ttft_s: float | None = None
    time_scale: float = 1.0
    open_loops: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure by its name: what it is read off, over what, and whether less of it is better."""

    name: str
    label: str
    unit: Unit
    kind: Kind
    statistic: Statistic
    of_request: Callable[[Row], float | None] | None = None
    of_run: Callable[[SealedRun, Limits], float | None] | None = None


# -- one request -------------------------------------------------------------------------------------------------------


def ttft_s(row: Row) -> float | None:
    """Return the time to the first token on any channel.

    Formula: first_token_ns - sent_ns.
    """
    return row.ttft_s


def ttft_content_s(row: Row) -> float | None:
    """Return the time to the first token of the answer itself, reasoning left out.

    Formula: first_content_ns - sent_ns.
    """
    return row.ttft_content_s


def tpot_s(row: Row) -> float | None:
    """Return the time per output token after the first, which AIPerf calls ITL.

    Formula: (latency - TTFT) / (OSL - 1); none below two output tokens.
    """
    return row.tpot_s


def latency_s(row: Row) -> float | None:
    """Return the time to the last token.

    Formula: last_token_ns - sent_ns.
    """
    return row.latency_s


def user_rate(row: Row) -> float | None:
    """Return the output tokens per second that one user sees, prefill included.

    Formula: OSL / latency.
    """
    return row.osl / row.latency_s if row.osl and row.latency_s else None


def ttft_from_schedule_s(row: Row) -> float | None:
    """Return the time to the first token from the moment for which the request was scheduled.

    Formula: first_token_ns - scheduled_ns.
    """
    if row.first_token_ns is None or row.scheduled_ns is None:
        return None
    return (row.first_token_ns - row.scheduled_ns) / 1e9


def latency_from_schedule_s(row: Row) -> float | None:
    """Return the latency from the moment for which the request was scheduled: waiting for a free connection is in it.

    Formula: last_token_ns - scheduled_ns, of requests that were answered whole.
    """
    if row.latency_s is None or row.last_token_ns is None or row.scheduled_ns is None:
        return None
    return (row.last_token_ns - row.scheduled_ns) / 1e9


# -- one run -----------------------------------------------------------------------------------------------------------


def total_time_s(run: SealedRun, _limits: Limits | None = None) -> float | None:
    """Return how long the load took.

    Formula: last token of the run - first send; the sum of latencies where requests were sent one by one, because
    between them kvbench reads counters and the server waits. None where one of these latencies is not known.
    """
    if not run.answered or _is_unproven(run):
        return None
    if run.record.get("sent_one_by_one"):
        return sum_of_all(row.latency_s for row in run.answered) or None
    return float(run.record["load_s"] or 0.0) or None


def requests_per_s(run: SealedRun, _limits: Limits | None = None) -> float | None:
    """Return the request rate that was achieved.

    Formula: answered requests / total time.
    """
    return per_second(run, len(run.answered))


def output_tokens_per_s(run: SealedRun, _limits: Limits | None = None) -> float | None:
    """Return the rate of output tokens, prefill included.

    Formula: sum of OSL / total time.
    """
    return per_second(run, sum_of_all(row.osl for row in run.answered))


def prompt_tokens_per_s(run: SealedRun, _limits: Limits | None = None) -> float | None:
    """Return the rate of prompt tokens, whether they were computed or cached.

    Formula: sum of ISL / total time.
    """
    return per_second(run, sum_of_all(row.isl for row in run.answered))


def hit_rate(run: SealedRun, _limits: Limits | None = None) -> float | None:
    """Return the share of prompt tokens that came from a cache.

    Formula: sum of cached tokens / sum of ISL.
    """
    cached = sum_of_all(row.cached_tokens for row in run.answered)
    prompt = sum_of_all(row.isl for row in run.answered)
    return cached / prompt if cached is not None and prompt and not _is_unproven(run) else None


def kv_bytes_per_s(run: SealedRun, _limits: Limits | None = None) -> float | None:
    """Return the rate at which caches delivered KV.

    Formula: sum of cached tokens x KV bytes per token / total time; none where the bytes per token are not known.
    """
    per_token = (run.record.get("blocks") or {}).get("kv_bytes_per_token")
    cached = sum_of_all(row.cached_tokens for row in run.answered)
    return per_second(run, cached * per_token if cached is not None and per_token else None)


def slo_attainment(run: SealedRun, limits: Limits) -> float | None:
    """Return the share of requests that met every SLO; failed ones did not.

    Formula: requests with TTFT x time scale <= limit / requests sent; none without an SLO. In an open loop TTFT counts
    from the schedule here, so that the wait at the cap is in it.
    """
    met = _met(run, limits)
    return met / len(run.measured) if met is not None and run.measured else None


def goodput_per_s(run: SealedRun, limits: Limits) -> float | None:
    """Return the rate of requests that met every SLO.

    Formula: requests with TTFT x time scale <= limit / total time; none without an SLO. In an open loop TTFT counts
    from the schedule here, so that the wait at the cap is in it.
    """
    return per_second(run, _met(run, limits))


def _met(run: SealedRun, limits: Limits) -> int | None:
    """Return how many requests met every SLO; None without an SLO."""
    ttft = ttft_from_schedule_s if run.treatment in limits.open_loops else ttft_s
    if limits.ttft_s is None or _is_unproven(run):
        return None
    times = [time * limits.time_scale for row in run.answered if (time := ttft(row)) is not None]
    return sum(time <= limits.ttft_s for time in times)


def per_second(run: SealedRun, amount: float | None) -> float | None:
    """Return an amount of a run over its total time."""
    window = total_time_s(run)
    return amount / window if amount is not None and window else None


def sum_of_all(values: Iterable[_Number | None]) -> _Number | None:
    """Return the sum, or None where one value is missing or there is none: a sum of some would pass for that of all."""
    known = list(values)
    told = [value for value in known if value is not None]
    return sum(told[1:], told[0]) if told and len(told) == len(known) else None


def _is_unproven(run: SealedRun) -> bool:
    return any(row.tier == "unproven" for row in run.answered)


# -- all of them by name -----------------------------------------------------------------------------------------------


def _of_requests(name: str, label: str, of_request: Callable[[Row], float | None]) -> list[Metric]:
    words: dict[Statistic, str] = {"p50": "P50", "p95": "P95", "p99": "P99", "max": "maximum"}
    return [
        Metric(f"{name}_{key}", f"{label} {word}", "s", "time", key, of_request=of_request)
        for key, word in words.items()
    ]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_of_requests("ttft", "TTFT", ttft_s),
        *_of_requests("ttft_content", "TTFT of content", ttft_content_s),
        *_of_requests("tpot", "TPOT", tpot_s),
        *_of_requests("latency", "latency", latency_s),
        *_of_requests("latency_from_schedule", "latency from schedule", latency_from_schedule_s),
        Metric("ttft_mean", "TTFT mean", "s", "time", "mean", of_request=ttft_s),
        Metric("user_rate_mean", "tokens/s a user, mean", "tokens/s", "rate", "mean", of_request=user_rate),
        Metric("total_time", "total time", "s", "time", "run", of_run=total_time_s),
        Metric("requests_per_s", "requests/s", "1/s", "rate", "run", of_run=requests_per_s),
        Metric("output_tokens_per_s", "output tokens/s", "tokens/s", "rate", "run", of_run=output_tokens_per_s),
        Metric("prompt_tokens_per_s", "prompt tokens/s", "tokens/s", "rate", "run", of_run=prompt_tokens_per_s),
        Metric("hit_rate", "hit rate", "share", "rate", "run", of_run=hit_rate),
        Metric("kv_bytes_per_s", "KV delivered", "bytes/s", "rate", "run", of_run=kv_bytes_per_s),
        Metric("slo_attainment", "SLO attainment", "share", "rate", "run", of_run=slo_attainment),
        Metric("goodput_per_s", "goodput", "1/s", "rate", "run", of_run=goodput_per_s),
    )
}


def limits_of(asked: dict[str, Any]) -> Limits:
    """Return the SLOs that a result is held against; a scale model's times count at full scale."""
    loops = frozenset(name for name in asked["treatments"] if open_loop_of(asked, name) is not None)
    return Limits(asked["slo"].get("ttft"), time_scale_of(asked), loops)


def rows_of(run: SealedRun, length: int | None) -> list[Row]:
    """Return the requests of one prompt length, or of all, that give figures of requests."""
    return [row for row in run.proven if length in (None, row.length)]


def of_run(metric: Metric, run: SealedRun, limits: Limits, length: int | None = None) -> float | None:
    """Return the metric of one run, which is what two arms are compared by; None where the run cannot support it."""
    if metric.of_run is not None:
        return metric.of_run(run, limits) if length is None else None
    assert metric.of_request is not None  # noqa: S101 - a metric has one of the two
    found = [metric.of_request(row) for row in rows_of(run, length)]
    values = [value for value in found if value is not None]
    if not values:
        return None
    if metric.statistic == "p50":
        return statistics.median(values)
    if metric.statistic == "max":
        return max(values)
    if metric.statistic == "mean":
        return statistics.fmean(values)
    return percentile_interval(values, _PERCENTILES[metric.statistic]).value


def of_treatment(metric: Metric, runs: Sequence[SealedRun], limits: Limits, length: int | None = None) -> Figure:
    """Return the metric over all given runs of one treatment."""
    if metric.of_run is not None:
        return over_rounds([metric.of_run(run, limits) for run in runs], share=metric.unit == "share")
    values, units = values_of(metric, runs, length)
    rounds = len({run.repeat for run in runs})
    if metric.statistic == "max":
        return Figure(len(values), len(set(units)), rounds, max(values, default=None), None, None, "none", None, None)
    if metric.statistic == "mean":
        return over_mean(values, units, rounds)
    held = any(row.conversation_id for run in runs for row in run.measured)
    return over_requests(values, units, _PERCENTILES[metric.statistic], rounds, are_conversations=held)


def values_of(
    metric: Metric, runs: Sequence[SealedRun], length: int | None = None
) -> tuple[list[float], list[Hashable]]:
    """Return the value of each request, and for each the conversation or the prompt of its run that it belongs to."""
    assert metric.of_request is not None  # noqa: S101
    values: list[float] = []
    units: list[Hashable] = []
    for run in runs:
        for row in rows_of(run, length):
            if (value := metric.of_request(row)) is not None:
                values.append(value)
                units.append((run.run_id, row.conversation_id or row.prompt_id))
    return values, units


def of_all(runs: Sequence[SealedRun], limits: Limits) -> dict[str, dict[str, Any]]:
    """Return every metric of a treatment by its name, over all its prompt lengths."""
    return {name: of_treatment(metric, runs, limits).to_json() for name, metric in METRICS.items()}


def failures(runs: Sequence[SealedRun]) -> dict[str, int]:
    """Count failed requests by cause, of invalid runs too: they are in no figure, and they are never hidden."""
    return dict(Counter(row.status for run in runs for row in run.measured if row.status != "ok"))
