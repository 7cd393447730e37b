"""Compares the treatments of one result with its baseline: ratios by round, the noise floor, and the conclusion.

Two treatments of one definition are an A/A pair: their ratio shows how far the set-up differs from itself, and no
difference below that is claimed in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kvbench.analysis import aggregate
from kvbench.analysis.metrics import limits_of
from kvbench.analysis.stats.intervals import by_unit
from kvbench.analysis.stats.power import detectable_effect, rounds_needed
from kvbench.analysis.stats.rank_test import rank_test
from kvbench.analysis.stats.ratios import compare_ratio, figure_of, holm, noise_floor
from kvbench.analysis.summary_types import JudgedRatio, RankComparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeVar

    from kvbench.analysis.measured import MeasuredRun
    from kvbench.analysis.measured_result import Dataset
    from kvbench.analysis.metrics import Metric
    from kvbench.analysis.stats.ratios import Kind, RatioFigure, SampleFigure
    from kvbench.result.plan_record import Design

    _Key = TypeVar("_Key")

MARGIN = 0.05
MOST_RANKED = 50  # values of an arm; with more, the interval is what to read
EFFECT = 0.05  # the difference for which a result says how many rounds would show it


@dataclass(frozen=True, slots=True)
class Place:
    """One figure of a treatment: its metric and its prompt length, None for all lengths together."""

    metric: Metric
    length: int | None = None


def rounds_of(dataset: Dataset, place: Place) -> pd.DataFrame:
    """Return the figure of every used run: rounds down, treatments across, NaN where a run cannot support it.

    A treatment of which one is zero is left out: it has no ratio, and the rounds without it would tell another story.
    """
    limits = limits_of(dataset.design)
    columns = {
        name: pd.Series(aggregate.by_round(place.metric, dataset.of(name), limits, place.length), dtype=float)
        for name in dataset.design.treatments
    }
    rounds = pd.DataFrame(columns).sort_index()
    return rounds.loc[:, ~(rounds <= 0).any()]


def ratio_between(rounds: pd.DataFrame, baseline: str, treatment: str, kind: Kind) -> RatioFigure:
    """Return how much faster one treatment is than another, paired by round; `rounds` is from `rounds_of`."""
    pair = rounds.reindex(columns=[baseline, treatment]).dropna(how="all")
    both = pair.dropna()
    logs = np.log(both[baseline]) - np.log(both[treatment])
    left_out = tuple(int(number) for number in pair.index.difference(both.index))
    return figure_of([float(log) if kind == "time" else -float(log) for log in logs], left_out=left_out)


def baselines_of(design: Design) -> dict[str, str | None]:
    """Return for each treatment the one that it is compared with; None for a treatment that is a baseline itself.

    One that others are compared with, and that has another concurrency than its own baseline, starts a group of its
    own: its change would be that of the load.
    """
    planned = {name: design.baseline_of(name) for name in design.treatments}
    heads = set(planned.values())
    return {
        name: None if name in heads and _is_other_load(design, name, base) else base for name, base in planned.items()
    }


def _is_other_load(design: Design, name: str, base: str | None) -> bool:
    return base is not None and design.concurrency_of(name) != design.concurrency_of(base)


def same_pairs(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    """Return the A/A pairs of a result."""
    states = {name: dataset.cache_state(name) for name in dataset.design.treatments}
    return tuple(dataset.design.same_pairs(states))


def pair_rounds(dataset: Dataset) -> int | None:
    """Return how many rounds the noise floor is from: of the A/A pair that shares the fewest; None without any."""
    repeats = {name: {run.repeat for run in dataset.of(name)} for name in dataset.design.treatments}
    return min((len(repeats[one] & repeats[other]) for one, other in same_pairs(dataset)), default=None)


def floor_of(rounds: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return the noise floor of a figure from the result's A/A pairs, the widest of them; None without any."""
    found = [ratio_between(rounds, one, other, "time") for one, other in pairs]
    return max((noise_floor(figure) for figure in found if figure.logs), default=None)


def judge(figures: Mapping[_Key, RatioFigure], floors: Mapping[_Key, float | None]) -> dict[_Key, JudgedRatio]:
    """Return each ratio with what may be said of it; all of them together are what Holm's correction counts."""
    adjusted = adjusted_p(figures)
    return {key: _judged(figure, floors.get(key), adjusted.get(key)) for key, figure in figures.items()}


def adjusted_p(figures: Mapping[_Key, RatioFigure] | Mapping[_Key, SampleFigure]) -> dict[_Key, float]:
    """Return Holm's p-value of each figure that has one."""
    known = {key: figure.p_value for key, figure in figures.items() if figure.p_value is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def _judged(figure: RatioFigure, floor: float | None, adjusted: float | None) -> JudgedRatio:
    verdict = compare_ratio(figure, MARGIN, floor or 1.0, adjusted)
    seen = np.exp(figure.logs)
    sd_log = figure.sd_log if figure.refusal is None else None
    return JudgedRatio(
        ratio=figure.ratio,
        low=figure.low,
        high=figure.high,
        rounds=figure.rounds,
        method=figure.method,
        least=float(seen.min()) if len(seen) else None,
        most=float(seen.max()) if len(seen) else None,
        sd_log=figure.sd_log,
        p_value=figure.p_value,
        p_holm=adjusted,
        noise_floor=floor,
        word=verdict.word,
        reason=verdict.reason,
        refusal=figure.refusal,
        rounds_needed=rounds_needed(sd_log, EFFECT) if sd_log is not None else None,
        detectable=detectable_effect(sd_log, figure.rounds) if sd_log is not None else None,
    )


def ranks_between(
    arms: tuple[Sequence[MeasuredRun], Sequence[MeasuredRun]], place: Place, names: tuple[str, str]
) -> RankComparison | None:
    """Return how the requests of two arms lie by rank, one value for each prompt of a run; None with no or many values.

    It needs no rounds, so it also speaks where there are too few of them; what drifted between rounds is in it.
    """
    if place.metric.of_requests is None:
        return None
    found = [aggregate.values_of(place.metric, runs, place.length) for runs in arms]
    if not all(0 < aggregate.count_of(units) <= MOST_RANKED for _, units in found):
        return None
    test = rank_test(by_unit(*found[0]), by_unit(*found[1]), names=names)
    return RankComparison(
        n_a=test.n_a,
        n_b=test.n_b,
        superiority=test.superiority,
        low=test.low,
        high=test.high,
        p_value=test.p_value,
        sentence=test.sentence,
        is_separate=test.is_separate,
    )
