"""Two results side by side: what differed between their worlds, then what changed in their figures.

A is the base, and every ratio is B / A of what was measured. The rounds of two results are no pairs, so the interval is
that of two samples; what drifted between the two days is in the ratio, and only the noise floor speaks of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench import calibration, gates, likeness, metrics, sealed, speed_ups, summary
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS, compare_ratio, mean_over_rounds, ratio_of_samples
from kvbench.errors import ResultError
from kvbench.metrics import METRICS
from kvbench.result.calibration_record import CalibrationExcerpt
from kvbench.result.record_files import read_plan, read_run
from kvbench.speed_ups import Place
from kvbench.typed_json import from_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.analysis.stats.ratios import Comparison, SampleFigure
    from kvbench.gates import Gate
    from kvbench.likeness import Difference
    from kvbench.pooled import Figure
    from kvbench.sealed import SealedResult

SAME, BOTH_ZERO = "it is the same result", "both are 0"
NOT_COMPARABLE = "cannot be compared"
_NONE_SHOWN = "no difference shown"
_DIFFERENT = ("faster", "slower")
_OF_SHARES = {"faster": "higher", "slower": "lower"}


def compare(
    base: Path, other: Path, *, margin: float = speed_ups.MARGIN, anyway: bool = False, asked: Sequence[Gate] = ()
) -> dict[str, Any]:
    """Compare result B (`other`) with result A (`base`).

    Shape: {"base", "other", "same_result", "question", "facts", "margin", "figures": [...], "gates": [...]}.

    Raises:
        ResultError: a folder is not a result, they share no treatment, or they were asked different questions and
            `anyway` is not set.
        OptionError: a gate is on a treatment or a length that not both have.

    """
    pair = (sealed.read(base), sealed.read(other))
    question = likeness.differing_questions(*(_question(one) for one in pair))
    if question and not anyway:
        told = "; ".join(f"{name} {_short(name, one)} against {_short(name, two)}" for name, one, two in question)
        raise ResultError(
            f"the two results were asked different questions: {told}",
            "Compare results of one scenario, or add --anyway to see the figures that both have.",
        )
    same = _is_same(*pair)
    figures = _figures(pair, margin, same=same)
    for gate in asked:
        gates.check(gate, _treatments(pair), _lengths(pair))
    return {
        "base": _about(pair[0], summary.summarise(base)),
        "other": _about(pair[1], summary.summarise(other)),
        "same_result": same,
        "question": _as_json(question),
        "facts": _as_json(likeness.differing_facts(*(_facts(one) for one in pair))),
        "margin": margin,
        "same_pairs": {"base": speed_ups.same_pairs(pair[0]), "other": speed_ups.same_pairs(pair[1])},
        "same_pair_rounds": {"base": speed_ups.pair_rounds(pair[0]), "other": speed_ups.pair_rounds(pair[1])},
        "figures": figures,
        "gates": [_gate_json(gates.judge(gate, figures)) for gate in asked],
    }


def _short(name: str, value: Any) -> str:
    if value is None:
        return "full scale" if name == "scale" else "none"
    pairs = [f"{key} {item}" for key, item in value.items()] if isinstance(value, dict) else value
    text = ", ".join(map(str, pairs)) if isinstance(pairs, list) else str(pairs)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _gate_json(outcome: gates.Outcome) -> dict[str, Any]:
    return {
        "expression": outcome.expression,
        "word": outcome.word,
        "reason": outcome.reason,
        "remedy": outcome.remedy,
        "failed": outcome.failed,
    }


def _as_json(found: Sequence[Difference]) -> list[dict[str, Any]]:
    return [{"name": name, "base": one, "other": two} for name, one, two in found]


def _about(result: SealedResult, summed: dict[str, Any]) -> dict[str, Any]:
    return {
        "scenario": result.plan["scenario"],
        "result": result.folder.name,
        "verdict": summed["verdict"],
        "complete": summed["complete"],
        "runs": len(result.runs),
        "runs_used": len(result.used),
        "facts_changed": summed["facts_changed"],
        "imported": result.asked.get("imported"),
    }


def _question(result: SealedResult) -> dict[str, Any]:
    states = {name: result.cache_state(name) for name in result.asked["treatments"]}
    return likeness.question_of(read_plan(result.folder), states)


def _facts(result: SealedResult) -> dict[str, Any]:
    """Gather the facts of a result; the client's calibrated error is one of them."""
    first = read_run(result.folder / "runs" / result.runs[0].run_id)
    facts = likeness.facts_of(result.facts, read_plan(result.folder), first)
    told = from_json(CalibrationExcerpt, result.calibration, "the calibration") if result.calibration else None
    error = f"{calibration.worst_error_s(told)[0] * 1e6:.0f} us" if told is not None else None
    return {**facts, "calibration": {"worst error": error}}


def _is_same(one: SealedResult, other: SealedResult) -> bool:
    """Tell whether both are one result, or one a copy of the other."""
    if one.folder.resolve() == other.folder.resolve():
        return True
    pairs = zip(one.runs, other.runs, strict=False)
    return len(one.runs) == len(other.runs) and all(a.record == b.record and a.rows == b.rows for a, b in pairs)


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(pair: tuple[SealedResult, SealedResult], margin: float, *, same: bool) -> list[dict[str, Any]]:
    """Compare every metric at every place; Holm's correction counts the places of one metric."""
    names = _treatments(pair)
    if not names:
        raise ResultError("the two results have no treatment in common", "Compare results of one scenario.")
    known = _lengths(pair)
    slo_differs = pair[0].asked["slo"] != pair[1].asked["slo"]
    found = []
    for metric in METRICS.values():
        if metric.name in gates.OF_SLO and slo_differs:
            continue
        lengths = known if metric.of_request is not None else []
        found += _family([(name, Place(metric)) for name in names], pair, margin, same=same)
        places = [(name, Place(metric, isl)) for isl in lengths for name in names]
        found += _family(places, pair, margin, same=same)
    return _with_lengths(found)


