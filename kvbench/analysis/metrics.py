"""Defines the metrics: what is computed from one request, and what from one run.

Figures of requests (`ttft`, `tpot`, ...) become percentiles over requests; figures of a run (`requests_per_s`, ...)
become means over rounds. Failed requests are in no time. A request whose tier was not proven gives no time, and a run
that holds one gives no figure of the run, because both would be told as figures of a cache state that nobody has shown.

A new metric is one entry of `METRICS` (docs/adding.md). A function of requests takes the DataFrame of a run's proven
requests and returns a value for each, null where there is none; its docstring has the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from kvbench.analysis import measured
from kvbench.analysis.measured import Limits, as_floats, per_second, sum_of_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.analysis.measured import Columns, MeasuredRun, OfRequests
    from kvbench.analysis.stats.ratios import Kind
    from kvbench.result.plan_record import Design

    OfRun = Callable[[MeasuredRun, Limits], float | None]

Unit = Literal["s", "1/s", "tokens/s", "bytes/s", "share"]
Statistic = Literal["p50", "p95", "p99", "max", "mean", "run"]
PERCENTILES: dict[Statistic, float] = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure by its name: what it is read off, over what, and whether less of it is better.

    It has `of_requests` or `of_run`, never both. `needs_slo` says that there is no figure without an SLO, `in_table`
    that tables show it; JSON has every metric.
    """

    name: str
    label: str
    unit: Unit
    kind: Kind
    statistic: Statistic
    of_requests: OfRequests | None = None
    of_run: OfRun | None = None
    needs_slo: bool = False
    in_table: bool = True


# -- requests ----------------------------------------------------------------------------------------------------------


def ttft_s(requests: Columns) -> pd.Series:
    """Return the time to the first token on any channel.

    Formula: first_token_ns - sent_ns.
    """
    return requests["ttft_s"]


def ttft_content_s(requests: Columns) -> pd.Series:
    """Return the time to the first token of the answer itself, reasoning left out.

    Formula: first_content_ns - sent_ns.
    """
    return requests["ttft_content_s"]


def tpot_s(requests: Columns) -> pd.Series:
    """Return the time per output token after the first, which AIPerf calls ITL.

    Formula: (latency - TTFT) / (OSL - 1); none below two output tokens.
    """
    return requests["tpot_s"]


def latency_s(requests: Columns) -> pd.Series:
    """Return the time to the last token.

    Formula: last_token_ns - sent_ns.
    """
    return requests["latency_s"]


def user_rate(requests: Columns) -> pd.Series:
    """Return the output tokens per second that one user sees, prefill included.

    Formula: OSL / latency.
    """
    tokens, latency = requests["osl"], requests["latency_s"]
    return tokens.where(tokens != 0) / latency.where(latency != 0)


def ttft_from_schedule_s(requests: Columns) -> pd.Series:
    """Return the time to the first token from the moment for which the request was scheduled.

    Formula: first_token_ns - scheduled_ns.
    """
    return _span_s(requests["scheduled_ns"], requests["first_token_ns"])


def latency_from_schedule_s(requests: Columns) -> pd.Series:
    """Return the latency from the moment for which the request was scheduled: waiting for a free connection is in it.

    Formula: last_token_ns - scheduled_ns, of requests that were answered whole.
    """
    return _span_s(requests["scheduled_ns"], requests["last_token_ns"]).where(requests["latency_s"].notna())


def _span_s(start_ns: pd.Series, end_ns: pd.Series) -> pd.Series:
    """Return the seconds between stamps, also where a wrong clock sets them so far apart that arrow would refuse."""
    return pd.Series(as_floats(end_ns - start_ns) / 1e9, index=end_ns.index)


# -- one run -----------------------------------------------------------------------------------------------------------


def total_time_s(run: MeasuredRun, _limits: Limits | None = None) -> float | None:
    """Return how long the load took.

    Formula: that of `measured.total_time_s`.
    """
    return measured.total_time_s(run.record, run.measured)


def requests_per_s(run: MeasuredRun, _limits: Limits | None = None) -> float | None:
    """Return the request rate that was achieved.

    Formula: answered requests / total time.
    """
    return per_second(run, len(run.answered))


def output_tokens_per_s(run: MeasuredRun, _limits: Limits | None = None) -> float | None:
    """Return the rate of output tokens, prefill included.

    Formula: sum of OSL / total time.
    """
    return per_second(run, sum_of_all(run.answered["osl"]))


def prompt_tokens_per_s(run: MeasuredRun, _limits: Limits | None = None) -> float | None:
    """Return the rate of prompt tokens, whether they were computed or cached.

    Formula: sum of ISL / total time.
    """
    return per_second(run, sum_of_all(run.answered["isl"]))


def hit_rate(run: MeasuredRun, _limits: Limits | None = None) -> float | None:
    """Return the share of prompt tokens that came from a cache.

    Formula: sum of cached tokens / sum of ISL.
    """
    return None if _is_unproven(run) else hit_rate_of(run.answered)


