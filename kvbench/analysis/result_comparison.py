"""Compares two results: first what differed in plan, host and software, then what changed in the figures.

A is the base, and every ratio is B / A of what was measured. The rounds of two results are no pairs, so the interval is
that of two samples; what drifted between the two days is in the ratio, and only the noise floor speaks of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.analysis import aggregate, baseline_comparison, dataset, summary
from kvbench.analysis.baseline_comparison import MARGIN, Place
from kvbench.analysis.comparison_types import ComparedFigure, ComparedResult, Difference, ResultComparison
from kvbench.analysis.gates import check, judge
from kvbench.analysis.metrics import METRICS, limits_of
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS, compare_ratio, mean_over_rounds, ratio_of_samples
from kvbench.errors import ResultError
from kvbench.result import calibration, differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kvbench.analysis.gates import Gate
    from kvbench.analysis.measured_result import Dataset
    from kvbench.analysis.metrics import Metric
    from kvbench.analysis.stats.ratios import Comparison, SampleFigure
    from kvbench.analysis.summary_types import Figure, RankComparison
    from kvbench.typed_json import JsonObject

    Pair = tuple[Dataset, Dataset]

SAME, BOTH_ZERO = "it is the same result", "both are 0"
NOT_COMPARABLE = "cannot be compared"
_NONE_SHOWN = "no difference shown"
_DIFFERENT = ("faster", "slower")
_OF_SHARES = {"faster": "higher", "slower": "lower"}


def compare(
    base: Path, other: Path, *, margin: float = MARGIN, anyway: bool = False, gates: Sequence[Gate] = ()
) -> ResultComparison:
    """Compare result B (`other`) with result A (`base`).

    Raises:
        ResultError: a folder is not a result, they share no treatment, or they were asked different questions and
            `anyway` is not set.
        OptionError: a gate is on a treatment or a length that not both have.

    """
    return compare_datasets(dataset.read(base), dataset.read(other), margin=margin, anyway=anyway, gates=gates)


def compare_datasets(
    base: Dataset, other: Dataset, *, margin: float = MARGIN, anyway: bool = False, gates: Sequence[Gate] = ()
) -> ResultComparison:
    """Compare two results that are read already; see `compare`."""
    pair = (base, other)
    question = differences.differing_questions(_question(base), _question(other))
    if question and not anyway:
        listed = "; ".join(f"{name} {_short(name, one)} against {_short(name, two)}" for name, one, two in question)
        raise ResultError(
            f"the two results were asked different questions: {listed}",
            "Compare results of one scenario, or add --anyway to see the figures that both have.",
        )
    same = _is_same(base, other)
    figures = tuple(_figures(pair, margin, same=same))
    for gate in gates:
        check(gate, _treatments(pair), _lengths(pair))
    return ResultComparison(
        base=_about(base),
        other=_about(other),
        same_result=same,
        question=tuple(Difference(*one) for one in question),
        facts=tuple(Difference(*one) for one in differences.differing_facts(_facts(base), _facts(other))),
        margin=margin,
        figures=figures,
        gates=tuple(judge(gate, figures) for gate in gates),
    )


# -- question and facts ------------------------------------------------------------------------------------------------


def _short(name: str, value: Any) -> str:
    if value is None:
        return "full scale" if name == "scale" else "none"
    pairs = [f"{key} {item}" for key, item in value.items()] if isinstance(value, dict) else value
    text = ", ".join(map(str, pairs)) if isinstance(pairs, list) else str(pairs)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _about(result: Dataset) -> ComparedResult:
    return ComparedResult(
        scenario=result.plan.scenario,
        result=result.folder.name,
        verdict=summary.verdict_on(result),
        complete=summary.is_complete(result),
        runs=len(result.runs),
        runs_used=len(result.used),
        facts_changed=summary.facts_changed(result),
        imported=result.design.imported,
        same_pairs=baseline_comparison.same_pairs(result),
        same_pair_rounds=baseline_comparison.pair_rounds(result),
    )


def _question(result: Dataset) -> JsonObject:
    states = {name: result.cache_state(name) for name in result.design.treatments}
    return differences.question_of(result.plan, states)


def _facts(result: Dataset) -> JsonObject:
    """Gather the facts of a result; the client's calibrated error is one of them."""
    facts = differences.facts_of(result.facts, result.plan, result.runs[0].record)
    excerpt = result.calibration
    error = f"{calibration.worst_error_s(excerpt)[0] * 1e6:.0f} us" if excerpt is not None else None
    return {**facts, "calibration": {"worst error": error}}


def _is_same(base: Dataset, other: Dataset) -> bool:
    """Tell whether both are one result, or one a copy of the other."""
    if base.folder.resolve() == other.folder.resolve():
        return True
    pairs = zip(base.runs, other.runs, strict=False)
    return len(base.runs) == len(other.runs) and all(
        a.record == b.record and a.measured.equals(b.measured) for a, b in pairs
    )


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(pair: Pair, margin: float, *, same: bool) -> Iterator[ComparedFigure]:
    """Compare every metric at every place; Holm's correction counts the places of one metric."""
    names = _treatments(pair)
    if not names:
        raise ResultError("the two results have no treatment in common", "Compare results of one scenario.")
    lengths = _lengths(pair)
    slo_differs = pair[0].design.slo != pair[1].design.slo
    asked = [metric for metric in METRICS.values() if not (metric.needs_slo and slo_differs)]
    sides = {
        (name, isl): _sides(pair, name, isl, [one for one in asked if isl is None or one.of_requests is not None])
        for name in names
        for isl in (None, *lengths)
    }
    for metric in asked:
        known = lengths if metric.of_requests is not None else []
        families = [
            [_Place(Place(metric, isl), name, sides[name, isl][metric.name]) for isl in part for name in names]
            for part in ([None], known)
        ]
        over_all, by_length = (list(_family(places, pair, margin, same=same)) for places in families)
        yield from (replace(one, is_length=not by_length) for one in over_all)
        yield from by_length


