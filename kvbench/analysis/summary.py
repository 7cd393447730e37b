"""Builds the summary of a result: every figure with its n, its spread, its tier and the verdict on its runs.

Reads the files of a result folder and nothing else, so it can be computed again at any time. Invalid runs are counted
and left out of every figure. Measured figures are never scaled in place: what a scale model's figures would be at full
scale stands in fields of their own, `full_scale_*`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kvbench.analysis import aggregate, baseline_comparison, dataset, metrics, neighbor_impact, published_comparison
from kvbench.analysis.baseline_comparison import Place
from kvbench.analysis.checks.client import overrun_shares
from kvbench.analysis.checks.empty_start import empty_starts, most_gain
from kvbench.analysis.checks.treatment import judge_treatment
from kvbench.analysis.first_touch import first_touch
from kvbench.analysis.measured import as_floats, rows_where
from kvbench.analysis.metrics import METRICS
from kvbench.analysis.open_loop import open_loop
from kvbench.analysis.stats.intervals import influence
from kvbench.analysis.summary_types import (
    LengthCell,
    LengthRow,
    PublishedSource,
    RunSummary,
    Summary,
    TreatmentSummary,
)
from kvbench.analysis.time_series import time_series
from kvbench.publications import library
from kvbench.result import answers
from kvbench.result.records import sum_of_all
from kvbench.result.verdict import worst

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.analysis.measured import SelectedRequests
    from kvbench.analysis.measured_result import Dataset, SealedRun
    from kvbench.analysis.summary_types import JudgedRatio
    from kvbench.publications.library import Publication
    from kvbench.result.plan_record import Design
    from kvbench.result.verdict import VerdictWord

MOST_LENGTHS = 12  # of an import; with more, its table would have a row for nearly every request
TTFT = METRICS["ttft_p50"]
_OF_A_CELL = {"p50": TTFT, "p95": METRICS["ttft_p95"], "p99": METRICS["ttft_p99"]}
_OF_REQUESTS = ("ttft_p50", "ttft_mean", "tpot_p50", "user_rate_mean", "latency_p50")
_COMPARED = (*_OF_REQUESTS, *(name for name, one in METRICS.items() if one.of_run is not None))


def summarise(result: Path) -> Summary:
    """Compute the summary of a result folder.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    return summary_of(dataset.read(result))


def summary_of(read: Dataset) -> Summary:
    """Compute the summary of a result that is read already."""
    plan, design, runs = read.plan, read.design, read.runs
    publication = library.load(design.published) if design.published else None
    treatments = _summarise_treatments(read)
    imported = read.facts.get("imported")
    return Summary(
        scenario=plan.scenario,
        question=design.question,
        result=read.folder.name,
        server=design.server,
        model=runs[0].record.server.model,
        driver=runs[0].record.driver.name,
        concurrency=design.concurrency,
        concurrencies=design.concurrencies or dict.fromkeys(design.treatments, design.concurrency),
        open_loops={name: loop for name in design.treatments if (loop := design.open_loop_of(name)) is not None},
        turns=design.turns,
        output_tokens=design.output_tokens,
        repeats=design.repeats,
        baseline=design.baseline,
        baselines=baseline_comparison.baselines_of(design),
        slo=design.slo,
        scale=design.scale,
        published=_source(publication) if publication is not None and publication.curves else None,
        published_table=published_comparison.compare(publication, design, treatments) if publication else None,
        complete=is_complete(read),
        answers_compared=_answers_are_compared(read) if design.check_answers else True,
        facts_changed=facts_changed(read),
        calibration=read.calibration,
        imported=imported if isinstance(imported, dict) else None,
        runs_planned=len(plan.runs),
        verdict=_verdict(read, [item.verdict for item in treatments.values()]),
        runs=tuple(_summarise_run(run, design) for run in runs),
        treatments=treatments,
        lengths=_summarise_lengths(read, publication),
        same_pairs=baseline_comparison.same_pairs(read),
        same_pair_rounds=baseline_comparison.pair_rounds(read),
        headline=_headline(design),
        neighbors=neighbor_impact.impact(read),
    )


