"""Computes what neighbours delivered in each treatment and how much the load slowed down with them.

Each is held against its quiet partner (`against`), round by round. A throughput loss (1 - noisy / quiet) and a time
increase (noisy / quiet - 1) are different numbers, and both are given. Where a bottleneck of known capacity C was made,
and the neighbours' bytes pass it, a storage-bound load must keep (C - delivered) / C of its quiet draw. C is the
larger of the limit and the quiet draw, because a limit may let several streams together pass a little more.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from kvbench.analysis import aggregate, measured
from kvbench.analysis.baseline_comparison import ratio_between
from kvbench.analysis.checks.neighbors import PAYLOAD_SHARE
from kvbench.analysis.metrics import METRICS, limits_of
from kvbench.analysis.neighbor_hosts import (
    broken_tries,
    known_of,
    lost_side_clients,
    mean_of,
    object_of,
    side_clients,
    with_neighbors,
)
from kvbench.analysis.neighbor_types import (
    Capacity,
    Change,
    Extent,
    LoadFigures,
    NeighborImpact,
    NeighborLevel,
    QuietArm,
    TrialExtremes,
)
from kvbench.analysis.stats.ratios import equivalent, figure_of
from kvbench.percentile import needed_n

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kvbench.analysis.measured_result import Dataset
    from kvbench.analysis.metrics import Metric
    from kvbench.analysis.stats.ratios import RatioFigure
    from kvbench.result.plan_record import Design
    from kvbench.result.run_record import BottleneckRecord, NeighborRecord
    from kvbench.typed_json import JsonObject

    Rounds = dict[int, float]

LEAST_DRAW = 0.95  # of the limit; a quiet load that draws less is bound by something else
MOST_DRAW = (
    1.06  # a control group's limit passes 3 to 6 % more for long; what it passes at once weighs in short windows
)
MARGIN = 0.10
_RATE, _TIME, _KV = (METRICS[name] for name in ("requests_per_s", "total_time", "kv_bytes_per_s"))
_NO_PARTNER = Change(None, None, None, 0, "n/a (no partner)")


@dataclass(frozen=True, slots=True)
class _Arm:
    """One treatment with neighbours: the scenario's name of their load, its target, its quiet partner if any."""

    name: str
    load: str
    target: JsonObject
    quiet: str | None

    @property
    def unlimited(self) -> bool:
        return self.target.get("aggregate") is None and self.target.get("fraction") is None


def impact(dataset: Dataset) -> NeighborImpact | None:
    """Return what neighbours did to each treatment that has them; None where the scenario has none."""
    arms = _arms(dataset.design)
    if not arms:
        return None
    bottleneck = _bottleneck(dataset)
    limit = _limit(bottleneck)
    partners = {arm.quiet for arm in arms}
    quiet = {name: _quiet(dataset, name, limit) for name in dataset.design.treatments if name in partners}
    names = [*quiet, *(arm.name for arm in arms)]
    return NeighborImpact(
        bottleneck=bottleneck,
        limit_bytes_per_s=limit,
        quiet=quiet,
        levels=tuple(_level(dataset, arm, quiet, limit) for arm in arms),
        hosts=tuple(line for name in names for line in side_clients(name, dataset.of(name))),
        lost=tuple(lost_side_clients(dataset)),
        attempts=tuple(broken_tries(dataset)),
    )


def _arms(design: Design) -> list[_Arm]:
    """Return the treatments with neighbours; one that is held against another of them has no quiet partner."""
    noisy = {name: object_of(one.get("neighbors")) for name, one in design.definitions.items() if one.get("neighbors")}
    arms = []
    for name in design.treatments:
        for load, target in noisy.get(name, {}).items():
            base = design.baseline_of(name)
            arms.append(_Arm(name, load, object_of(target), base if base not in noisy else None))
    return arms


