"""Facts of this host: present, typed, and free of secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvbench import facts


def test_facts_have_the_same_keys_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-this-must-not-appear")
    gathered = facts.gather({"g4": tmp_path / "not" / "there" / "yet"}, tmp_path)
    assert set(gathered) == {"host", "software", "paths"}
    assert gathered["host"]["cores"] >= 1
    assert gathered["paths"]["g4"]["free_bytes"] > 0
    assert gathered["paths"]["g4"]["file_system"]
    assert set(gathered["paths"]["g4"]["queue"]) == {
        "scheduler",
        "rotational",
        "nr_requests",
        "max_sectors_kb",
        "read_expire",
        "write_expire",
    }
    assert gathered["software"]["git"] == {"commit": None, "dirty": None}  # no repository there
    assert "sk-this-must-not-appear" not in json.dumps(gathered)


def test_differences_name_what_changed_and_leave_out_what_changes_by_itself() -> None:
    before = {"host": {"kernel": "6.1", "load_1min": 0.1}, "paths": {"g4": {"free_bytes": 1, "file_system": "ext4"}}}
    after = {"host": {"kernel": "6.2", "load_1min": 9.9}, "paths": {"g4": {"free_bytes": 2, "file_system": "xfs"}}}
    assert facts.differences(before, after) == ["host.kernel", "paths.g4.file_system"]
    assert facts.differences(before, before) == []


def test_the_longest_mount_point_wins() -> None:
    assert facts.path_facts(Path("/proc/self"))["mount_point"] == "/proc"
    assert facts.path_facts(Path("/"))["mount_point"] == "/"


def test_memory_file_systems_are_seen() -> None:
    if not Path("/dev/shm").is_dir():  # noqa: S108
        pytest.skip("no /dev/shm here to look at")
    assert facts.lives_in_memory(Path("/dev/shm/tier"))  # noqa: S108
    assert not facts.lives_in_memory(Path("/proc"))
