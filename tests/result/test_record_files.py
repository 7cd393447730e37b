"""`plan.json` and `run.json`, those of version 1 too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.result import record_files
from kvbench.result.files import write_json

if TYPE_CHECKING:
    from pathlib import Path


def test_a_length_of_two_turns_in_a_plan_of_version_1_has_no_turn(tmp_path: Path) -> None:
    """An older scenario could give one length to two turns."""
    lengths = [(10_000, 0), (12_008, 1), (14_016, 2), (12_008, 0)]
    draws: list[dict[str, Any]] = [{"isl_target": length, "turn": turn} for length, turn in lengths]
    asked = {"question": "?", "server": "emulator", "treatments": ["recompute"], "repeats": 1}
    turns = {"count": 3, "new_tokens": 2000, "history": "recorded"}
    run = {"run_id": "r01-recompute", "treatment": "recompute", "repeat": 1, "draws": draws}
    head = {"scenario": "talk", "fingerprint": "f", "salt": "", "canary_tokens": 512}
    write_json(tmp_path / "plan.json", {**head, "asked": {**asked, "turns": turns}, "runs": [run]})
    made = record_files.read_plan(tmp_path)
    assert made.design.turn_of_length == {10_000: 0, 14_016: 2}
    assert made.runs[0].requests == 4
    assert made.runs[0].requests_by_length == {10_000: 1, 12_008: 2, 14_016: 1}