def hit_rate_of(answered: Columns) -> float | None:
    """Return the hit rate of answered requests; None where one of them does not tell.

    Formula: sum of cached tokens / sum of ISL.
    """
    cached, prompt = sum_of_all(answered["cached_tokens"]), sum_of_all(answered["isl"])
    return cached / prompt if cached is not None and prompt else None


def kv_bytes_per_s(run: MeasuredRun, _limits: Limits | None = None) -> float | None:
    """Return the rate at which caches delivered KV.

    Formula: sum of cached tokens x KV bytes per token / total time; none where the bytes per token are not known.
    """
    per_token = run.record.blocks.kv_bytes_per_token if run.record.blocks is not None else None
    cached = sum_of_all(run.answered["cached_tokens"])
    return per_second(run, cached * per_token if cached is not None and per_token else None)


def slo_attainment(run: MeasuredRun, limits: Limits) -> float | None:
    """Return the share of requests that met every SLO; failed ones did not.

    Formula: requests with TTFT x time scale <= limit / requests sent; none without an SLO. In an open loop TTFT counts
    from the schedule here, so that the wait at the cap is in it.
    """
    met = _met(run, limits)
    return met / len(run.measured) if met is not None and len(run.measured) else None


def goodput_per_s(run: MeasuredRun, limits: Limits) -> float | None:
    """Return the rate of requests that met every SLO.

    Formula: requests with TTFT x time scale <= limit / total time; none without an SLO. In an open loop TTFT counts
    from the schedule here, so that the wait at the cap is in it.
    """
    return per_second(run, _met(run, limits))


def _met(run: MeasuredRun, limits: Limits) -> int | None:
    """Return how many requests met every SLO; None without an SLO."""
    ttft = ttft_from_schedule_s if run.record.treatment in limits.open_loops else ttft_s
    if limits.ttft_s is None or _is_unproven(run):
        return None
    return int((ttft(run.answered) * limits.time_scale <= limits.ttft_s).sum())


def _is_unproven(run: MeasuredRun) -> bool:
    return bool((run.answered["tier"] == "unproven").any())


# -- all of them by name -----------------------------------------------------------------------------------------------


_USER_RATE = "tokens/s a user, mean"
_WORDS: dict[Statistic, str] = {"p50": "P50", "p95": "P95", "p99": "P99", "max": "maximum"}


def _of_requests(name: str, label: str, of_requests: OfRequests, in_table: tuple[Statistic, ...] = ()) -> list[Metric]:
    return [
        Metric(f"{name}_{key}", f"{label} {word}", "s", "time", key, of_requests=of_requests, in_table=key in in_table)
        for key, word in _WORDS.items()
    ]


# Tables show them in this order. Latency from the schedule says nothing in a closed loop, and stands in a table of its
# own for an open one.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_of_requests("ttft", "TTFT", ttft_s, in_table=("p50", "p95", "p99", "max")),
        *_of_requests("ttft_content", "TTFT of content", ttft_content_s),
        *_of_requests("tpot", "TPOT", tpot_s, in_table=("p50",)),
        *_of_requests("latency", "latency", latency_s, in_table=("p50", "p95", "p99")),
        *_of_requests("latency_from_schedule", "latency from schedule", latency_from_schedule_s),
        Metric("ttft_mean", "TTFT mean", "s", "time", "mean", of_requests=ttft_s, in_table=False),
        Metric("user_rate_mean", _USER_RATE, "tokens/s", "rate", "mean", of_requests=user_rate, in_table=False),
        Metric("total_time", "total time", "s", "time", "run", of_run=total_time_s),
        Metric("requests_per_s", "requests/s", "1/s", "rate", "run", of_run=requests_per_s),
        Metric("output_tokens_per_s", "output tokens/s", "tokens/s", "rate", "run", of_run=output_tokens_per_s),
        Metric("prompt_tokens_per_s", "prompt tokens/s", "tokens/s", "rate", "run", of_run=prompt_tokens_per_s),
        Metric("hit_rate", "hit rate", "share", "rate", "run", of_run=hit_rate),
        Metric("kv_bytes_per_s", "KV delivered", "bytes/s", "rate", "run", of_run=kv_bytes_per_s),
        Metric("slo_attainment", "SLO attainment", "share", "rate", "run", of_run=slo_attainment, needs_slo=True),
        Metric("goodput_per_s", "goodput", "1/s", "rate", "run", of_run=goodput_per_s, needs_slo=True),
    )
}


def limits_of(design: Design) -> Limits:
    """Return the SLOs that a result is held against; a scale model's times count at full scale."""
    loops = frozenset(name for name in design.treatments if design.open_loop_of(name) is not None)
    return Limits(design.slo.ttft, design.time_scale, loops)
