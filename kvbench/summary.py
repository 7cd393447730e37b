"""The summary of a result: every figure with its n, its spread, the tier that served it and the verdict on its runs.

Reads the files of a result folder and nothing else, so it can be computed again at any time. Invalid runs are counted
and left out of every figure. Measured figures are never scaled in place: what a scale model's figures would be at full
scale stands in fields of their own, `full_scale_*`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from kvbench import arrivals, beside, checks, courses, doses, metrics, published, sealed, speed_ups, touches
from kvbench.analysis.stats.intervals import influence
from kvbench.checks.client import overrun_shares
from kvbench.checks.treatment import empty_starts, judge_treatment, most_gain
from kvbench.checks.verdict import concurrency_of, open_loop_of, time_scale_of
from kvbench.metrics import METRICS
from kvbench.speed_ups import Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.published import Publication
    from kvbench.records import Row
    from kvbench.sealed import SealedResult, SealedRun

MOST_LENGTHS = 12  # of an import; with more, its table would have a row for nearly every request
TTFT = METRICS["ttft_p50"]
_OF_A_CELL = {"p50": TTFT, "p95": METRICS["ttft_p95"], "p99": METRICS["ttft_p99"]}
_OF_REQUESTS = ("ttft_p50", "ttft_mean", "tpot_p50", "user_rate_mean", "latency_p50")
_OF_LEDGERS = ("cached_tokens", "expected_cached_tokens", "process_read_bytes", "expected_read_bytes")
_COMPARED = (*_OF_REQUESTS, *(name for name, one in METRICS.items() if one.of_run is not None))


def summarise(result: Path) -> dict[str, Any]:
    """Compute the summary of a result folder.

    Shape: {"scenario", "verdict", "runs": [...], "treatments": {name: {...}}, "lengths": [{"isl", "cells": {...}}]}.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    read = sealed.read(result)
    plan, asked, runs = read.plan, read.asked, read.runs
    publication = published.load(asked["published"]) if asked["published"] else None
    changed = read.facts.get("changed_on_resume", [])
    treatments = _summarise_treatments(read)
    words = [item["verdict"] for item in treatments.values()] + (["suspect"] if changed else [])
    complete = len(runs) == len(plan["runs"])
    return {
        "scenario": plan["scenario"],
        "question": asked["question"],
        "result": result.name,
        "server": asked["server"],
        "model": runs[0].record["server"]["model"],
        "driver": runs[0].record["driver"]["name"],
        "concurrency": asked["concurrency"],
        "concurrencies": asked.get("concurrencies") or dict.fromkeys(asked["treatments"], asked["concurrency"]),
        "open_loops": {name: told for name in asked["treatments"] if (told := open_loop_of(asked, name)) is not None},
        "turns": asked.get("turns"),
        "output_tokens": asked["output_tokens"],
        "repeats": asked["repeats"],
        "baseline": asked["baseline"],
        "baselines": speed_ups.baselines_of(asked),
        "slo": asked["slo"],
        "scale": asked["scale"],
        "published": _named(publication) if publication is not None and publication.curves else None,
        "beside": beside.account(publication, asked, treatments) if publication is not None else None,
        "complete": complete,
        "facts_changed": changed,
        "calibration": read.calibration,
        "imported": read.facts.get("imported"),
        "runs_planned": len(plan["runs"]),
        "verdict": checks.worst(words) if complete else "invalid",
        "runs": [_summarise_run(run, asked) for run in runs],
        "treatments": treatments,
        "lengths": _summarise_lengths(read, publication),
        "same_pairs": speed_ups.same_pairs(read),
        "same_pair_rounds": speed_ups.pair_rounds(read),
        "headline": _headline(asked),
        "doses": doses.doses(read),
    }


def _named(publication: Publication) -> dict[str, str]:
    return {"title": publication.title, "section": publication.section}


def _summarise_run(run: SealedRun, asked: dict[str, Any]) -> dict[str, Any]:
    record, measured = run.record, run.measured
    return {
        **record["run"],
        "attempt": record["attempt"],
        "started": record["started"],
        "load_s": record["load_s"],
        "sent_one_by_one": record.get("sent_one_by_one", False),
        "requests": len(measured),
        "ok": len(run.answered),
        "headline": metrics.of_run(METRICS[_headline(asked)], run, metrics.limits_of(asked)) if run.used else None,
        "failures": metrics.failures([run]),
        "tiers": dict(Counter(row.tier or "unproven" for row in measured)),
        "cache_state": record["cache"]["state"],
        "cache_steps": record["cache"]["steps"],
        "ledger": record["ledger"],
        "client": record["driver"],
        **run.verdict.to_json(),
    }


