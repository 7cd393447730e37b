"""Facts of this host: present, typed, and free of secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvbench.this_host import clock, facts, pressure
from kvbench.typed_json import to_json


def test_facts_have_the_same_keys_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-this-must-not-appear")
    gathered = facts.gather({"g4": tmp_path / "not" / "there" / "yet"}, tmp_path)
    assert set(gathered) == {"host", "software", "paths"}
    cores = gathered["host"]["cores"]
    assert cores is not None
    assert cores >= 1
    assert gathered["paths"]["g4"]["free_bytes"] > 0
    assert gathered["paths"]["g4"]["file_system"]
    assert set(gathered["paths"]["g4"]["queue"]) == {
        "scheduler",
        "rotational",
        "nr_requests",
        "read_ahead_kb",
        "max_sectors_kb",
        "read_expire",
        "write_expire",
    }
    assert gathered["software"]["git"] == {"commit": None, "dirty": None}  # no repository there
    assert "sk-this-must-not-appear" not in json.dumps(gathered)


def test_the_longest_mount_point_wins() -> None:
    assert facts.path_facts(Path("/proc/self"))["mount_point"] == "/proc"
    assert facts.path_facts(Path("/"))["mount_point"] == "/"


def test_memory_file_systems_are_seen() -> None:
    if not Path("/dev/shm").is_dir():  # noqa: S108
        pytest.skip("no /dev/shm here to look at")
    assert facts.lives_in_memory(Path("/dev/shm/tier"))  # noqa: S108
    assert not facts.lives_in_memory(Path("/proc"))


def meters(**changes: float | None) -> dict[str, float | None]:
    """Return a reading of made-up meters."""
    known: dict[str, float | None] = {
        "wall_s": 1000.0,
        "monotonic_s": 10.0,
        "cpu_some_s": 3.0,
        "io_full_s": 1.0,
        "processor_ticks": 500.0,
        "stolen_ticks": 5.0,
        "swapped_bytes": 4096.0,
    }
    return {**known, **changes}


def test_pressure_is_what_the_meters_counted_over_the_time_between() -> None:
    later = meters(
        wall_s=1004.5,
        monotonic_s=14.0,
        cpu_some_s=4.0,
        io_full_s=1.2,
        processor_ticks=900.0,
        stolen_ticks=25.0,
        swapped_bytes=12288.0,
    )
    found = pressure.pressure(meters(), later)
    assert (found.window_s, found.clock_step_s) == pytest.approx((4.0, 0.5))
    shares = (found.cpu_some_share, found.io_full_share, found.steal_share)
    assert shares == pytest.approx((0.25, 0.05, 0.05))
    assert found.swapped_bytes == 8192.0


def test_a_meter_that_is_not_there_counts_nothing_and_not_zero() -> None:
    found = pressure.pressure(meters(cpu_some_s=None, stolen_ticks=None), meters(monotonic_s=11.0, swapped_bytes=None))
    assert (found.cpu_some_share, found.steal_share, found.swapped_bytes) == (None, None, None)
    assert found.io_full_share == 0


def test_a_setting_that_changes_in_mid_run_is_named_with_both_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = pressure.HostObservation({"g4": tmp_path})
    watched.begin()
    watched.end()
    found = watched.record()
    assert found.changed == ()
    assert found.before == found.after
    paths: Any = found.before["paths"]
    assert paths["g4"]["file_system"]
    assert (found.pressure.window_s or 0) >= 0
    assert json.dumps(to_json(found))
    real = facts.path_facts

    def remounted(path: Path) -> dict[str, Any]:
        seen = real(path)
        return {**seen, "mount_options": "ro", "queue": {**seen["queue"], "scheduler": "bfq"}, "free_bytes": 0}

    monkeypatch.setattr("kvbench.this_host.pressure.path_facts", remounted)
    before = paths["g4"]
    assert watched.record().changed == (
        f"paths.g4.mount_options: {before['mount_options']} before, ro after",
        f"paths.g4.queue.scheduler: {before['queue']['scheduler']} before, bfq after",
    )


def test_the_meters_of_this_host_only_grow() -> None:
    if not Path("/proc/stat").exists():
        pytest.skip("no /proc here")
    first, last = pressure.meters(), pressure.meters()
    assert first["processor_ticks"]
    for name, value in first.items():
        assert value is None or (last[name] or 0.0) >= value, name


def test_both_clocks_are_read_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process loses its processor for 12 ms between the first two readings; the next pair is taken."""
    monotonic = iter([0, 12_000_100, *(12_001_000 + 100 * n for n in range(20))])
    wall = iter([10**18 + 50, *(10**18 + 12_001_050 + 200 * n for n in range(20))])
    monkeypatch.setattr("kvbench.this_host.clock.time.monotonic_ns", lambda: next(monotonic))
    monkeypatch.setattr("kvbench.this_host.clock.time.time_ns", lambda: next(wall))
    wall_ns, monotonic_ns = clock.both_clocks_ns()
    assert wall_ns - monotonic_ns == 10**18