def _answers_are_compared(read: Dataset) -> bool:
    """Tell whether the answers of all runs have been compared with the recomputed ones."""
    recomputed = [run.run_id for run in read.runs if run.record.cache.state == "off"]
    return answers.are_settled(read.folder / "runs", recomputed)


def _source(publication: Publication) -> PublishedSource:
    return PublishedSource(publication.title, publication.section)


def is_complete(read: Dataset) -> bool:
    """Tell whether every planned run is sealed."""
    return len(read.runs) == len(read.plan.runs)


def facts_changed(read: Dataset) -> tuple[str, ...]:
    """Return the facts of the host that changed between sessions of a result."""
    changed = read.facts.get("changed_on_resume")
    return tuple(map(str, changed)) if isinstance(changed, list) else ()


def verdict_on(read: Dataset) -> VerdictWord:
    """Return the verdict on a result, without its figures."""
    return _verdict(read, [judge_treatment(name, read.runs, read.design).word for name in read.design.treatments])


def _verdict(read: Dataset, treatments: Sequence[VerdictWord]) -> VerdictWord:
    """Return the worst verdict of a treatment; changed facts are suspect, and a result without all runs is invalid."""
    if not is_complete(read):
        return "invalid"
    return worst([*treatments, "suspect"] if facts_changed(read) else treatments)


# -- runs and treatments -----------------------------------------------------------------------------------------------


def _summarise_run(run: SealedRun, design: Design) -> RunSummary:
    record, headline = run.record, METRICS[_headline(design)]
    return RunSummary(
        run_id=record.run_id,
        treatment=record.treatment,
        repeat=record.repeat,
        attempt=record.attempt,
        started=record.started,
        load_s=record.load_s,
        sent_one_by_one=record.sent_one_by_one,
        requests=len(run.measured),
        ok=len(run.answered),
        headline=aggregate.of_run(headline, run, metrics.limits_of(design)) if run.used else None,
        failures=aggregate.failures([run]),
        tiers=aggregate.tiers([run.answered["tier"]]),
        cache_state=record.cache.state,
        cache_steps=record.cache.steps,
        ledger=record.ledger,
        client=record.driver,
        verdict=run.verdict.word,
        reasons=run.verdict.reasons,
    )


def _summarise_treatments(read: Dataset) -> dict[str, TreatmentSummary]:
    """Summarise each treatment over all its prompt lengths, and compare it with the baseline."""
    comparisons: dict[str, dict[str, JudgedRatio | None]] = {name: {} for name in read.design.treatments}
    others = {name: base for name, base in baseline_comparison.baselines_of(read.design).items() if base is not None}
    pairs = baseline_comparison.same_pairs(read)
    for metric in (METRICS[name] for name in _COMPARED) if others else ():
        rounds = baseline_comparison.rounds_of(read, Place(metric))
        figures = {
            name: baseline_comparison.ratio_between(rounds, base, name, metric.kind) for name, base in others.items()
        }
        floor = baseline_comparison.floor_of(rounds, pairs)
        for name, judged in baseline_comparison.judge(figures, dict.fromkeys(figures, floor)).items():
            comparisons[name][metric.name] = judged if judged.rounds else None
    return {
        name: replace(_summarise_treatment(name, read), comparisons=comparisons[name])
        for name in read.design.treatments
    }