def _treatments(pair: Pair) -> list[str]:
    """Return the treatments that both have."""
    return [name for name in pair[0].design.treatments if name in pair[1].design.treatments]


def _lengths(pair: Pair) -> list[int]:
    """Return the prompt lengths that both were asked for."""
    return [isl for isl in pair[0].design.lengths if isl in pair[1].design.lengths]


def _sides(pair: Pair, name: str, isl: int | None, asked: Sequence[Metric]) -> dict[str, tuple[Figure, Figure]]:
    """Return by metric the figures of a treatment in both results."""
    base, other = (aggregate.of_treatment_each(asked, one.of(name), limits_of(one.design), isl) for one in pair)
    return {metric.name: (base[number], other[number]) for number, metric in enumerate(asked)}


@dataclass(frozen=True, slots=True)
class _Place:
    """A place under one treatment, with the figures that both results have there."""

    place: Place
    treatment: str
    sides: tuple[Figure, Figure]


def _family(places: Sequence[_Place], pair: Pair, margin: float, *, same: bool) -> Iterator[ComparedFigure]:
    rounds = {
        place: tuple(baseline_comparison.rounds_of(result, place) for result in pair)
        for place in dict.fromkeys(one.place for one in places)
    }
    arms = {(one.treatment, one.place): [_arm(table, one.treatment) for table in rounds[one.place]] for one in places}
    ratios = {key: ratio_of_samples(*arm, kind=key[1].metric.kind) for key, arm in arms.items()}
    adjusted = baseline_comparison.adjusted_p(ratios)
    floors = {place: _floor(pair, tables) for place, tables in rounds.items()}
    for one in places:
        key = (one.treatment, one.place)
        ratio, floor, p_holm = ratios[key], floors[one.place], adjusted.get(key)
        if all(side.value is None for side in one.sides) and ratio.ratio is None:
            continue
        verdict = compare_ratio(ratio, margin, floor or 1.0, p_holm)
        beyond = compare_ratio(ratio, None, floor or 1.0, p_holm)
        value, low, high = _upright(ratio, one.place)
        word, reason = _say(verdict, ratio, one, same=same)
        means = [mean_over_rounds(arm) for arm in arms[key]]
        yield ComparedFigure(
            metric=one.place.metric.name,
            treatment=one.treatment,
            length=one.place.length,
            is_length=True,
            base=one.sides[0],
            other=one.sides[1],
            over_rounds=(means[0], means[1]) if ratio.ratio is not None else None,
            ratio=value,
            low=low,
            high=high,
            rounds=ratio.rounds,
            p_value=ratio.p_value,
            p_holm=p_holm,
            noise_floor=floor,
            word=_OF_SHARES.get(word, word) if one.place.metric.unit == "share" else word,
            reason=reason,
            is_zero=all(side.value == 0 for side in one.sides),
            differs=beyond.word in _DIFFERENT and not same,
            rank=None if same or ratio.low is not None else _rank(pair, one),
        )


def _arm(rounds: pd.DataFrame, treatment: str) -> dict[int, list[float]]:
    """Return the figure of each round of a treatment."""
    column = rounds[treatment].dropna() if treatment in rounds else pd.Series(dtype=float)
    return {int(repeat): [float(value)] for repeat, value in zip(column.index, column, strict=True)}


def _floor(pair: Pair, tables: Sequence[pd.DataFrame]) -> float | None:
    """Return the larger noise floor of the two results; None where neither has an A/A pair."""
    floors = [
        baseline_comparison.floor_of(rounds, baseline_comparison.same_pairs(result))
        for result, rounds in zip(pair, tables, strict=True)
    ]
    return max((floor for floor in floors if floor is not None), default=None)


def _upright(figure: SampleFigure, place: Place) -> tuple[float | None, float | None, float | None]:
    """Turn "above 1 is faster" into B / A of what was measured: for times that is the inverse."""
    if place.metric.kind == "rate" or figure.ratio is None:
        return figure.ratio, figure.low, figure.high
    low, high = (1 / end if end is not None else None for end in (figure.high, figure.low))
    return 1 / figure.ratio, low, high


def _say(verdict: Comparison, ratio: SampleFigure, compared: _Place, *, same: bool) -> tuple[str, str]:
    """Return the word and its reason; "cannot be compared" where one side has no figure or is zero."""
    values, metric = [side.value for side in compared.sides], compared.place.metric
    if same:
        return _NONE_SHOWN, SAME
    if values == [0, 0]:
        return _NONE_SHOWN, BOTH_ZERO
    if ratio.low is not None:
        return verdict.word, verdict.reason
    if metric.statistic in ("p95", "p99") and not min(ratio.rounds):
        return NOT_COMPARABLE, f"too few requests a round for {metric.label}"
    if ratio.ratio is None:
        lacking = ("A", "B")[0 if not values[0] else 1]
        return NOT_COMPARABLE, f"{lacking} is 0" if 0 in values else f"{lacking} has no figure"
    return verdict.word, f"fewer than {FEWEST_ROUNDS} rounds ({ratio.rounds[0]} and {ratio.rounds[1]})"


def _rank(pair: Pair, compared: _Place) -> RankComparison | None:
    """Compare by rank where there are too few rounds for an interval; for medians only, since ranks are of requests."""
    if compared.place.metric.statistic != "p50":
        return None
    return baseline_comparison.ranks_between(
        (pair[1].of(compared.treatment), pair[0].of(compared.treatment)), compared.place, ("B", "A")
    )
