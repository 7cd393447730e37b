"""Combines the requests or rounds of a treatment into one figure with its interval, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis.measured import counts
from kvbench.analysis.metrics import METRICS, PERCENTILES
from kvbench.analysis.stats.intervals import mean_by_unit, median_by_unit, percentile_interval
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS
from kvbench.analysis.summary_types import Figure
from kvbench.percentile import needed_n

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from kvbench.analysis.measured import Limits, MeasuredRun, OfRequests
    from kvbench.analysis.metrics import Metric

    Array = NDArray[np.float64]
    Units = NDArray[np.intp]

PROMPTS_REPEAT, SEVERAL_TURNS = "prompts repeat", "several turns each"  # why requests are not independent


# -- requests ----------------------------------------------------------------------------------------------------------


def values_of(metric: Metric, runs: Sequence[MeasuredRun], length: int | None = None) -> tuple[Array, Units]:
    """Return the value of each proven request, and the number of its unit: its conversation or prompt in its run."""
    values: list[Array] = [np.empty(0)]
    units: list[Units] = [np.empty(0, dtype=np.intp)]
    first = 0
    assert metric.of_requests is not None  # noqa: S101 - asked of metrics of requests only
    for run in runs:
        found, unit = run.request_values.of(metric.of_requests, length)
        values.append(found)
        units.append(unit + first)
        first += int(unit.max(initial=-1)) + 1
    return np.concatenate(values), np.concatenate(units)


# -- one run -----------------------------------------------------------------------------------------------------------


def of_run(metric: Metric, run: MeasuredRun, limits: Limits, length: int | None = None) -> float | None:
    """Return the metric of one run, which is what two arms are compared by; None where the run cannot support it."""
    if metric.of_run is not None:
        return metric.of_run(run, limits) if length is None else None
    assert metric.of_requests is not None  # noqa: S101 - a metric has one of the two
    values, _ = run.request_values.of(metric.of_requests, length)
    if not len(values):
        return None
    if metric.statistic == "p50":
        return float(np.median(values))
    if metric.statistic == "max":
        return float(values.max())
    if metric.statistic == "mean":
        return float(values.mean())
    return percentile_interval(values, PERCENTILES[metric.statistic]).value


def by_round(
    metric: Metric, runs: Sequence[MeasuredRun], limits: Limits, length: int | None = None
) -> dict[int, float]:
    """Return the metric of each run by its round, without runs that cannot support it."""
    found = {run.record.repeat: of_run(metric, run, limits, length) for run in runs}
    return {repeat: value for repeat, value in found.items() if value is not None}


# -- one treatment -----------------------------------------------------------------------------------------------------


def of_treatment(metric: Metric, runs: Sequence[MeasuredRun], limits: Limits, length: int | None = None) -> Figure:
    """Return the metric over all given runs of one treatment."""
    (figure,) = of_treatment_each([metric], runs, limits, length)
    return figure


def of_all(runs: Sequence[MeasuredRun], limits: Limits) -> dict[str, Figure]:
    """Return every metric of a treatment by its name, over all its prompt lengths."""
    return dict(zip(METRICS, of_treatment_each(list(METRICS.values()), runs, limits), strict=True))


def of_treatment_each(
    metrics: Sequence[Metric], runs: Sequence[MeasuredRun], limits: Limits, length: int | None = None
) -> list[Figure]:
    """Return several metrics over all given runs of one treatment; values that they share are gathered once."""
    rounds = len({run.record.repeat for run in runs})
    held = any(run.measured["conversation_id"].notna().any() for run in runs)
    found: dict[OfRequests, tuple[Array, Units]] = {}
    figures = []
    for metric in metrics:
        if metric.of_requests is None:
            figures.append(over_rounds([of_run(metric, run, limits) for run in runs], is_share=metric.unit == "share"))
            continue
        if metric.of_requests not in found:
            found = {metric.of_requests: values_of(metric, runs, length)}  # no more than one is kept
        values, units = found[metric.of_requests]
        if metric.statistic == "max":
            top = float(values.max()) if len(values) else None
            figures.append(Figure(len(values), count_of(units), rounds, top, None, None, "none", None, None))
        elif metric.statistic == "mean":
            figures.append(over_mean(values, units, rounds))
        else:
            percentile = PERCENTILES[metric.statistic]
            figures.append(over_requests(values, units, percentile, rounds, are_conversations=held))
    return figures


def over_mean(values: Array, units: Units, rounds: int) -> Figure:
    """Return the mean over requests; its interval counts conversations or prompts, not requests."""
    if not len(values):
        return Figure(0, 0, rounds, None, None, None, "none", None, "n/a (n=0)")
    found = mean_by_unit(values, units)
    bound = "none" if found.low is None else "two-sided"
    return Figure(found.n, found.units, rounds, found.value, found.low, found.high, bound, None, found.refusal)


def over_requests(
    values: Array, units: Units, percentile: float, rounds: int, *, are_conversations: bool = False
) -> Figure:
    """Return a percentile over requests, with an interval as far as independent units support one.

    Where requests outnumber their prompts or conversations, these are the units: the median's interval counts them, and
    a percentile beyond the median has a value, if there are units enough for it, but no interval.
    The median of few requests is given as their middle, with the refusal of its interval beside it. A prompt counts
    once in each run that sent it.
    """
    noun = "conversations" if are_conversations else "prompts"
    n, count, needed = len(values), count_of(units), needed_n(percentile)
    least = needed_n(percentile, two_sided=False)
    if n == count:
        plain = percentile_interval(values, percentile)
        middle = float(np.median(values)) if percentile == 50 and n else plain.value
        return Figure(n, n, rounds, middle, plain.low, plain.high, plain.bound, needed, plain.note)
    if percentile == 50:
        found = median_by_unit(values, units)
        bound = "none" if found.low is None else "two-sided"
        return Figure(n, count, rounds, found.value, found.low, found.high, bound, needed, found.refusal)
    if count < least:
        return Figure(n, count, rounds, None, None, None, "none", needed, f"n/a ({count} {noun} < {least})")
    value = percentile_interval(values, percentile).value
    why = f"no interval: {n} requests of {count} {noun}, {SEVERAL_TURNS if are_conversations else PROMPTS_REPEAT}"
    return Figure(n, count, rounds, value, None, None, "none", needed, why)


def over_rounds(values: Sequence[float | None], *, is_share: bool = False) -> Figure:
    """Return the mean of a figure over rounds, with a t interval from three rounds on, cut at what is possible."""
    known = [value for value in values if value is not None]
    rounds, value = len(known), float(np.mean(known)) if known else None
    if rounds < FEWEST_ROUNDS:
        lacking = f"n/a ({len(values) - rounds} of {len(values)} runs without it)" if rounds < len(values) else None
        refusal = lacking or f"n/a (rounds={rounds} < {FEWEST_ROUNDS})"
        return Figure(rounds, rounds, rounds, value, None, None, "none", FEWEST_ROUNDS, refusal)
    found = mean_by_unit(known, range(rounds))
    low, high = max(0.0, found.low or 0.0), found.high
    high = min(1.0, high) if is_share and high is not None else high
    return Figure(rounds, rounds, rounds, value, low, high, "two-sided", FEWEST_ROUNDS, None)


def count_of(units: Units) -> int:
    """Return how many units there are; they are numbers from 0."""
    return int(np.count_nonzero(np.bincount(units)))


# -- counts ------------------------------------------------------------------------------------------------------------


def failures(runs: Sequence[MeasuredRun]) -> dict[str, int]:
    """Count failed requests by cause, of invalid runs too: they are in no figure, and they are never hidden."""
    counted = counts([run.measured["status"] for run in runs])
    return {cause: count for cause, count in counted.items() if cause != "ok"}


def tiers(parts: Sequence[pd.Series]) -> dict[str, int]:
    """Count requests by the tier that served them, from the columns of several runs."""
    return counts([part.fillna("unproven") for part in parts])