def _summarise_treatment(name: str, read: Dataset) -> TreatmentSummary:
    design, good = read.design, read.of(name)
    own = [run for run in read.runs if run.treatment == name]
    ledgers = [run.record.ledger for run in good]
    limits, state = metrics.limits_of(design), read.cache_state(name)
    figures, judged = aggregate.of_all(good, limits), judge_treatment(name, read.runs, design)
    starts = empty_starts(good) if state == "cold" else ()
    cached = sum_of_all(ledger.cached_tokens for ledger in ledgers)
    expected = sum_of_all(ledger.expected_cached_tokens for ledger in ledgers)
    schedule = design.open_loop_of(name)
    return TreatmentSummary(
        cache_state=state,
        runs=len(own),
        runs_used=len(good),
        verdict=judged.word,
        reasons=judged.reasons,
        requests=sum(len(run.answered) for run in good),
        sent=sum(len(run.measured) for run in own),
        failures=aggregate.failures(own),
        tiers=aggregate.tiers([run.answered["tier"] for run in good]),
        cached_tokens=cached,
        expected_cached_tokens=expected,
        hit_efficiency=_share(cached, expected),
        read_bytes=sum_of_all(ledger.counted_bytes for ledger in ledgers),
        process_read_bytes=sum_of_all(ledger.process_read_bytes for ledger in ledgers),
        # Of an empty start nothing was primed, so nothing is expected
        expected_read_bytes=sum_of_all(ledger.expected_read_bytes for ledger in ledgers) if state != "cold" else None,
        answers_match=_answers_match(own) if design.check_answers else None,
        slo_attainment=figures["slo_attainment"].value,
        upper_bounds=sum(int((run.answered["ttft_bound"] == "upper").sum()) for run in good),
        overrun_share=_mean([overrun_shares(run.answered) for run in good]),
        storage_bytes_per_s=_storage_rate(good) if _is_alone(design, name) else None,
        most_gain=most_gain(starts),
        empty_starts=starts,
        metrics=figures,
        # Of an import nobody told which prompts were the same
        time_series=time_series(good) if not design.imported else (),
        first_touch=first_touch(good) if state == "cold" and good else None,
        open_loop=open_loop(good, schedule, limits) if good and schedule is not None else None,
    )


def _headline(design: Design) -> str:
    """Return the metric that answers the question: a rate where requests run beside one another, else TTFT.

    In an open loop the rate is that of the schedule, so goodput, counted from it, answers where there is an SLO.
    """
    if any(design.open_loop_of(name) is not None for name in design.treatments):
        return "goodput_per_s" if design.slo.ttft else "ttft_p50"
    side_by_side = any((design.concurrency_of(name) or 1) > 1 for name in design.treatments)
    load = design.setting.get("load")
    is_drawn = isinstance(load, dict) and load.get("draw") is not None
    return "requests_per_s" if is_drawn or side_by_side else "ttft_p50"


def _is_alone(design: Design, *treatments: str) -> bool:
    """Tell whether requests were out one at a time: else a request's storage time holds its wait for others."""
    return all(design.concurrency_of(name) == 1 for name in treatments)


def _answers_match(runs: Sequence[SealedRun]) -> float | None:
    """Return the share of answers of all runs that equal the recomputed ones, None if none could be compared."""
    return _mean([run.measured["answers_match"].dropna() for run in runs])


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _mean(parts: Sequence[pd.Series]) -> float | None:
    values = np.concatenate([as_floats(part) for part in parts]) if parts else np.empty(0)
    return float(values.mean()) if len(values) else None


def _median(values: pd.Series) -> float | None:
    return float(values.median()) if len(values) else None


def _storage_rate(runs: Sequence[SealedRun]) -> float | None:
    """Return the median rate at which the tier was read, by the server's own clock; None where nothing was read."""
    parts = [run.answered[["server_read_bytes", "server_storage_s"]] for run in runs]
    if not parts:
        return None
    reads = pd.concat(
        [rows_where(part, (part["server_read_bytes"] > 0) & (part["server_storage_s"] > 0)) for part in parts]
    )
    return _median(reads["server_read_bytes"] / reads["server_storage_s"])


# -- by prompt length --------------------------------------------------------------------------------------------------