def _recompute(design: Design) -> str | None:
    """Return the quiet treatment without a cache, None where there is none."""
    definitions = design.definitions.items()
    return next((name for name, one in definitions if one.get("cache") == "off" and not one.get("neighbors")), None)


def _bottleneck(dataset: Dataset) -> BottleneckRecord | None:
    """Return what the runs say of the bottleneck; that of one for which it could not be made, if there is any."""
    records = [run.record.bottleneck for run in dataset.runs if run.record.bottleneck is not None]
    missing = [record for record in records if record.how is None]
    return next(iter(missing or records), None)


def _limit(bottleneck: BottleneckRecord | None) -> float | None:
    """Return the payload that a bottleneck lets pass; None where there is none."""
    if bottleneck is None or bottleneck.how is None or bottleneck.bytes_per_s is None:
        return None
    return bottleneck.bytes_per_s * PAYLOAD_SHARE[bottleneck.kind]


def _passes(dataset: Dataset, arm: _Arm, bottleneck: BottleneckRecord | None) -> bool:
    """Tell whether a load shares the bottleneck: what its generator says, else what older results let conclude."""
    if bottleneck is None:
        return False
    records = with_neighbors(dataset.of(arm.name)).values()
    told = next((record.passes for record in records if record.passes is not None), None)
    if told is not None:
        return bottleneck.kind in told
    loads = object_of(object_of(dataset.design.setting.get("neighbors")).get("loads"))
    spec = object_of(loads.get(arm.load))
    if iperf3 := object_of(spec.get("iperf3")):
        return bottleneck.kind == "link" and bool(iperf3.get("reverse", True))
    return object_of(spec.get("fio")).get("rw", "read") in ("read", "randread")


# -- one treatment -----------------------------------------------------------------------------------------------------


def _quiet(dataset: Dataset, name: str, limit: float | None) -> QuietArm:
    """Return what the load does undisturbed."""
    mean = mean_of(_by_round(dataset, name, _KV).values())
    return QuietArm(
        load=_load_figures(dataset, name),
        window_s=mean_of(_by_round(dataset, name, _TIME).values()),
        of_limit=mean / limit if mean is not None and limit else None,
        storage_bound=mean >= LEAST_DRAW * limit if mean is not None and limit else None,
    )


def _level(dataset: Dataset, arm: _Arm, quiet: Mapping[str, QuietArm], limit: float | None) -> NeighborLevel:
    """Return the row of one treatment with neighbours."""
    records = with_neighbors(dataset.of(arm.name))
    neighbors = list(records.values())
    delivered = {repeat: record.delivered_bytes_per_s for repeat, record in records.items()}
    calibrated = mean_of(known_of(record.calibrated_bytes_per_s for record in neighbors))
    partner = quiet.get(arm.quiet or "")
    passes = limit is not None and _passes(dataset, arm, _bottleneck(dataset))
    capacity = _capacity(limit if passes else None, partner, calibrated)
    mean = mean_of(delivered.values())
    passed = _passed(dataset, arm.name, delivered) if passes and limit else None
    expected = _expectation(dataset, arm, delivered, capacity if passes else None, partner)
    compared = (_RATE, _TIME, _KV, METRICS["ttft_p50"], METRICS["ttft_p95"])
    rate, time, kv, p50, p95 = (_ratio_between(dataset, arm.quiet, arm.name, metric) for metric in compared)
    return NeighborLevel(
        treatment=arm.name,
        quiet=arm.quiet,
        load_name=arm.load,
        generator=next((record.generator for record in neighbors if record.generator is not None), None),
        hosts=max((len(record.hosts) for record in neighbors), default=0),
        target=next((record.target for record in neighbors), None),
        unlimited=arm.unlimited,
        asked_bytes_per_s=mean_of(known_of(record.asked_bytes_per_s for record in neighbors)),
        calibrated_bytes_per_s=calibrated,
        delivered_bytes_per_s=_extent(delivered.values()),
        delivered_over_asked=mean_of(known_of(record.delivered_over_asked for record in neighbors)),
        capacity=capacity,
        of_capacity=mean / capacity.bytes_per_s if mean is not None and capacity else None,
        trials=_trials(neighbors),
        load=_load_figures(dataset, arm.name),
        passed_bytes_per_s=passed,
        passed_over_limit=passed / limit if passed is not None and limit else None,
        requests_share=_change(rate),
        throughput_loss=_loss(rate),
        time_increase=_increase(time),
        kv_share=_change(kv),
        ttft_p50_increase=_increase(p50),
        ttft_p95_increase=_increase(p95, _too_few(dataset, arm)),
        requests_over_recompute=_change(_ratio_between(dataset, _recompute(dataset.design), arm.name, _RATE)),
        expected_share=expected.share,
        over_expected=expected.over,
        agreement=expected.agreement,
        unjudged=expected.unjudged,
    )