def _treatments(pair: tuple[SealedResult, SealedResult]) -> list[str]:
    """Return the treatments that both have."""
    return [name for name in pair[0].asked["treatments"] if name in pair[1].asked["treatments"]]


def _lengths(pair: tuple[SealedResult, SealedResult]) -> list[int]:
    """Return the prompt lengths that both were asked for."""
    return [isl for isl in pair[0].asked["lengths"] if isl in pair[1].asked["lengths"]]


def _with_lengths(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark for each metric the places that stand for every prompt length: "all" where lengths are not known."""
    having = {one["metric"] for one in found if one["length"] is not None}
    return [{**one, "is_length": one["length"] is not None or one["metric"] not in having} for one in found]


def _family(
    places: Sequence[tuple[str, Place]], pair: tuple[SealedResult, SealedResult], margin: float, *, same: bool
) -> list[dict[str, Any]]:
    ratios = {(name, place): _ratio(pair, name, place) for name, place in places}
    adjusted = speed_ups.adjusted_p(ratios)
    floors = {place: _floor(pair, place) for _, place in places}
    found = []
    for (name, place), ratio in ratios.items():
        sides = [metrics.of_treatment(place.metric, one.of(name), _limits(one), place.length) for one in pair]
        if all(side.value is None for side in sides) and ratio.ratio is None:
            continue
        floor, p_holm = floors[place], adjusted.get((name, place))
        said = compare_ratio(ratio, margin, floor or 1.0, p_holm)
        beyond = compare_ratio(ratio, None, floor or 1.0, p_holm)
        value, low, high = _upright(ratio, place)
        word, reason = _say(said, ratio, sides, place, same=same)
        found.append(
            {
                "metric": place.metric.name,
                "treatment": name,
                "length": place.length,
                "base": sides[0].to_json(),
                "other": sides[1].to_json(),
                "over_rounds": _over_rounds(pair, name, place) if ratio.ratio is not None else None,
                "ratio": value,
                "low": low,
                "high": high,
                "rounds": ratio.rounds,
                "p_value": ratio.p_value,
                "p_holm": p_holm,
                "noise_floor": floor,
                "word": _OF_SHARES.get(word, word) if place.metric.unit == "share" else word,
                "reason": reason,
                "is_zero": all(side.value == 0 for side in sides),
                "differs": beyond.word in _DIFFERENT and not same,
                "rank": None if same or ratio.low is not None else _rank(pair, name, place),
            }
        )
    return found


def _limits(result: SealedResult) -> metrics.Limits:
    return metrics.limits_of(result.asked)


def _ratio(pair: tuple[SealedResult, SealedResult], name: str, place: Place) -> SampleFigure:
    arms = [speed_ups.rounds_of(one.of(name), place, _limits(one)) for one in pair]
    return ratio_of_samples(arms[0], arms[1], kind=place.metric.kind)


def _over_rounds(pair: tuple[SealedResult, SealedResult], name: str, place: Place) -> list[float | None]:
    """Return the geometric mean of each side's rounds: their quotient is the ratio, that of pooled medians is not."""
    return [mean_over_rounds(speed_ups.rounds_of(one.of(name), place, _limits(one))) for one in pair]


def _floor(pair: tuple[SealedResult, SealedResult], place: Place) -> float | None:
    """Return the larger noise floor of the two results; None where neither has an A/A pair."""
    known = [floor for one in pair if (floor := speed_ups.floor_of(one, place)) is not None]
    return max(known, default=None)


def _upright(figure: SampleFigure, place: Place) -> tuple[float | None, float | None, float | None]:
    """Turn "above 1 is faster" into B / A of what was measured: for times that is the inverse."""
    if place.metric.kind == "rate" or figure.ratio is None:
        return figure.ratio, figure.low, figure.high
    low, high = (1 / end if end is not None else None for end in (figure.high, figure.low))
    return 1 / figure.ratio, low, high


def _say(
    said: Comparison, ratio: SampleFigure, sides: Sequence[Figure], place: Place, *, same: bool
) -> tuple[str, str]:
    """Return the word and its reason; "cannot be compared" where one side has no figure or is zero."""
    values = [side.value for side in sides]
    if same:
        return _NONE_SHOWN, SAME
    if values == [0, 0]:
        return _NONE_SHOWN, BOTH_ZERO
    if ratio.low is not None:
        return said.word, said.reason
    if place.metric.statistic in ("p95", "p99") and not min(ratio.rounds):
        return NOT_COMPARABLE, f"too few requests a round for {place.metric.label}"
    if ratio.ratio is None:
        lacking = ("A", "B")[0 if not values[0] else 1]
        return NOT_COMPARABLE, f"{lacking} is 0" if 0 in values else f"{lacking} has no figure"
    return said.word, f"fewer than {FEWEST_ROUNDS} rounds ({ratio.rounds[0]} and {ratio.rounds[1]})"


def _rank(pair: tuple[SealedResult, SealedResult], name: str, place: Place) -> dict[str, Any] | None:
    """Compare by rank where there are too few rounds for an interval; for medians only, since ranks are of requests."""
    if place.metric.statistic != "p50":
        return None
    return speed_ups.ranks_between((pair[1].of(name), pair[0].of(name)), place, ("B", "A"))