def _summarise_treatments(result: SealedResult) -> dict[str, Any]:
    """Summarise each treatment over all its prompt lengths, and compare it with the baseline."""
    treatments = {name: _summarise_treatment(name, result) for name in result.asked["treatments"]}
    others = {name: base for name, base in speed_ups.baselines_of(result.asked).items() if base is not None}
    for place in (Place(METRICS[name]) for name in _COMPARED):
        figures = {name: speed_ups.ratio_between(result, base, name, place) for name, base in others.items()}
        floor = speed_ups.floor_of(result, place) if figures else None
        for name, judged in speed_ups.judge(figures, dict.fromkeys(figures, floor)).items():
            treatments[name]["comparisons"][place.metric.name] = judged if judged["rounds"] else None
    return treatments


def _summarise_treatment(name: str, result: SealedResult) -> dict[str, Any]:
    asked, good = result.asked, result.of(name)
    own = [run for run in result.runs if run.treatment == name]
    rows = [row for run in good for row in run.answered]
    ledgers = [run.record["ledger"] for run in good]
    totals = {name: metrics.sum_of_all(ledger[name] for ledger in ledgers) for name in _OF_LEDGERS}
    limits, state = metrics.limits_of(asked), result.cache_state(name)
    figures, judged = metrics.of_all(good, limits), judge_treatment(name, result.runs, asked)
    starts = empty_starts(good) if state == "cold" else []
    return {
        "cache_state": state,
        "runs": len(own),
        "runs_used": len(good),
        "verdict": judged.word,
        "reasons": judged.to_json()["reasons"],
        "requests": len(rows),
        "sent": sum(len(run.measured) for run in own),
        "failures": metrics.failures(own),
        "tiers": dict(Counter(row.tier or "unproven" for row in rows)),
        "cached_tokens": totals["cached_tokens"],
        "expected_cached_tokens": totals["expected_cached_tokens"],
        "hit_efficiency": _share(totals["cached_tokens"], totals["expected_cached_tokens"]),
        "read_bytes": _counted_bytes(ledgers),
        "process_read_bytes": totals["process_read_bytes"],
        "expected_read_bytes": totals["expected_read_bytes"] if state != "cold" else None,  # nothing was primed
        "answers_match": _answers_match(own) if asked.get("check_answers") else None,
        "slo_attainment": figures["slo_attainment"]["value"],
        "upper_bounds": sum(row.ttft_bound == "upper" for row in rows),
        "overrun_share": statistics.fmean(over) if (over := overrun_shares(rows)) else None,
        "storage_bytes_per_s": _storage_rate(rows) if _is_alone(asked, name) else None,
        "most_gain": most_gain(starts),
        "empty_starts": [start.to_json() for start in starts],
        "metrics": figures,
        "comparisons": {},
        "courses": [] if asked.get("imported") else courses.courses(good),  # nobody told which prompts were the same
        "touches": touches.history(good) if state == "cold" and good else None,
        "open_loop": arrivals.account(good, told, limits) if good and (told := open_loop_of(asked, name)) else None,
    }


def _headline(asked: dict[str, Any]) -> str:
    """Return the metric that answers the question: a rate where requests run beside one another, else TTFT.

    In an open loop the rate is that of the schedule, so goodput, counted from it, answers where there is an SLO.
    """
    if any(open_loop_of(asked, name) is not None for name in asked["treatments"]):
        return "goodput_per_s" if asked["slo"].get("ttft") else "ttft_p50"
    side_by_side = any((concurrency_of(asked, name) or 1) > 1 for name in asked["treatments"])
    is_drawn = asked.get("setting", {}).get("load", {}).get("draw") is not None
    return "requests_per_s" if is_drawn or side_by_side else "ttft_p50"


def _is_alone(asked: dict[str, Any], *treatments: str) -> bool:
    """Tell whether requests were out one at a time: else a request's storage time holds its wait for others."""
    return all(concurrency_of(asked, name) == 1 for name in treatments)


def _answers_match(runs: Sequence[SealedRun]) -> float | None:
    """Return the share of answers of all runs that equal the recomputed ones, None if none could be compared."""
    compared = [row.answers_match for run in runs for row in run.rows if row.answers_match is not None]
    return sum(compared) / len(compared) if compared else None


def _counted_bytes(ledgers: list[dict[str, Any]]) -> float | None:
    """Return the bytes that the server's tier counters say were read; None, never 0, where it has no such counter."""
    if not any(ledger["read_bytes"] for ledger in ledgers):
        return None
    return sum(sum(ledger["read_bytes"].values()) for ledger in ledgers)


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _storage_rate(rows: list[Row]) -> float | None:
    """Return the median rate at which the tier was read, by the server's own clock; None where nothing was read."""
    rates = [
        row.server_read_bytes / row.server_storage_s for row in rows if row.server_read_bytes and row.server_storage_s
    ]
    return statistics.median(rates) if rates else None