def _load_figures(dataset: Dataset, name: str) -> LoadFigures:
    """Return what a treatment did, with the words on its runs and the run that stands for it in plots over time."""
    rates = _by_round(dataset, name, _RATE)
    ordered = sorted((rate, repeat) for repeat, rate in rates.items())
    middle = ordered[(len(ordered) - 1) // 2][1] if ordered else None
    runs = [run for run in dataset.runs if run.treatment == name]
    return LoadFigures(
        requests_per_s=_extent(rates.values()),
        kv_bytes_per_s=_extent(_by_round(dataset, name, _KV).values()),
        runs=len(runs),
        runs_used=len(dataset.of(name)),
        verdicts=measured.counts([pd.Series([run.verdict.word for run in runs], dtype=object)]),
        typical_run=next((run.run_id for run in dataset.of(name) if run.repeat == middle), None),
    )


def _capacity(limit: float | None, quiet: QuietArm | None, calibrated: float | None) -> Capacity | None:
    """Return what shares are of, and which figure that is."""
    draw = quiet.load.kv_bytes_per_s.mean if quiet is not None else None
    if limit is not None and draw is not None and draw > limit:
        return Capacity(draw, "quiet draw")
    if limit is not None:
        return Capacity(limit, "limit")
    return Capacity(calibrated, "calibrated") if calibrated else None


def _trials(neighbors: Sequence[NeighborRecord]) -> TrialExtremes:
    """Return the extremes of how the trials of a level went."""
    trials = [record.trial for record in neighbors if record.trial is not None]
    return TrialExtremes(
        ramp_s=max((trial.ramp_s for trial in trials), default=None),
        start_skew_s=max(known_of(trial.start_skew_s for trial in trials), default=None),
        stop_s=max(known_of(trial.stop_s for trial in trials), default=None),
        steady=sum(trial.steady for trial in trials),
        trials=len(trials),
    )


def _passed(dataset: Dataset, name: str, delivered: Rounds) -> float | None:
    """Return what the load and its neighbours moved together through the limit."""
    draw = _by_round(dataset, name, _KV)
    return mean_of(draw[number] + delivered[number] for number in draw.keys() & delivered.keys())


# -- against the quiet partner -----------------------------------------------------------------------------------------


def _too_few(dataset: Dataset, arm: _Arm) -> str | None:
    """Return why a run has no P95, if none of one side has it."""
    counts = [len(run.proven) for name in (arm.name, arm.quiet or "") for run in dataset.of(name)]
    needed = needed_n(95, two_sided=False)
    return f"n/a (n={min(counts)} < {needed})" if counts and min(counts) < needed else None


@dataclass(frozen=True, slots=True)
class _Expectation:
    """The share of the KV rate that must be left, and whether the measured one agrees; `unjudged` says why not."""

    share: float | None
    over: Change
    agreement: str | None
    unjudged: str | None


def _expectation(
    dataset: Dataset, arm: _Arm, delivered: Rounds, capacity: Capacity | None, quiet: QuietArm | None
) -> _Expectation:
    """Hold the measured share of the KV rate against the one that arithmetic leaves."""
    if capacity is None:
        return _Expectation(None, _NO_PARTNER, None, "no shared bottleneck")
    if arm.unlimited:
        return _Expectation(None, _NO_PARTNER, None, "nothing paces it")
    shares, total = _shares(dataset, arm), capacity.bytes_per_s
    left = {number: (total - rate) / total for number, rate in delivered.items() if number in shares and rate < total}
    if len(left) < sum(number in shares for number in delivered):
        return _Expectation(None, _NO_PARTNER, None, "neighbours took all of it")
    if not left:
        return _Expectation(None, _NO_PARTNER, None, "no shared round")
    figure = figure_of([math.log(shares[number] / left[number]) for number in left])
    doubt = None if quiet and quiet.storage_bound else "not storage-bound"
    doubt = "too few rounds" if figure.low is None else doubt
    doubt = "quiet too short" if quiet and (quiet.of_limit or 0.0) > MOST_DRAW else doubt
    agreement = _agreement(figure) if doubt is None else None
    return _Expectation(statistics.fmean(left.values()), _change(figure), agreement, doubt)


def _shares(dataset: Dataset, arm: _Arm) -> Rounds:
    """Return by round what was left of the quiet partner's KV rate."""
    noisy, quiet = _by_round(dataset, arm.name, _KV), _by_round(dataset, arm.quiet, _KV)
    return {number: noisy[number] / quiet[number] for number in sorted(noisy.keys() & quiet.keys())}


def _agreement(figure: RatioFigure) -> str:
    """Return `shown` if the whole 90 % interval of measured over expected lies within 10 %, `mean` if its mean does."""
    if equivalent(figure, MARGIN).shown:
        return "shown"
    return "mean" if abs(math.log(figure.ratio or math.inf)) < math.log1p(MARGIN) else "no"


# -- small arithmetic --------------------------------------------------------------------------------------------------


def _by_round(dataset: Dataset, name: str | None, metric: Metric) -> Rounds:
    """Return the figure of each used run by its round; nothing where one of them is zero, which has no ratio."""
    if name is None:
        return {}
    rounds = aggregate.by_round(metric, dataset.of(name), limits_of(dataset.design))
    return rounds if all(value > 0 for value in rounds.values()) else {}


def _ratio_between(dataset: Dataset, baseline: str | None, name: str, metric: Metric) -> RatioFigure | None:
    """Return how much faster a treatment is than another, paired by round; None without another."""
    if baseline is None:
        return None
    rounds = {arm: pd.Series(_by_round(dataset, arm, metric), dtype=float) for arm in (baseline, name)}
    return ratio_between(pd.DataFrame(rounds), baseline, name, metric.kind)


def _extent(values: Iterable[float]) -> Extent:
    known = list(values)
    return Extent(mean_of(known), min(known, default=None), max(known, default=None), len(known))


def _change(figure: RatioFigure | None) -> Change:
    if figure is None:
        return _NO_PARTNER
    refusal = figure.refusal if figure.rounds else "n/a (no shared round)"
    return Change(figure.ratio, figure.low, figure.high, figure.rounds, refusal)


def _loss(figure: RatioFigure | None) -> Change:
    """Return 1 - noisy / quiet of a rate, whose ratio is noisy / quiet."""
    share = _change(figure)
    value, low, high = (None if end is None else 1 - end for end in (share.value, share.high, share.low))
    return replace(share, value=value, low=low, high=high)


def _increase(figure: RatioFigure | None, refusal: str | None = None) -> Change:
    """Return noisy / quiet - 1 of a time, whose ratio is quiet / noisy: above 1 is faster."""
    share = _change(figure)
    value, low, high = (None if end is None else 1 / end - 1 for end in (share.value, share.high, share.low))
    return replace(
        share, value=value, low=low, high=high, refusal=refusal if value is None and refusal else share.refusal
    )
