"""What a report is made from: the files of one result folder, read once, with credentials taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench import dose_courses, sealed, store, summary
from kvbench.errors import ResultError
from kvbench.redact import without_secrets

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.dose_courses import Course
    from kvbench.records import Row


@dataclass(frozen=True)
class Material:
    """One result: its summary and plan, the rows of each sealed run, the facts, and the scenario as given.

    `courses` are runs over time, of a result with neighbours.
    """

    summary: dict[str, Any]
    plan: dict[str, Any]
    facts: dict[str, Any]
    server: dict[str, Any]
    scenario_text: str
    rows: dict[str, list[Row]]
    courses: list[Course]
    folder: Path

    def runs_of(self, treatment: str) -> list[dict[str, Any]]:
        """Return the sealed runs of a treatment."""
        return [run for run in self.summary["runs"] if run["treatment"] == treatment]

    def measured(self, treatment: str, isl: int | None) -> list[Row]:
        """Return the measured requests of one length, or of all: failed ones too, but none of invalid runs."""
        return [
            row
            for run in self.runs_of(treatment)
            if run["word"] != "invalid"
            for row in self.rows[run["run_id"]]
            if row.phase == "measure" and isl in (None, row.length)
        ]

    def planned(self, treatment: str, isl: int | None) -> int:
        """Return how many requests of one length under one treatment were planned; of an import, how many there are."""
        if self.summary.get("imported"):
            return len(self.measured(treatment, isl))
        return sum(
            draw["isl_target"] == isl
            for spec in self.plan["runs"]
            if spec["treatment"] == treatment
            for draw in spec["draws"]
        )


def read(result: Path) -> Material:
    """Read a result folder; its summary is computed, since an unfinished or older one has not all of it.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    plan = store.read_json(result / "plan.json")
    figures = summary.summarise(result)
    known = result / "facts.json"
    runs = [run["run_id"] for run in figures["runs"]]
    return Material(
        summary=without_secrets(figures),
        plan=without_secrets(plan),
        facts=without_secrets(store.read_json(known)) if known.exists() else {},
        server=without_secrets(store.read_json(result / "runs" / runs[0] / "run.json")["server"]),
        scenario_text="" if figures.get("imported") else without_secrets(_read_text(result / "scenario.yaml")),
        rows={run: store.read_rows(result / "runs" / run) for run in runs},
        courses=dose_courses.courses(sealed.read(result), figures["doses"]) if figures["doses"] else [],
        folder=result,
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise ResultError(f"cannot read {path}: {fault}", "Name a result folder that `kvbench run` wrote.") from None
