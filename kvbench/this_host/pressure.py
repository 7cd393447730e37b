"""Observes the host during a run: changed settings, and pressure on processors, memory and disks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.result.run_record import HostRecord, Pressure
from kvbench.this_host.clock import both_clocks_ns
from kvbench.this_host.facts import field_of, path_facts, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kvbench.typed_json import JsonObject

_OF_A_MOUNT = ("file_system", "mount_point", "mount_options", "source", "queue")
_STEAL = 7  # of the numbers behind "cpu" in /proc/stat; the two after it are parts of the first two

# -- what may change while a run goes on ------------------------------------------------------------------------------


class HostObservation:
    """Looks at this host when a run begins and ends, and at its meters around the measured phase.

    Made when the run begins; `begin` and `end` enclose what is measured.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        """Note the settings that a run relies on; `paths` are the folders that matter, by role."""
        self._paths = paths
        self._before = settings(paths)
        self._first = self._last = meters()

    def begin(self) -> None:
        """Read the meters: what is measured begins."""
        self._first = meters()

    def end(self) -> None:
        """Read the meters: what is measured is over."""
        self._last = meters()

    def record(self) -> HostRecord:
        """Return the settings before and after, which of them changed, and what the meters counted."""
        after = settings(self._paths)
        changed = tuple(_changes(self._before, after))
        return HostRecord(self._before, after, changed, pressure(self._first, self._last))


def settings(paths: dict[str, Path]) -> JsonObject:
    """Return the facts that may change in mid-run and then change the figures; cheap enough for every run."""
    governors = {read_text(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return {
        "governor": ", ".join(sorted(governor for governor in governors if governor)) or None,
        "clock_source": read_text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "congestion_control": read_text(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "swap": field_of(Path("/proc/meminfo"), "SwapTotal"),
        "paths": {role: _mount_settings(path) for role, path in paths.items()},
    }


def _mount_settings(path: Path) -> JsonObject:
    facts: Mapping[str, Any] = path_facts(path)
    return {name: facts[name] for name in _OF_A_MOUNT}


def _changes(before: JsonObject, after: JsonObject, prefix: str = "") -> Iterator[str]:
    for key, one in before.items():
        other = after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _changes(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}: {one} before, {other} after"


def meters() -> dict[str, float | None]:
    """Read what only grows: both clocks, stalls (PSI) in seconds, processor time by whom, and bytes swapped."""
    stalls = {
        f"{what}_{who}_s": _stall_s(what, who)
        for what, who in (("cpu", "some"), ("memory", "some"), ("memory", "full"), ("io", "some"), ("io", "full"))
    }
    ticks = [int(word) for word in (read_text(Path("/proc/stat")) or "").partition("\n")[0].split()[1 : _STEAL + 2]]
    counts = dict(
        line.split() for line in (read_text(Path("/proc/vmstat")) or "").splitlines() if line.startswith("pswp")
    )
    wall_ns, monotonic_ns = both_clocks_ns()
    return {
        "wall_s": wall_ns / 1e9,
        "monotonic_s": monotonic_ns / 1e9,
        **stalls,
        "processor_ticks": sum(ticks) if ticks else None,
        "stolen_ticks": ticks[_STEAL] if len(ticks) > _STEAL else None,
        "swapped_bytes": sum(map(int, counts.values())) * os.sysconf("SC_PAGE_SIZE") if counts else None,
    }


def _stall_s(what: str, who: str) -> float | None:
    """Return for how long in all `some` process, or all that could have run (`full`), waited for a resource."""
    for line in (read_text(Path("/proc/pressure") / what) or "").splitlines():
        if line.startswith(who) and "total=" in line:
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def pressure(first: dict[str, float | None], last: dict[str, float | None]) -> Pressure:
    """Return what the meters counted between two readings, as shares of the time; None where there is no meter."""
    grown = {
        name: None if value is None or (before := first.get(name)) is None else value - before
        for name, value in last.items()
    }
    spent_s, wall_s = grown["monotonic_s"] or 0.0, grown["wall_s"] or 0.0
    return Pressure(
        window_s=spent_s,
        clock_step_s=wall_s - spent_s,
        cpu_some_share=_share(grown.get("cpu_some_s"), spent_s),
        memory_some_share=_share(grown.get("memory_some_s"), spent_s),
        memory_full_share=_share(grown.get("memory_full_s"), spent_s),
        io_some_share=_share(grown.get("io_some_s"), spent_s),
        io_full_share=_share(grown.get("io_full_s"), spent_s),
        steal_share=_share(grown["stolen_ticks"], grown["processor_ticks"]),
        swapped_bytes=grown["swapped_bytes"],
    )


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or whole is None else part / whole if whole > 0 else 0.0
