"""Facts: what must be equal for two results to be compared, and what decides results on the storage side.

Read from /proc, /sys and git, never from the load. What cannot be read is None, not left out, so that two results show
the same keys. Facts hold no environment variables and no keys.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench import __version__
from kvbench.result.run_record import HostRecord, Pressure

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUEUE = (
    *("scheduler", "rotational", "nr_requests", "read_ahead_kb", "max_sectors_kb"),
    *("iosched/read_expire", "iosched/write_expire"),
)
_OF_A_MOUNT = ("file_system", "mount_point", "mount_options", "source", "queue")
_CLOCK_TRIES = 5
_STEAL = 7  # of the numbers behind "cpu" in /proc/stat; the two after it are parts of the first two
_PACKAGES = ("aiohttp", "httptools", "httpx", "numpy", "prometheus-client", "pydantic")
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs")


def gather(paths: dict[str, Path], repository: Path) -> dict[str, Any]:
    """Collect the facts of this host; `paths` are the folders that matter, by role ("results", "g4").

    Shape: {"host": {...}, "software": {...}, "paths": {role: {...}}}.
    """
    return {
        "host": _host(),
        "software": {
            "kvbench": __version__,
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in _PACKAGES},
            "git": _git_state(repository),
        },
        "paths": {role: path_facts(path) for role, path in paths.items()},
    }


def _gpus() -> list[str]:
    """Return the names of NVIDIA GPUs here, without their serial numbers."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _host() -> dict[str, Any]:
    cpu = _field(Path("/proc/cpuinfo"), "model name")
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "machine": _machine(),
        "cpu": cpu or platform.processor() or None,
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "kernel": platform.release(),
        "system": platform.system(),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "clock_source": _read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "congestion_control": _read(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "gpus": _gpus(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _machine() -> str | None:
    """Return a hash of this system's identifier, which machine-id(5) asks not to show as it is."""
    identifier = _read(Path("/etc/machine-id"))
    return hashlib.sha256(f"kvbench {identifier}".encode()).hexdigest()[:16] if identifier else None


def host_identity(gathered: dict[str, Any]) -> str:
    """Return what two gatherings share if they are of one host in one state: system, processor, cores and kernel.

    A new kernel is another host: the client's timing errors depend on it.
    """
    host = gathered.get("host", {})
    known = [str(host.get(name)) for name in ("machine", "cpu", "cores", "cores_usable", "kernel")]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def path_facts(path: Path) -> dict[str, Any]:
    """Describe the file system and the device under a path, which need not exist yet."""
    existing = nearest_existing(path)
    mount = _mount_of(existing)
    usage = os.statvfs(existing)
    return {
        "path": str(path),
        "file_system": mount.get("type"),
        "mount_point": mount.get("point"),
        "mount_options": mount.get("options"),
        "source": mount.get("source"),
        "free_bytes": usage.f_bavail * usage.f_frsize,
        "queue": _queue_facts(existing),
    }


def lives_in_memory(path: Path) -> bool:
    """Tell whether a path is on a file system that keeps files in RAM, where a disk tier would prove nothing."""
    return _mount_of(nearest_existing(path)).get("type") in _MEMORY_FILE_SYSTEMS


def goes_by_fuse(path: Path) -> bool:
    """Tell whether a path is on a file system in user space, whose reads no counter of the reading process holds."""
    return str(_mount_of(nearest_existing(path)).get("type")).startswith("fuse")


def nearest_existing(path: Path) -> Path:
    """Return the path or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _mount_of(path: Path) -> dict[str, str]:
    """Find the mount that holds a path: the longest mount point that is a parent; later mounts hide earlier ones."""
    best: dict[str, str] = {}
    text = _read(Path("/proc/self/mountinfo")) or ""
    resolved = path.resolve()
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, source, *options) = left.split(), right.split()
        point = fields[4].replace("\\040", " ")
        inside = resolved == Path(point) or Path(point) in resolved.parents
        if inside and len(point) >= len(best.get("point", "")):
            best = {"point": point, "type": kind, "source": source, "options": ",".join([fields[5], *options])}
    return best


def _queue_facts(path: Path) -> dict[str, Any]:
    """Read the block queue's settings of the device under a path; None values where there is no block device."""
    device = path.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    folder = node if (node / "queue").exists() else node.resolve().parent if node.exists() else node
    return {name.rsplit("/", 1)[-1]: _read(folder / "queue" / name) for name in _QUEUE}


def _git_state(repository: Path) -> dict[str, Any]:
    """Return the commit and whether the tree is dirty; None values outside a repository."""
    command = ["git", "-C", str(repository), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}
    if done.returncode != 0:
        return {"commit": None, "dirty": None}
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _field(path: Path, name: str) -> str | None:
    text = _read(path) or ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), None)


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


def settings(paths: dict[str, Path]) -> dict[str, Any]:
    """Return the facts that may change in mid-run and then change the figures; cheap enough for every run."""
    governors = {_read(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return {
        "governor": ", ".join(sorted(governor for governor in governors if governor)) or None,
        "clock_source": _read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "congestion_control": _read(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "swap": _field(Path("/proc/meminfo"), "SwapTotal"),
        "paths": {role: _mount_settings(path) for role, path in paths.items()},
    }


def _mount_settings(path: Path) -> dict[str, Any]:
    found = path_facts(path)
    return {name: found[name] for name in _OF_A_MOUNT}


def _changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, one in before.items():
        other = after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _changes(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}: {one} before, {other} after"


def both_clocks_ns() -> tuple[int, int]:
    """Read the wall clock and the monotonic clock at one moment.

    A process that loses its processor between two readings would see a step that no clock made, so the closest of a few
    pairs is taken.
    """
    tries = []
    for _ in range(_CLOCK_TRIES):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after_ns - before_ns, wall_ns, (before_ns + after_ns) // 2))
    return min(tries)[1:]


def meters() -> dict[str, float | None]:
    """Read what only grows: both clocks, stalls (PSI) in seconds, processor time by whom, and bytes swapped."""
    stalls = {
        f"{what}_{who}_s": _stall_s(what, who)
        for what, who in (("cpu", "some"), ("memory", "some"), ("memory", "full"), ("io", "some"), ("io", "full"))
    }
    ticks = [int(word) for word in (_read(Path("/proc/stat")) or "").partition("\n")[0].split()[1 : _STEAL + 2]]
    counts = dict(line.split() for line in (_read(Path("/proc/vmstat")) or "").splitlines() if line.startswith("pswp"))
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
    for line in (_read(Path("/proc/pressure") / what) or "").splitlines():
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
