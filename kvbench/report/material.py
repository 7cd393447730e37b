"""What a report is made from: the files of one result folder, read once, with credentials taken out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench import store, summary
from kvbench.errors import ResultError

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.records import Row

_HIDDEN = "[hidden]"
_SECRETS = (
    (re.compile(r"(?<=://)[^\s/?#\"'<>]*@"), f"{_HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), rf"\1{_HIDDEN}"),
    (re.compile(r"(?i)(?<=[?&])((?:api[_-]?)?key|token|access_token|secret|password)=[^\s&#\"'<>]+"), rf"\1={_HIDDEN}"),
    (re.compile(r"\b(?:sk|hf|nvapi|ghp)[-_][\w-]{16,}"), _HIDDEN),
)


@dataclass(frozen=True)
class Material:
    """One result: its summary and plan, the rows of each sealed run, the facts, and the scenario as given."""

    summary: dict[str, Any]
    plan: dict[str, Any]
    facts: dict[str, Any]
    server: dict[str, Any]
    scenario_text: str
    rows: dict[str, list[Row]]

    def runs_of(self, treatment: str) -> list[dict[str, Any]]:
        """Return the sealed runs of a treatment."""
        return [run for run in self.summary["runs"] if run["treatment"] == treatment]

    def measured(self, treatment: str, isl: int) -> list[Row]:
        """Return the measured requests of one length under one treatment, failed ones too, without invalid runs."""
        return [
            row
            for run in self.runs_of(treatment)
            if run["word"] != "invalid"
            for row in self.rows[run["run_id"]]
            if row.phase == "measure" and row.isl_target == isl
        ]

    def planned(self, treatment: str, isl: int) -> int:
        """Return how many requests of one length under one treatment were planned."""
        return sum(
            draw["isl_target"] == isl
            for spec in self.plan["runs"]
            if spec["treatment"] == treatment
            for draw in spec["draws"]
        )


def read(result: Path) -> Material:
    """Read a result folder; an unfinished one has no `summary.json` yet, so its summary is computed.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    plan = store.read_json(result / "plan.json")
    told = result / "summary.json"
    figures = store.read_json(told) if told.exists() else summary.summarise(result)
    known = result / "facts.json"
    runs = [run["run_id"] for run in figures["runs"]]
    return Material(
        summary=without_secrets(figures),
        plan=without_secrets(plan),
        facts=without_secrets(store.read_json(known)) if known.exists() else {},
        server=without_secrets(store.read_json(result / "runs" / runs[0] / "run.json")["server"]),
        scenario_text=without_secrets(_read_text(result / "scenario.yaml")),
        rows={run: store.read_rows(result / "runs" / run) for run in runs},
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise ResultError(f"cannot read {path}: {fault}", "Name a result folder that `kvbench run` wrote.") from None


def without_secrets(value: Any) -> Any:
    """Return JSON or text without URL userinfo, bearer tokens and keys in URLs."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    for pattern, instead in _SECRETS:
        value = pattern.sub(instead, value)
    return value
