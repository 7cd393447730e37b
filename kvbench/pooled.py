"""A figure of a treatment: over its requests or over its rounds, with what n does not support of it."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvbench.analysis.stats.intervals import mean_by_unit, median_by_unit, percentile_interval
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS
from kvbench.percentile import needed_n

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

PROMPTS_REPEAT, SEVERAL_TURNS = "prompts repeat", "several turns each"  # why requests are not independent


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a treatment: its value and interval, from how much, and what n does not support.

    `n` counts requests, or rounds for figures of a run; `units` what of it is independent. `refusal` stands in place of
    the value where there is none, else in place of the interval. With `bound` "upper" only `high` is given.
    """

    n: int
    units: int
    rounds: int
    value: float | None
    low: float | None
    high: float | None
    bound: str
    needed_n: int | None
    refusal: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the figure as plain JSON values."""
        return asdict(self)


def over_mean(values: Sequence[float], units: Sequence[Hashable], rounds: int) -> Figure:
    """Return the mean over requests; its interval counts conversations or prompts, not requests."""
    n, count = len(values), len(set(units))
    if not values:
        return Figure(0, 0, rounds, None, None, None, "none", None, "n/a (n=0)")
    found = mean_by_unit(values, units)
    bound = "none" if found.low is None else "two-sided"
    return Figure(n, count, rounds, statistics.fmean(values), found.low, found.high, bound, None, found.refusal)


def over_requests(
    values: Sequence[float],
    units: Sequence[Hashable],
    percentile: float,
    rounds: int,
    *,
    are_conversations: bool = False,
) -> Figure:
    """Return a percentile over requests, with an interval as far as independent units support one.

    Where requests outnumber their prompts or conversations, these are the units: the median's interval counts them, and
    a percentile beyond the median has a value, if there are units enough for it, but no interval.
    The median of few requests is given as their middle, with the refusal of its interval beside it. A prompt counts
    once in each run that sent it.
    """
    noun = "conversations" if are_conversations else "prompts"
    n, count, needed = len(values), len(set(units)), needed_n(percentile)
    least = needed_n(percentile, two_sided=False)
    if n == count:
        plain = percentile_interval(values, percentile)
        middle = statistics.median(values) if percentile == 50 and values else plain.value
        return Figure(n, n, rounds, middle, plain.low, plain.high, plain.bound, needed, plain.note)
    if percentile == 50:
        found = median_by_unit(values, units)
        bound = "none" if found.low is None else "two-sided"
        return Figure(n, count, rounds, found.value, found.low, found.high, bound, needed, found.refusal)
    if count < least:
        return Figure(n, count, rounds, None, None, None, "none", needed, f"n/a ({count} {noun} < {least})")
    value = percentile_interval(values, percentile).value
    told = f"no interval: {n} requests of {count} {noun}, {SEVERAL_TURNS if are_conversations else PROMPTS_REPEAT}"
    return Figure(n, count, rounds, value, None, None, "none", needed, told)


def over_rounds(values: Sequence[float | None], *, share: bool = False) -> Figure:
    """Return the mean of a figure over rounds, with a t interval from three rounds on, cut at what is possible."""
    known = [value for value in values if value is not None]
    rounds, value = len(known), statistics.fmean(known) if known else None
    if rounds < FEWEST_ROUNDS:
        lacking = f"n/a ({len(values) - rounds} of {len(values)} runs without it)" if rounds < len(values) else None
        refusal = lacking or f"n/a (rounds={rounds} < {FEWEST_ROUNDS})"
        return Figure(rounds, rounds, rounds, value, None, None, "none", FEWEST_ROUNDS, refusal)
    found = mean_by_unit(known, range(rounds))
    low, high = max(0.0, found.low or 0.0), found.high
    high = min(1.0, high) if share and high is not None else high
    return Figure(rounds, rounds, rounds, value, low, high, "two-sided", FEWEST_ROUNDS, None)
