"""The summary of a result: every figure with its n, its spread, the tier that served it and the verdict on its runs.

Reads the files of a result folder and nothing else, so it can be computed again at any time. Invalid runs are counted
and left out of every figure. Measured figures are never scaled in place: what a scale model's figures would be at full
scale stands in fields of their own, `full_scale_*`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from kvbench import calibration, checks, published, store
from kvbench.errors import ResultError

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.published import Publication
    from kvbench.records import Row

MOST_LENGTHS = 12  # of an import; with more, its table would have a row for nearly every request
Run = tuple[dict[str, Any], list["Row"], checks.Verdict]


def summarise(result: Path) -> dict[str, Any]:
    """Compute the summary of a result folder.

    Shape: {"scenario", "verdict", "runs": [...], "treatments": {name: {...}}, "lengths": [{"isl", "cells": {...}}]}.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    plan = store.read_json(result / "plan.json")
    calibrated = _attached_calibration(result, plan)
    runs = [_read_run(result / "runs" / spec["run_id"], plan, calibrated) for spec in plan["runs"]]
    sealed = [run for run in runs if run is not None]
    if not sealed:
        raise ResultError(f"{result} has no finished run yet", "Run the scenario again: it goes on where it stopped.")
    asked, scale = plan["asked"], plan["asked"]["scale"]
    publication = published.load(asked["published"]) if asked["published"] else None
    treatments = {name: _summarise_treatment(name, sealed, asked) for name in asked["treatments"]}
    counted = asked["lengths"] or _counted_lengths(sealed)
    lengths = [_summarise_length(isl, asked, sealed, publication) for isl in counted]
    words = [verdict.word for _, _, verdict in sealed]
    facts = store.read_json(result / "facts.json")
    changed = facts.get("changed_on_resume", [])
    words += ["suspect"] if changed else []
    complete = len(sealed) == len(plan["runs"])
    return {
        "scenario": plan["scenario"],
        "question": asked["question"],
        "result": result.name,
        "server": asked["server"],
        "model": sealed[0][0]["server"]["model"],
        "driver": sealed[0][0]["driver"]["name"],
        "concurrency": asked["concurrency"],
        "output_tokens": asked["output_tokens"],
        "repeats": asked["repeats"],
        "baseline": asked["baseline"],
        "slo": asked["slo"],
        "scale": scale,
        "published": None if publication is None else {"title": publication.title, "section": publication.section},
        "complete": complete,
        "facts_changed": changed,
        "calibration": calibrated,
        "imported": facts.get("imported"),
        "runs_planned": len(plan["runs"]),
        "verdict": checks.worst(words) if complete else "invalid",
        "runs": [_summarise_run(run) for run in sealed],
        "treatments": treatments,
        "lengths": lengths,
    }


