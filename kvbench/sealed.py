"""The sealed runs of a result with their verdicts: what every figure, summary and comparison starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench import calibration, checks, store
from kvbench.checks.verdict import concurrency_of
from kvbench.errors import ResultError
from kvbench.result.calibration_record import CalibrationExcerpt
from kvbench.typed_json import from_json, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.records import Row


@dataclass(frozen=True, slots=True)
class SealedRun:
    """One run that is done: its `run.json`, all its rows, its measured rows, and the verdict on it."""

    record: dict[str, Any]
    rows: list[Row]
    measured: list[Row]
    verdict: checks.Verdict

    @property
    def run_id(self) -> str:
        """Its name within the result."""
        return str(self.record["run"]["run_id"])

    @property
    def treatment(self) -> str:
        """The treatment that it executed."""
        return str(self.record["run"]["treatment"])

    @property
    def repeat(self) -> int:
        """Its round."""
        return int(self.record["run"]["repeat"])

    @property
    def used(self) -> bool:
        """Whether its figures count: an invalid run's do not."""
        return self.verdict.word != "invalid"

    @property
    def answered(self) -> list[Row]:
        """Its measured requests that were answered."""
        return [row for row in self.measured if row.status == "ok"]

    @property
    def proven(self) -> list[Row]:
        """Its answered requests but those whose tier was not proven: only these give figures of requests."""
        return [row for row in self.answered if row.tier != "unproven"]


@dataclass(frozen=True, slots=True)
class SealedResult:
    """One result folder, read: its plan, its facts, its sealed runs, and the calibration that is attached to it."""

    folder: Path
    plan: dict[str, Any]
    facts: dict[str, Any]
    runs: list[SealedRun]
    calibration: dict[str, Any] | None

    @property
    def asked(self) -> dict[str, Any]:
        """What the result must be judged by."""
        asked: dict[str, Any] = self.plan["asked"]
        return asked

    @property
    def used(self) -> list[SealedRun]:
        """The runs whose figures count."""
        return [run for run in self.runs if run.used]

    def of(self, treatment: str) -> list[SealedRun]:
        """Return the runs of one treatment whose figures count."""
        return [run for run in self.runs if run.used and run.treatment == treatment]

    def cache_state(self, treatment: str) -> str | None:
        """Return the cache state of a treatment's runs, None before its first run."""
        states = [run.record["cache"]["state"] for run in self.runs if run.treatment == treatment]
        return str(states[0]) if states else None


def read(folder: Path) -> SealedResult:
    """Read a result folder.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    plan = store.read_json(folder / "plan.json")
    runs = [_read_run(folder, spec, plan["asked"]) for spec in plan["runs"]]
    sealed = [run for run in runs if run is not None]
    if not sealed:
        raise ResultError(f"{folder} has no finished run yet", "Run the scenario again: it goes on where it stopped.")
    told = calibrated(folder, plan["asked"], sealed[0].record)
    return SealedResult(folder, plan, store.read_json(folder / "facts.json"), sealed, told)


def calibrated(
    folder: Path, asked: dict[str, Any], record: dict[str, Any], treatment: str | None = None
) -> dict[str, Any] | None:
    """Return what the attached calibration says of the driver, at one treatment's concurrency or at all of them."""
    if asked.get("imported"):
        return None
    counts = [concurrency_of(asked, name) for name in asked["treatments"] if treatment in (None, name)]
    known = [count for count in counts if count is not None]
    told = calibration.excerpt(folder, record["driver"]["name"], known, asked["lengths"], record["started"])
    return to_json(told) if told is not None else None


def _read_run(result: Path, spec: dict[str, Any], asked: dict[str, Any]) -> SealedRun | None:
    folder = result / "runs" / spec["run_id"]
    if not (folder / "run.json").exists():
        return None
    record, rows = store.read_json(folder / "run.json"), store.read_rows(folder)
    measured = [row for row in rows if row.phase == "measure"]
    if asked.get("imported"):
        return SealedRun(record, rows, measured, checks.judge_imported(asked["imported"], rows))
    told = calibrated(result, asked, record, spec["treatment"])
    known = from_json(CalibrationExcerpt, told, "the calibration") if told is not None else None
    error_s = calibration.worst_error_s(known)[0] if known is not None else None
    wanted = checks.Asked.of_plan(asked, spec["treatment"], len(spec["draws"]), error_s)
    return SealedRun(record, rows, measured, checks.judge_run(record, rows, wanted))
