"""Returns a result as its tables read it, from the dictionary that `summary.summarise` makes.

It stands here only until `summarise` returns a `Summary` itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kvbench import dose_courses, sealed, store, summary
from kvbench.analysis.summary_types import Summary
from kvbench.redact import without_secrets
from kvbench.report.report_input import ReportInput
from kvbench.result import record_files
from kvbench.result.run_record import ServerRecord
from kvbench.typed_json import from_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from kvbench.dose_courses import Course
    from kvbench.records import Row

    Json = dict[str, Any]


class RowFrames:
    """Makes frames of measured requests; rows are read when they are first asked for."""

    def __init__(self, result: Path, runs: Sequence[str]) -> None:
        """Name the result and its sealed runs."""
        self._folders = [result / "runs" / run for run in runs]
        self._measured: list[Row] | None = None

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return the named columns of all measured requests."""
        import pandas as pd  # noqa: PLC0415 - 0.4 s

        if self._measured is None:
            rows = (row for folder in self._folders for row in store.read_rows(folder))
            self._measured = [row for row in rows if row.phase == "measure"]
        return pd.DataFrame({name: [getattr(row, name) for row in self._measured] for name in columns})


class RunOverTime:
    """One run of a noisy-neighbour experiment over time, with arrays in place of pairs."""

    def __init__(self, course: Course) -> None:
        """Take the run from the older module."""
        import numpy as np  # noqa: PLC0415 - only a report needs it

        self.treatment, self.run_id, self.load = course.treatment, course.run_id, course.load
        self.end_s, self.start_s, self.ready_s = course.end_s, course.start_s, course.ready_s
        self.ended_s = course.ended_s
        self.sent_s, self.ttft_s = np.array(course.requests, dtype=np.float64).reshape(-1, 2).T
        self.rate_at_s, self.bytes_per_s = np.array(course.rates, dtype=np.float64).reshape(-1, 2).T


def neighbor_runs(result: Path, value: Json) -> list[RunOverTime]:
    """Return the typical run of each level over time."""
    return list(map(RunOverTime, dose_courses.courses(sealed.read(result), value["doses"]))) if value["doses"] else []


def read(result: Path) -> ReportInput:
    """Read a result folder; its summary is computed, since an unfinished or older one has not all of it.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    return report_input(result, without_secrets(summary.summarise(result)))


def report_input(result: Path, value: Json) -> ReportInput:
    """Return what tables are made from, given the dictionary of the summary."""
    one = typed(value)
    facts, scenario = result / "facts.json", result / "scenario.yaml"
    record = store.read_json(result / "runs" / one.runs[0].run_id / "run.json")
    return ReportInput(
        summary=one,
        plan=record_files.read_plan(result),
        facts=without_secrets(store.read_json(facts)) if facts.exists() else {},
        server=from_json(ServerRecord, without_secrets(record["server"]), "run.json"),
        scenario_text=without_secrets(scenario.read_text()) if scenario.exists() and one.imported is None else "",
        requests=RowFrames(result, [run.run_id for run in one.runs]),
        read_neighbor_runs=partial(neighbor_runs, result, value),
    )


def typed(value: Json) -> Summary:
    """Return the summary as typed values."""
    new = {**value, "runs": list(map(_run, value["runs"])), "published_table": value["beside"]}
    new["treatments"] = {name: _treatment(item) for name, item in value["treatments"].items()}
    new["neighbors"] = _neighbors(value["doses"]) if value["doses"] else None
    return from_json(Summary, new, "the summary")


def _run(run: Json) -> Json:
    ledger = run["ledger"]
    return {
        **run,
        "verdict": run["word"],
        "ledger": {**ledger, "answer_tier_tokens": ledger.get("told_tier_tokens") or {}},
    }


def _treatment(item: Json) -> Json:
    series = [{**one, "repeat": one["round"]} for one in item["courses"]]
    return {**item, "time_series": series, "first_touch": item["touches"]}


def _neighbors(doses: Json) -> Json:
    quiet = {name: {**arm, "load": _load(arm)} for name, arm in doses["quiet"].items()}
    levels = [{**one, "load_name": one["load"], "trials": one["course"], "load": _load(one)} for one in doses["levels"]]
    attempts = [{**one, "number": one["try"]} for one in doses["attempts"]]
    return {**doses, "quiet": quiet, "levels": levels, "attempts": attempts}


def _load(arm: Json) -> Json:
    names = ("requests_per_s", "kv_bytes_per_s", "runs", "runs_used", "verdicts", "typical_run")
    return {name: arm[name] for name in names}