def _attached_calibration(result: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the attached calibration says of this result's driver; None without one, or before the first run."""
    if plan["asked"].get("imported"):
        return None
    records = (result / "runs" / spec["run_id"] / "run.json" for spec in plan["runs"])
    first = next((path for path in records if path.exists()), None)
    if first is None:
        return None
    record, asked = store.read_json(first), plan["asked"]
    driver = record["driver"]["name"]
    return calibration.excerpt(result, driver, asked["concurrency"], asked["lengths"], record["started"])


def _read_run(folder: Path, plan: dict[str, Any], calibrated: dict[str, Any] | None) -> Run | None:
    if not (folder / "run.json").exists():
        return None
    run, rows = store.read_json(folder / "run.json"), store.read_rows(folder)
    spec = next(spec for spec in plan["runs"] if spec["run_id"] == run["run"]["run_id"])
    asked = plan["asked"]
    if asked.get("imported"):
        return run, rows, checks.judge_imported(asked["imported"], rows)
    answers = asked.get("check_answers", False)
    error_s = calibration.worst_error_s(calibrated)[0] if calibrated is not None else None
    wanted = checks.Asked(len(spec["draws"]), asked["output_tokens"], asked["max_fail"], answers, error_s)
    return run, rows, checks.judge_run(run, rows, wanted)


def _summarise_run(run: Run) -> dict[str, Any]:
    record, rows, verdict = run
    measured = [row for row in rows if row.phase == "measure"]
    return {
        **record["run"],
        "attempt": record["attempt"],
        "started": record["started"],
        "load_s": record["load_s"],
        "requests": len(measured),
        "ok": sum(row.status == "ok" for row in measured),
        "failures": dict(Counter(row.status for row in measured if row.status != "ok")),
        "tiers": dict(Counter(row.tier or "unproven" for row in measured)),
        "cache_state": record["cache"]["state"],
        "cache_steps": record["cache"]["steps"],
        "ledger": record["ledger"],
        "client": record["driver"],
        **verdict.to_json(),
    }


def _summarise_treatment(name: str, runs: list[Run], asked: dict[str, Any]) -> dict[str, Any]:
    own = [run for run in runs if run[0]["run"]["treatment"] == name]
    good = [run for run in own if run[2].word != "invalid"]
    rows = [row for _, rows, _ in good for row in rows if row.phase == "measure" and row.status == "ok"]
    ledgers = [record["ledger"] for record, _, _ in good]
    return {
        "cache_state": own[0][0]["cache"]["state"] if own else None,
        "runs": len(own),
        "runs_used": len(good),
        "verdict": checks.worst([verdict.word for _, _, verdict in own]),
        "requests": len(rows),
        "tiers": dict(Counter(row.tier or "unproven" for row in rows)),
        "cached_tokens": _total(ledgers, "cached_tokens"),
        "expected_cached_tokens": _total(ledgers, "expected_cached_tokens"),
        "hit_efficiency": _share(_total(ledgers, "cached_tokens"), _total(ledgers, "expected_cached_tokens")),
        "read_bytes": _counted_bytes(ledgers),
        "process_read_bytes": _total(ledgers, "process_read_bytes"),
        "expected_read_bytes": _total(ledgers, "expected_read_bytes"),
        "answers_match": _answers_match(own) if asked.get("check_answers") else None,
        "slo_attainment": _slo_attainment(rows, asked),
        "upper_bounds": sum(row.ttft_bound == "upper" for row in rows),
        "overrun_share": _share(_sum(rows, "server_overrun_s"), _sum(rows, "ttft_s")),
        "storage_bytes_per_s": _storage_rate(rows),
    }


def _answers_match(runs: list[Run]) -> float | None:
    """Return the share of answers of all runs that equal the recomputed ones, None if none could be compared."""
    compared = [row.answers_match for _, rows, _ in runs for row in rows if row.answers_match is not None]
    return sum(compared) / len(compared) if compared else None


def _slo_attainment(rows: list[Row], asked: dict[str, Any]) -> float | None:
    """Return the share of answered requests within the TTFT limit; a scale model's times count at full scale."""
    limit = asked["slo"].get("ttft")
    factor = asked["scale"]["time"] if asked["scale"] else 1.0
    times = [row.ttft_s * factor for row in rows if row.ttft_s is not None and row.tier != "unproven"]
    return sum(time <= limit for time in times) / len(times) if limit is not None and times else None


def _counted_bytes(ledgers: list[dict[str, Any]]) -> float | None:
    """Return the bytes that the server's tier counters say were read; None, never 0, where it has no such counter."""
    if not any(ledger["read_bytes"] for ledger in ledgers):
        return None
    return sum(sum(ledger["read_bytes"].values()) for ledger in ledgers)


def _total(ledgers: list[dict[str, Any]], key: str) -> int | None:
    values = [ledger[key] for ledger in ledgers]
    return None if not values or any(value is None for value in values) else sum(values)


def _sum(rows: list[Row], name: str) -> float | None:
    values = [getattr(row, name) for row in rows]
    return None if not values or any(value is None for value in values) else float(sum(values))


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _storage_rate(rows: list[Row]) -> float | None:
    """Return the median rate at which the tier was read, by the server's own clock; None where nothing was read."""
    rates = [
        row.server_read_bytes / row.server_storage_s for row in rows if row.server_read_bytes and row.server_storage_s
    ]
    return statistics.median(rates) if rates else None


def _summarise_length(
    isl: int | None, asked: dict[str, Any], runs: list[Run], publication: Publication | None
) -> dict[str, Any]:
    time_scale = asked["scale"]["time"] if asked["scale"] else None
    cells = {name: _cell(isl, name, runs, time_scale) for name in asked["treatments"]}
    for name, cell in cells.items():
        curve = publication.curves.get(name) if publication else None
        value, kind = curve.at(isl) if curve and isl is not None else (None, None)
        cell["published_s"], cell["published_kind"] = value, kind
        model_s = value / (time_scale or 1.0) if value is not None else None
        cell["published_ratio"] = _share(cell["median_s"], model_s)
    baseline = cells.get(asked["baseline"] or "")
    for name, cell in cells.items():
        paired = _paired_ratios(isl, asked["baseline"], name, runs) if baseline and name != asked["baseline"] else []
        cell["speed_up"] = statistics.median(paired) if paired else None
        cell["speed_up_low"] = min(paired) if paired else None
        cell["speed_up_high"] = max(paired) if paired else None
        cell["speed_up_rounds"] = len(paired)
        load_s = cell["load_s"]
        cell["recompute_over_load"] = _share(baseline["median_s"], load_s) if baseline and load_s else None
    printed = publication.speed_up.get(isl) if publication and isl is not None else None
    return {"isl": isl, "cells": cells, "published_speed_up": printed}


def _cell(isl: int | None, treatment: str, runs: list[Run], time_scale: float | None) -> dict[str, Any]:
    """One length under one treatment: the figures of all answered requests of runs that are not invalid."""
    found = _rows_of(isl, treatment, runs)
    rows = [row for row in found if row.tier != "unproven"]  # a tier that was not proven gives no figure
    times = sorted(row.ttft_s for row in rows if row.ttft_s is not None)
    median = statistics.median(times) if times else None
    loads = [max(row.server_storage_s, row.server_path_s or 0.0) for row in rows if row.server_storage_s]
    return {
        "n": len(times),
        "median_s": median,
        "min_s": times[0] if times else None,
        "max_s": times[-1] if times else None,
        "full_scale_median_s": median * time_scale if median is not None and time_scale else None,
        "tiers": dict(Counter(row.tier or "unproven" for row in found)),
        "unproven": len(found) - len(rows),
        "load_s": statistics.median(loads) if loads else None,
    }


def _counted_lengths(runs: list[Run]) -> list[int | None]:
    """Return the lengths of prompts that nobody planned; one row for all of them where they are many or not known."""
    measured = [row for _, rows, _ in runs for row in rows if row.phase == "measure" and row.status == "ok"]
    found = {row.isl for row in measured if row.ttft_s is not None}
    known = sorted(isl for isl in found if isl is not None)
    return [*known] if known and len(known) == len(found) <= MOST_LENGTHS else [None]


def _rows_of(isl: int | None, treatment: str, runs: list[Run], repeat: int | None = None) -> list[Row]:
    return [
        row
        for record, rows, verdict in runs
        if record["run"]["treatment"] == treatment and verdict.word != "invalid"
        for row in rows
        if row.phase == "measure" and row.status == "ok" and isl in (None, row.length) and repeat in (None, row.repeat)
    ]


def _paired_ratios(isl: int | None, baseline: str | None, treatment: str, runs: list[Run]) -> list[float]:
    """Return baseline over treatment for each round that has both: a round is short, so drift cancels."""
    ratios = []
    for repeat in sorted({record["run"]["repeat"] for record, _, _ in runs}):
        sides = [_rows_of(isl, name or "", runs, repeat) for name in (baseline, treatment)]
        proven = [[row for row in side if row.tier != "unproven"] for side in sides]
        medians = [[row.ttft_s for row in side if row.ttft_s is not None] for side in proven]
        if all(medians):
            ratios.append(statistics.median(medians[0]) / statistics.median(medians[1]))
    return ratios
