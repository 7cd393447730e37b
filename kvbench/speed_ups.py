"""What the treatments of one result are worth against its baseline: ratios by round, the noise floor, and the word.

Two treatments of one definition are an A/A pair: their ratio shows how far the set-up differs from itself, and no
difference below that is claimed in the result.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvbench import metrics
from kvbench.analysis.stats.intervals import by_unit
from kvbench.analysis.stats.power import detectable_effect, rounds_needed
from kvbench.analysis.stats.rank_test import rank_test
from kvbench.analysis.stats.ratios import (
    compare_ratio,
    holm,
    noise_floor,
    ratio_by_round,
)
from kvbench.checks import verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeVar

    from kvbench.analysis.stats.ratios import RatioFigure
    from kvbench.metrics import Limits, Metric
    from kvbench.sealed import SealedResult, SealedRun

    _Key = TypeVar("_Key")

MARGIN = 0.05
MOST_RANKED = 50  # values of an arm; with more, the interval is what to read
EFFECT = 0.05  # the difference for which a result says how many rounds would show it


@dataclass(frozen=True, slots=True)
class Place:
    """One figure of a treatment: its metric and its prompt length, None for all lengths together."""

    metric: Metric
    length: int | None = None


def rounds_of(runs: Sequence[SealedRun], place: Place, limits: Limits) -> dict[int, list[float]]:
    """Return the figure of each run by its round, without runs that cannot support it.

    Nothing where one of them is zero: it has no ratio, and the rounds without it would tell another story.
    """
    found = {run.repeat: metrics.of_run(place.metric, run, limits, place.length) for run in runs}
    known = {repeat: [value] for repeat, value in found.items() if value is not None}
    return known if all(value > 0 for values in known.values() for value in values) else {}


def ratio_between(result: SealedResult, baseline: str, treatment: str, place: Place) -> RatioFigure:
    """Return how much faster one treatment is than another, paired by round."""
    limits = metrics.limits_of(result.asked)
    arms = [rounds_of(result.of(name), place, limits) for name in (baseline, treatment)]
    return ratio_by_round(arms[0], arms[1], kind=place.metric.kind)


def baselines_of(asked: dict[str, Any]) -> dict[str, str | None]:
    """Return for each treatment the one that it is compared with; None for a treatment that is a baseline itself.

    One that others are compared with, and that has another concurrency than its own baseline, starts a group of its
    own: its change would be that of the load.
    """
    told = {name: verdict.baseline_of(asked, name) for name in asked["treatments"]}
    heads = set(told.values())
    return {name: None if name in heads and _is_other_load(asked, name, base) else base for name, base in told.items()}


def _is_other_load(asked: dict[str, Any], name: str, base: str | None) -> bool:
    return base is not None and verdict.concurrency_of(asked, name) != verdict.concurrency_of(asked, base)


def same_pairs(result: SealedResult) -> list[tuple[str, str]]:
    """Return the A/A pairs of a result."""
    return verdict.same_pairs(result.asked, {name: result.cache_state(name) for name in result.asked["treatments"]})


def pair_rounds(result: SealedResult) -> int | None:
    """Return how many rounds the noise floor is from: of the A/A pair that shares the fewest; None without any."""
    repeats = {name: {run.repeat for run in result.of(name)} for name in result.asked["treatments"]}
    return min((len(repeats[one] & repeats[other]) for one, other in same_pairs(result)), default=None)


def floor_of(result: SealedResult, place: Place) -> float | None:
    """Return the noise floor of a figure from the result's A/A pairs, the widest of them; None without any."""
    found = [ratio_between(result, one, other, place) for one, other in same_pairs(result)]
    return max((noise_floor(figure) for figure in found if figure.logs), default=None)


def judge(figures: Mapping[_Key, RatioFigure], floors: Mapping[_Key, float | None]) -> dict[_Key, dict[str, Any]]:
    """Return each ratio as JSON with what may be said of it; all of them together are what Holm's correction counts."""
    adjusted = adjusted_p(figures)
    return {key: _to_json(figure, floors.get(key), adjusted.get(key)) for key, figure in figures.items()}


def adjusted_p(figures: Mapping[_Key, Any]) -> dict[_Key, float]:
    """Return Holm's p-value of each figure that has one."""
    known = {key: figure.p_value for key, figure in figures.items() if figure.p_value is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def _to_json(figure: RatioFigure, floor: float | None, adjusted: float | None) -> dict[str, Any]:
    said = compare_ratio(figure, MARGIN, floor or 1.0, adjusted)
    seen = [math.exp(log) for log in figure.logs]
    known = figure.sd_log is not None and figure.refusal is None
    return {
        "ratio": figure.ratio,
        "low": figure.low,
        "high": figure.high,
        "rounds": figure.rounds,
        "method": figure.method,
        "least": min(seen, default=None),
        "most": max(seen, default=None),
        "sd_log": figure.sd_log,
        "p_value": figure.p_value,
        "p_holm": adjusted,
        "noise_floor": floor,
        "word": said.word,
        "reason": said.reason,
        "refusal": figure.refusal,
        "rounds_needed": rounds_needed(figure.sd_log, EFFECT) if known and figure.sd_log is not None else None,
        "detectable": detectable_effect(figure.sd_log, figure.rounds) if known and figure.sd_log is not None else None,
    }


def ranks_between(
    arms: tuple[Sequence[SealedRun], Sequence[SealedRun]], place: Place, names: tuple[str, str]
) -> dict[str, Any] | None:
    """Return how the requests of two arms lie by rank, one value for each prompt of a run; None with no or many values.

    It needs no rounds, so it also speaks where there are too few of them; what drifted between rounds is in it.
    """
    if place.metric.of_request is None:
        return None
    values = []
    for runs in arms:
        found, units = metrics.values_of(place.metric, runs, place.length)
        values.append(by_unit(found, units) if found else [])
    if not all(values) or max(map(len, values)) > MOST_RANKED:
        return None
    test = rank_test(values[0], values[1], names=names)
    figure = {**asdict(test), "is_separate": test.is_separate}
    shown = ("n_a", "n_b", "superiority", "low", "high", "p_value", "sentence", "is_separate")
    return {name: figure[name] for name in shown}