def _summarise_lengths(result: SealedResult, publication: Publication | None) -> list[dict[str, Any]]:
    """Give a row for each prompt length; all comparisons of TTFT with the baseline are judged together."""
    names, baselines = result.asked["treatments"], speed_ups.baselines_of(result.asked)
    lengths = result.asked["lengths"] or _counted_lengths(result.used)
    turns = _turns_by_length(result.plan) if result.asked.get("turns") else {}
    figures = {
        (isl, name): speed_ups.ratio_between(result, base, name, Place(TTFT, isl))
        for isl in lengths
        for name, base in baselines.items()
        if base is not None
    }
    floors = {isl: speed_ups.floor_of(result, Place(TTFT, isl)) for isl in lengths} if figures else {}
    judged = speed_ups.judge(figures, {key: floors[key[0]] for key in figures})
    rows = []
    for isl in lengths:
        cells = {name: _cell(result, isl, name) for name in names}
        for name, cell in cells.items():
            cell.update(_comparison(judged.get((isl, name))))
            base = baselines[name]
            arms = (result.of(name), result.of(base)) if base is not None else None
            cell["rank"] = speed_ups.ranks_between(arms, Place(TTFT, isl), (name, str(base))) if arms else None
        _put_beside(cells, isl, result.asked, publication)
        printed = publication.speed_up.get(isl) if publication and isl is not None else None
        rows.append({"isl": isl, "turn": turns.get(isl), "cells": cells, "published_speed_up": printed})
    return rows


def _turns_by_length(plan: dict[str, Any]) -> dict[int | None, int]:
    """Return which turn, from 0, has a prompt of which length; without lengths that an older scenario gave to two."""
    found: dict[int | None, set[int]] = {}
    for draw in (draw for spec in plan["runs"] for draw in spec["draws"]):
        found.setdefault(draw["isl_target"], set()).add(draw["turn"])
    return {isl: min(turns) for isl, turns in found.items() if len(turns) == 1}


def _comparison(judged: dict[str, Any] | None) -> dict[str, Any]:
    """Return the columns of a cell that say what its treatment is worth; all of them empty for the baseline itself."""
    found = judged if judged is not None and judged["rounds"] else None
    return {
        "speed_up": found["ratio"] if found else None,
        "speed_up_low": found["low"] if found else None,
        "speed_up_high": found["high"] if found else None,
        "speed_up_rounds": found["rounds"] if found else 0,
        "comparison": found,
    }


def _put_beside(
    cells: dict[str, dict[str, Any]], isl: int | None, asked: dict[str, Any], publication: Publication | None
) -> None:
    """Add to each cell what was published for it, and how recomputing compares with its tier's time to load."""
    baselines, time_scale = speed_ups.baselines_of(asked), time_scale_of(asked)
    for name, cell in cells.items():
        curve = publication.curves.get(name) if publication else None
        value, kind = curve.at(isl) if curve and isl is not None else (None, None)
        cell["published_s"], cell["published_kind"] = value, kind
        cell["published_ratio"] = _share(cell["median_s"], value / time_scale if value is not None else None)
        base = cells.get(baselines[name] or "")
        alone = base is not None and _is_alone(asked, name, str(baselines[name]))
        cell["recompute_over_load"] = _share(base["median_s"], cell["load_s"]) if base and alone else None


def _cell(result: SealedResult, isl: int | None, treatment: str) -> dict[str, Any]:
    """One length under one treatment: the figures of all answered requests of runs that are not invalid."""
    runs, scale = result.of(treatment), result.asked["scale"]
    found = [row for run in runs for row in run.answered if isl in (None, row.length)]
    rows = [row for run in runs for row in metrics.rows_of(run, isl)]  # a tier that was not proven gives no figure
    times = sorted(row.ttft_s for row in rows if row.ttft_s is not None)
    median = statistics.median(times) if times else None
    loads = [max(row.server_storage_s, row.server_path_s or 0.0) for row in rows if row.server_storage_s]
    limits = metrics.limits_of(result.asked)
    ttft = {name: metrics.of_treatment(metric, runs, limits, isl).to_json() for name, metric in _OF_A_CELL.items()}
    return {
        "n": len(times),
        "median_s": median,
        "min_s": times[0] if times else None,
        "max_s": times[-1] if times else None,
        "ttft": ttft,
        "influence": influence(times).sentence if times and times[0] >= 0 < times[-1] else None,
        "full_scale_median_s": median * scale["time"] if median is not None and scale else None,
        "tiers": dict(Counter(row.tier or "unproven" for row in found)),
        "unproven": len(found) - len(rows),
        "load_s": statistics.median(loads) if loads else None,
    }


def _counted_lengths(runs: Sequence[SealedRun]) -> list[int | None]:
    """Return the lengths of prompts that nobody planned; one row for all of them where they are many or not known."""
    found = {row.isl for run in runs for row in run.answered if row.ttft_s is not None}
    known = sorted(isl for isl in found if isl is not None)
    return [*known] if known and len(known) == len(found) <= MOST_LENGTHS else [None]
