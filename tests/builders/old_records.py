"""Made-up records in the shape of version 1, as the records of today that a run folder is sealed with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.result import record_files
from kvbench.result.run_record import RunRecord
from kvbench.typed_json import from_json

if TYPE_CHECKING:
    from kvbench.result.folder import Judge
    from kvbench.result.records import Row, Tier


def run_record(made_up: dict[str, Any]) -> RunRecord:
    """Return what a made-up `run.json` says."""
    value = record_files._run_of_version_1(made_up) if "run" in made_up else made_up
    return from_json(RunRecord, value, "made up")


def by_request(tiers: dict[str, tuple[Tier, str]]) -> Judge:
    """Return a judge who has the tier of each request beforehand."""

    def judge(row: Row, _tokens: dict[str, int]) -> tuple[Tier, str] | None:
        return tiers.get(row.request_id)

    return judge
