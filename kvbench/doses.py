"""What neighbours cost: for each treatment with neighbours what they delivered, and what that did to the load.

Each is held against its quiet partner (`against`), round by round. A throughput loss (1 - noisy / quiet) and a time
increase (noisy / quiet - 1) are different numbers, and both are given. Where a bottleneck of known capacity C was made,
and the neighbours' bytes pass it, a storage-bound load must keep (C - delivered) / C of its quiet draw. C is the
larger of the limit and the quiet draw, because a limit may let several streams together pass a little more.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench import metrics
from kvbench.analysis.stats.ratios import equivalent, figure_of, ratio_by_round
from kvbench.checks.neighbors import PAYLOAD_SHARE
from kvbench.checks.verdict import baseline_of
from kvbench.metrics import METRICS
from kvbench.percentile import needed_n

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kvbench.analysis.stats.ratios import RatioFigure
    from kvbench.metrics import Metric
    from kvbench.sealed import SealedResult, SealedRun

    Rounds = dict[int, float]

LEAST_DRAW = 0.95  # of the limit; a quiet load that draws less is bound by something else
MOST_DRAW = (
    1.06  # a control group's limit passes 3 to 6 % more for long; what it passes at once weighs in short windows
)
MARGIN = 0.10
_RATE, _TIME, _KV = (METRICS[name] for name in ("requests_per_s", "total_time", "kv_bytes_per_s"))


@dataclass(frozen=True, slots=True)
class _Arm:
    """One treatment with neighbours: the user's name of the load, its target, its quiet partner, None without one."""

    name: str
    load: str
    target: dict[str, Any]
    quiet: str | None

    @property
    def unlimited(self) -> bool:
        return self.target.get("aggregate") is None and self.target.get("fraction") is None


def doses(result: SealedResult) -> dict[str, Any] | None:
    """Return what neighbours did to each treatment that has them; None where the scenario has none.

    Shape: {"bottleneck", "limit_bytes_per_s", "quiet": {name: {...}}, "levels": [...], "hosts": [...], "lost": [...],
    "attempts": [...]}; every ratio and every change is {"value", "low", "high", "rounds", "refusal"}.
    """
    arms = _arms(result.asked)
    if not arms:
        return None
    bottleneck = _bottleneck(result)
    limit = _limit(bottleneck)
    partners = {arm.quiet for arm in arms}
    quiet = {name: _quiet(result, name, limit) for name in result.asked["treatments"] if name in partners}
    names = [*quiet, *(arm.name for arm in arms)]
    return {
        "bottleneck": bottleneck,
        "limit_bytes_per_s": limit,
        "quiet": quiet,
        "levels": [_level(result, arm, quiet, limit) for arm in arms],
        "hosts": [row for name in names for row in _hosts(name, result.of(name))],
        "lost": list(_lost(result)),
        "attempts": list(_attempts(result)),
    }


def _arms(asked: Mapping[str, Any]) -> list[_Arm]:
    """Return the treatments with neighbours; one that is held against another of them has no quiet partner."""
    told = {name: one["neighbors"] for name, one in (asked.get("definitions") or {}).items() if one.get("neighbors")}
    arms = []
    for name in asked["treatments"]:
        for load, target in told.get(name, {}).items():
            base = baseline_of(asked, name)
            arms.append(_Arm(name, load, target, base if base not in told else None))
    return arms


def _recompute(asked: Mapping[str, Any]) -> str | None:
    """Return the quiet treatment without a cache, None where there is none."""
    told = asked["definitions"].items()
    return next((name for name, one in told if one.get("cache") == "off" and not one.get("neighbors")), None)


def _bottleneck(result: SealedResult) -> dict[str, Any] | None:
    """Return what the runs say of the bottleneck; that of one for which it could not be made, if there is any."""
    told = [run.record["bottleneck"] for run in result.runs if run.record.get("bottleneck")]
    missing = [one for one in told if one["how"] is None]
    found = (missing or told)[:1]
    return dict(found[0]) if found else None


def _limit(bottleneck: Mapping[str, Any] | None) -> float | None:
    """Return the payload that a bottleneck lets pass; None where there is none."""
    if bottleneck is None or bottleneck["how"] is None:
        return None
    return float(bottleneck["bytes_per_s"]) * PAYLOAD_SHARE[bottleneck["kind"]]