def _summarise_lengths(read: Dataset, publication: Publication | None) -> tuple[LengthRow, ...]:
    """Give a row for each prompt length; all comparisons of TTFT with the baseline are judged together."""
    baselines = baseline_comparison.baselines_of(read.design)
    others = {name: base for name, base in baselines.items() if base is not None}
    lengths: Sequence[int | None] = read.design.lengths or _counted_lengths(read.used)
    pairs = baseline_comparison.same_pairs(read)
    figures, floors = {}, {}
    for isl in lengths if others else ():
        rounds = baseline_comparison.rounds_of(read, Place(TTFT, isl))
        floor = baseline_comparison.floor_of(rounds, pairs)
        for name, base in others.items():
            figures[isl, name] = baseline_comparison.ratio_between(rounds, base, name, TTFT.kind)
            floors[isl, name] = floor
    judged = baseline_comparison.judge(figures, floors)
    rows = []
    for isl in lengths:
        cells = {name: _cell(read, isl, name) for name in read.design.treatments}
        for name, base in others.items():
            ratio = judged[isl, name]
            cells[name] = replace(
                cells[name],
                comparison=ratio if ratio.rounds else None,
                rank=baseline_comparison.ranks_between((read.of(name), read.of(base)), Place(TTFT, isl), (name, base)),
                recompute_over_load=(
                    _share(cells[base].median_s, cells[name].load_s) if _is_alone(read.design, name, base) else None
                ),
            )
        if publication is not None and isl is not None:
            cells = {name: _with_published(cell, name, isl, read.design, publication) for name, cell in cells.items()}
        printed = publication.speed_up.get(isl) if publication is not None and isl is not None else None
        turn = read.design.turn_of_length.get(isl) if isl is not None else None
        rows.append(LengthRow(isl, turn, cells, printed))
    return tuple(rows)


def _with_published(cell: LengthCell, name: str, isl: int, design: Design, publication: Publication) -> LengthCell:
    """Add to a cell what was published for it."""
    curve = publication.curves.get(name)
    value, kind = curve.at(isl) if curve is not None else (None, None)
    ratio = _share(cell.median_s, value / design.time_scale if value is not None else None)
    return replace(cell, published_s=value, published_kind=kind, published_ratio=ratio)


def _cell(read: Dataset, isl: int | None, treatment: str) -> LengthCell:
    """One length under one treatment: the figures of all answered requests of runs that are not invalid."""
    runs, limits, scale = read.of(treatment), metrics.limits_of(read.design), read.design.scale
    answered = [run.answered if isl is None else run.answered.of_length(isl) for run in runs]
    proven = [run.proven if isl is None else run.proven.of_length(isl) for run in runs]  # only these give figures
    times, _ = aggregate.values_of(TTFT, runs, isl)
    figures = aggregate.of_treatment_each(list(_OF_A_CELL.values()), runs, limits, isl)
    median = float(np.median(times)) if len(times) else None
    low, high = (float(times.min()), float(times.max())) if len(times) else (None, None)
    is_sum = low is not None and high is not None and low >= 0 < high
    return LengthCell(
        n=len(times),
        median_s=median,
        min_s=low,
        max_s=high,
        ttft=dict(zip(_OF_A_CELL, figures, strict=True)),
        influence=influence(times).sentence if is_sum else None,
        full_scale_median_s=median * scale.time if median is not None and scale is not None else None,
        tiers=aggregate.tiers([one["tier"] for one in answered]),
        unproven=sum(map(len, answered)) - sum(map(len, proven)),
        load_s=_load_s(proven),
    )


def _load_s(parts: Sequence[SelectedRequests]) -> float | None:
    """Return the median time to load from the tier, by the server's clock; None where nothing was read."""
    columns = ["server_storage_s", "server_path_s"]
    requests = [rows_where(part[columns], part["server_storage_s"] != 0) for part in parts]
    loads = [np.fmax(as_floats(one["server_storage_s"]), as_floats(one["server_path_s"])) for one in requests]
    found = np.concatenate(loads) if loads else np.empty(0)
    return float(np.median(found)) if len(found) else None


def _counted_lengths(runs: Sequence[SealedRun]) -> Sequence[int | None]:
    """Return the lengths of prompts that nobody planned; one row for all of them where they are many or not known."""
    parts = [run.answered["isl"][run.answered["ttft_s"].notna()] for run in runs]
    found = pd.concat(parts).drop_duplicates() if parts else pd.Series(dtype=float)
    if found.empty or found.isna().any() or len(found) > MOST_LENGTHS:
        return [None]
    return sorted(int(isl) for isl in found)
