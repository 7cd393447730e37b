"""Reads and writes `plan.json` and `run.json` as typed records, those of version 1 too.

Version 1 had the draws of every run in `plan.json`, `asked` for `design`, and the run's name, treatment and round in an
object of their own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kvbench.result.files import read_json, write_json
from kvbench.result.plan_record import PlanRecord
from kvbench.result.run_record import RunRecord
from kvbench.typed_json import from_json, to_json

if TYPE_CHECKING:
    from pathlib import Path

    Json = dict[str, Any]

PLAN, RUN = "plan.json", "run.json"


def read_plan(result: Path) -> PlanRecord:
    """Read the plan of a result folder.

    Raises:
        ResultError: it is missing, or not one that kvbench wrote.

    """
    path = result / PLAN
    value = read_json(path)
    return from_json(PlanRecord, _plan_of_version_1(value) if "asked" in value else value, str(path))


def write_plan(result: Path, plan: PlanRecord) -> None:
    """Write the plan of a result folder."""
    write_json(result / PLAN, to_json(plan))


def read_run(folder: Path) -> RunRecord:
    """Read the record of a sealed run from its folder.

    Raises:
        ResultError: it is missing, or not one that kvbench wrote.

    """
    path = folder / RUN
    value = read_json(path)
    return from_json(RunRecord, _run_of_version_1(value) if "run" in value else value, str(path))


def write_run(folder: Path, record: RunRecord) -> None:
    """Write the record of a run, which marks it as sealed."""
    write_json(folder / RUN, to_json(record))


def _plan_of_version_1(value: Json) -> Json:
    asked: Json = value["asked"]
    runs = [
        {
            **{name: run[name] for name in ("run_id", "treatment", "repeat")},
            "requests": len(run["draws"]),
            "requests_by_length": dict(Counter(draw["isl_target"] for draw in run["draws"])),
        }
        for run in value["runs"]
    ]
    design = {**asked, "turn_of_length": _turn_of_length(value["runs"]) if asked.get("turns") else {}}
    load = (asked.get("setting") or {}).get("load") or {}
    if "open_loops" not in asked and load.get("request_rate") is not None:  # one rate for all treatments
        one = {"request_rate": load["request_rate"], "arrival": load["arrival"]}
        design["open_loops"] = dict.fromkeys(asked["treatments"], one)
    return {**value, "runs": runs, "design": {name: item for name, item in design.items() if item is not None}}


def _turn_of_length(runs: list[Json]) -> dict[int, int]:
    """Return which turn, from 0, has a prompt of which length; without lengths that an older scenario gave to two."""
    turns: dict[int, set[int]] = {}
    for draw in (draw for run in runs for draw in run["draws"]):
        turns.setdefault(draw["isl_target"], set()).add(draw["turn"])
    return {length: min(known) for length, known in turns.items() if len(known) == 1}


def _run_of_version_1(value: Json) -> Json:
    ledger: Json = value["ledger"]
    record = {**value, **value["run"], "ledger": {**ledger, "answer_tier_tokens": ledger.get("told_tier_tokens") or {}}}
    if value.get("world") is not None:
        record["host"] = value["world"]
    return record