def _passes(result: SealedResult, arm: _Arm, bottleneck: Mapping[str, Any] | None) -> bool:
    """Tell whether a load shares the bottleneck: reads under a read limit, reads or `reverse` streams over a link."""
    setting = (result.asked.get("setting") or {}).get("neighbors") or {}
    spec = (setting.get("loads") or {}).get(arm.load) or {}
    reads = (spec.get("fio") or {}).get("rw", "read") in ("read", "randread")
    if bottleneck is None:
        return False
    if spec.get("iperf3"):
        return bottleneck["kind"] == "link" and bool(spec["iperf3"].get("reverse", True))
    return reads


# -- one treatment -----------------------------------------------------------------------------------------------------


def _quiet(result: SealedResult, name: str, limit: float | None) -> dict[str, Any]:
    """Return what the load does undisturbed; `storage_bound` is None where no limit is known."""
    draw = _by_round(result, name, _KV)
    mean = _mean(draw.values())
    return {
        **_load_figures(result, name),
        "window_s": _mean(_by_round(result, name, _TIME).values()),
        "of_limit": mean / limit if mean is not None and limit else None,
        "storage_bound": mean >= LEAST_DRAW * limit if mean is not None and limit else None,
    }


def _level(result: SealedResult, arm: _Arm, quiet: Mapping[str, dict[str, Any]], limit: float | None) -> dict[str, Any]:
    """Return the row of one treatment with neighbours."""
    runs = _told(result.of(arm.name))
    delivered = {run.repeat: float(run.record["neighbors"]["delivered_bytes_per_s"]) for run in runs}
    rates = {key: _mean(_known(runs, f"{key}_bytes_per_s")) for key in ("asked", "calibrated")}
    partner = quiet.get(arm.quiet or "")
    passes = limit is not None and _passes(result, arm, _bottleneck(result))
    capacity = _capacity(limit if passes else None, partner, rates["calibrated"])
    mean = _mean(delivered.values())
    return {
        "treatment": arm.name,
        "quiet": arm.quiet,
        "load": arm.load,
        "generator": next(_known(runs, "generator"), None),
        "hosts": max((len(run.record["neighbors"]["hosts"]) for run in runs), default=0),
        "target": next(_known(runs, "target"), None),
        "unlimited": arm.unlimited,
        "asked_bytes_per_s": rates["asked"],
        "calibrated_bytes_per_s": rates["calibrated"],
        "delivered_bytes_per_s": _spread(delivered.values()),
        "delivered_over_asked": _mean(_known(runs, "delivered_over_asked")),
        "capacity": capacity,
        "of_capacity": mean / capacity["bytes_per_s"] if mean is not None and capacity else None,
        "course": _course(runs),
        **_load_figures(result, arm.name),
        **_passed(result, arm.name, delivered, limit if passes else None),
        **_effect(result, arm),
        **_expectation(_shares(result, arm), delivered, capacity if passes else None, arm, partner),
    }


def _load_figures(result: SealedResult, name: str) -> dict[str, Any]:
    """Return what a treatment did, with the words on its runs and the run that stands for it in plots over time."""
    rates = _by_round(result, name, _RATE)
    ordered = sorted((rate, repeat) for repeat, rate in rates.items())
    middle = ordered[(len(ordered) - 1) // 2][1] if ordered else None
    return {
        "requests_per_s": _spread(rates.values()),
        "kv_bytes_per_s": _spread(_by_round(result, name, _KV).values()),
        "runs": sum(run.treatment == name for run in result.runs),
        "runs_used": len(result.of(name)),
        "verdicts": dict(Counter(run.verdict.word for run in result.runs if run.treatment == name)),
        "typical_run": next((run.run_id for run in result.of(name) if run.repeat == middle), None),
    }


def _capacity(limit: float | None, quiet: Mapping[str, Any] | None, calibrated: float | None) -> dict[str, Any] | None:
    """Return what shares are of, and which figure that is."""
    draw = quiet["kv_bytes_per_s"]["mean"] if quiet is not None else None
    if limit is not None and draw is not None and draw > limit:
        return {"bytes_per_s": draw, "source": "quiet draw"}
    if limit is not None:
        return {"bytes_per_s": limit, "source": "limit"}
    return {"bytes_per_s": calibrated, "source": "calibrated"} if calibrated else None


def _course(runs: Sequence[SealedRun]) -> dict[str, Any]:
    """Return the extremes of how the trials of a level went."""
    trials = [run.record["neighbors"]["trial"] for run in runs if run.record["neighbors"].get("trial")]
    found: dict[str, Any] = {
        key: max((one[key] for one in trials if one.get(key) is not None), default=None)
        for key in ("ramp_s", "start_skew_s", "stop_s")
    }
    return found | {"steady": sum(bool(one["steady"]) for one in trials), "trials": len(trials)}


def _passed(result: SealedResult, name: str, delivered: Rounds, limit: float | None) -> dict[str, Any]:
    """Return what the load and its neighbours moved together through the limit; nothing where they do not share one."""
    draw = _by_round(result, name, _KV) if limit else {}
    total = _mean(draw[number] + delivered[number] for number in draw.keys() & delivered.keys())
    return {
        "passed_bytes_per_s": total,
        "passed_over_limit": total / limit if total is not None and limit else None,
    }


# -- against the quiet partner -----------------------------------------------------------------------------------------


def _effect(result: SealedResult, arm: _Arm) -> dict[str, Any]:
    """Return every change against the quiet partner; intervals are t intervals of the rounds' log ratios."""
    compared = (_RATE, _TIME, _KV, METRICS["ttft_p50"], METRICS["ttft_p95"])
    rate, time, share, p50, p95 = (_ratio_between(result, arm.quiet, arm.name, metric) for metric in compared)
    above = _ratio_between(result, _recompute(result.asked), arm.name, _RATE)
    return {
        "requests_share": _ratio(rate),
        "throughput_loss": _loss(rate),
        "time_increase": _increase(time),
        "kv_share": _ratio(share),
        "ttft_p50_increase": _increase(p50),
        "ttft_p95_increase": _increase(p95, _too_few(result, arm)),
        "requests_over_recompute": _ratio(above),
    }


def _too_few(result: SealedResult, arm: _Arm) -> str | None:
    """Return why a run has no P95, if none of one side has it."""
    counts = [len(run.proven) for name in (arm.name, arm.quiet or "") for run in result.of(name)]
    needed = needed_n(95, two_sided=False)
    return f"n/a (n={min(counts)} < {needed})" if counts and min(counts) < needed else None


def _shares(result: SealedResult, arm: _Arm) -> Rounds:
    """Return by round what was left of the quiet partner's KV rate."""
    noisy, quiet = _by_round(result, arm.name, _KV), _by_round(result, arm.quiet, _KV)
    return {number: noisy[number] / quiet[number] for number in sorted(noisy.keys() & quiet.keys())}


def _expectation(
    shares: Rounds,
    delivered: Rounds,
    capacity: Mapping[str, Any] | None,
    arm: _Arm,
    quiet: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the share that must be left, and whether the measured one agrees; `unjudged` says why it is not judged."""
    nothing = {"expected_share": None, "over_expected": _ratio(None), "agreement": None}
    if capacity is None:
        return {**nothing, "unjudged": "no shared bottleneck"}
    if arm.unlimited:
        return {**nothing, "unjudged": "nothing paces it"}
    total = float(capacity["bytes_per_s"])
    left = {number: (total - rate) / total for number, rate in delivered.items() if number in shares and rate < total}
    if len(left) < sum(number in shares for number in delivered):
        return {**nothing, "unjudged": "neighbours took all of it"}
    if not left:
        return {**nothing, "unjudged": "no shared round"}
    figure = figure_of([math.log(shares[number] / left[number]) for number in left])
    doubt = None if quiet and quiet["storage_bound"] else "not storage-bound"
    doubt = "too few rounds" if figure.low is None else doubt
    doubt = "quiet too short" if quiet and (quiet["of_limit"] or 0.0) > MOST_DRAW else doubt
    return {
        "expected_share": statistics.fmean(left.values()),
        "over_expected": _ratio(figure),
        "agreement": _agreement(figure) if doubt is None else None,
        "unjudged": doubt,
    }


def _agreement(figure: RatioFigure) -> str:
    """Return `shown` if the whole 90 % interval of measured over expected lies within 10 %, `mean` if its mean does."""
    if equivalent(figure, MARGIN).shown:
        return "shown"
    return "mean" if abs(math.log(figure.ratio or math.inf)) < math.log1p(MARGIN) else "no"


# -- side clients ------------------------------------------------------------------------------------------------------


def _hosts(name: str, runs: Sequence[SealedRun]) -> Iterator[dict[str, Any]]:
    """Yield what each side client did in a treatment, over all its used runs."""
    told = [run.record["neighbors"]["hosts"] for run in _told(runs)]
    for host in sorted({host for hosts in told for host in hosts}):
        own = [hosts[host] for hosts in told if host in hosts]
        facts = own[0].get("facts") or {}
        errors = [max(one.get("clock_error_s") or 0.0, abs(one.get("clock_drift_s") or 0.0)) for one in own]
        yield {
            "treatment": name,
            "host": host,
            "runs": len(own),
            "delivered_bytes_per_s": _mean(one["delivered_bytes_per_s"] for one in own),
            "coverage": min((one["coverage"] for one in own if one["coverage"] is not None), default=None),
            "clock_error_s": max(errors),
            "device": own[0]["device"],
            "device_bytes_per_s": _mean(
                one["device_bytes_per_s"] for one in own if one["device_bytes_per_s"] is not None
            ),
            "device_shared_with_server": bool(own[0].get("device_shared_with_server")),
            "direct": facts.get("direct"),
            "scheduler": _scheduler((facts.get("queue") or {}).get("scheduler")),
            "file_system": facts.get("file_system"),
            "version": facts.get("version"),
        }


def _scheduler(told: str | None) -> str | None:
    """Return the scheduler that is in use, of "none [mq-deadline] kyber"."""
    found = re.search(r"\[(.+?)\]", told or "")
    return found[1] if found else told


def _lost(result: SealedResult) -> Iterator[dict[str, Any]]:
    for run in result.runs:
        for one in (run.record.get("neighbors") or {}).get("lost") or ():
            yield {"run_id": run.run_id, "host": one["host"], "why": one["why"], "used": run.used}


def _attempts(result: SealedResult) -> Iterator[dict[str, Any]]:
    """Yield the tries of runs that were broken off because a host was lost."""
    for run in result.runs:
        for number, one in enumerate((run.record.get("neighbors") or {}).get("attempts") or (), 1):
            yield {"run_id": run.run_id, "try": number, "why": one["why"]}


# -- small arithmetic --------------------------------------------------------------------------------------------------


def _by_round(result: SealedResult, name: str | None, metric: Metric) -> Rounds:
    """Return the figure of each used run by its round; nothing where one of them is zero, which has no ratio."""
    limits = metrics.limits_of(result.asked)
    found = {
        run.repeat: metrics.of_run(metric, run, limits) for run in result.runs if run.used and run.treatment == name
    }
    known = {number: value for number, value in found.items() if value is not None}
    return known if all(value > 0 for value in known.values()) else {}


def _ratio_between(result: SealedResult, baseline: str | None, name: str, metric: Metric) -> RatioFigure | None:
    """Return how much faster a treatment is than another, paired by round; None without another."""
    if baseline is None:
        return None
    arms = [{number: [value] for number, value in _by_round(result, one, metric).items()} for one in (baseline, name)]
    return ratio_by_round(arms[0], arms[1], kind=metric.kind)


def _told(runs: Iterable[SealedRun]) -> list[SealedRun]:
    return [run for run in runs if run.record.get("neighbors")]


def _known(runs: Iterable[SealedRun], key: str) -> Iterator[Any]:
    return (run.record["neighbors"][key] for run in runs if run.record["neighbors"].get(key) is not None)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def _spread(values: Iterable[float]) -> dict[str, Any]:
    found = list(values)
    return {"mean": _mean(found), "least": min(found, default=None), "most": max(found, default=None), "n": len(found)}


def _ratio(figure: RatioFigure | None) -> dict[str, Any]:
    if figure is None:
        return {"value": None, "low": None, "high": None, "rounds": 0, "refusal": "n/a (no partner)"}
    refusal = figure.refusal if figure.rounds else "n/a (no shared round)"
    return {
        "value": figure.ratio, "low": figure.low, "high": figure.high, "rounds": figure.rounds, "refusal": refusal
    }  # fmt: skip


def _loss(figure: RatioFigure | None) -> dict[str, Any]:
    """Return 1 - noisy / quiet of a rate, whose ratio is noisy / quiet."""
    one = _ratio(figure)
    ends = {"value": "value", "low": "high", "high": "low"}
    return one | {key: None if one[end] is None else 1 - one[end] for key, end in ends.items()}


def _increase(figure: RatioFigure | None, refusal: str | None = None) -> dict[str, Any]:
    """Return noisy / quiet - 1 of a time, whose ratio is quiet / noisy: above 1 is faster."""
    one = _ratio(figure)
    ends = {"value": "value", "low": "high", "high": "low"}
    changed = one | {key: None if one[end] is None else 1 / one[end] - 1 for key, end in ends.items()}
    return changed | {"refusal": refusal} if changed["value"] is None and refusal else changed
