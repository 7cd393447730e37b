"""Collects the facts of host, software and storage that decide whether two results can be compared.

Read from /proc, /sys and git, never from the load. What cannot be read is None, not left out, so that two results show
the same keys. Facts hold no environment variables and no keys.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from kvbench import __version__
from kvbench.lenient_json import at

if TYPE_CHECKING:
    from collections.abc import Mapping


_QUEUE = (
    *("scheduler", "rotational", "nr_requests", "read_ahead_kb", "max_sectors_kb"),
    *("iosched/read_expire", "iosched/write_expire"),
)
_PACKAGES = ("aiohttp", "httptools", "httpx", "numpy", "prometheus-client", "pydantic")
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs")


class PathFacts(TypedDict):
    """The file system and the device under a path; None what cannot be read."""

    path: str
    file_system: str | None
    mount_point: str | None
    mount_options: str | None
    source: str | None
    free_bytes: int
    queue: dict[str, str | None]


class HostFacts(TypedDict):
    """This host; `machine` is a hash of its identifier, `gpus` are names, `load_1min` is processes."""

    machine: str | None
    cpu: str | None
    cores: int | None
    cores_usable: int | None
    memory_bytes: int | None
    kernel: str
    system: str
    governor: str | None
    clock_source: str | None
    congestion_control: str | None
    gpus: list[str]
    load_1min: float


class GitState(TypedDict):
    """The commit of kvbench's repository and whether its tree is dirty; None outside a repository."""

    commit: str | None
    dirty: bool | None


class SoftwareFacts(TypedDict):
    """Versions of kvbench, of Python and of the packages that decide figures; None what is not installed."""

    kvbench: str
    python: str
    packages: dict[str, str | None]
    git: GitState


class Facts(TypedDict):
    """The facts of a host, as `facts.json` keeps them; `paths` are the folders that matter, by role."""

    host: HostFacts
    software: SoftwareFacts
    paths: dict[str, PathFacts]


def gather(paths: dict[str, Path], repository: Path) -> Facts:
    """Collect the facts of this host; `paths` are the folders that matter, by role ("results", "g4")."""
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


def _host() -> HostFacts:
    cpu = field_of(Path("/proc/cpuinfo"), "model name")
    memory = field_of(Path("/proc/meminfo"), "MemTotal")
    return {
        "machine": _machine(),
        "cpu": cpu or platform.processor() or None,
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "kernel": platform.release(),
        "system": platform.system(),
        "governor": read_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "clock_source": read_text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "congestion_control": read_text(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "gpus": _gpus(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _machine() -> str | None:
    """Return a hash of this system's identifier, which machine-id(5) asks not to show as it is."""
    identifier = read_text(Path("/etc/machine-id"))
    return hashlib.sha256(f"kvbench {identifier}".encode()).hexdigest()[:16] if identifier else None


def host_identity(gathered: Mapping[str, object]) -> str:
    """Return what two gatherings share if they are of one host in one state: system, processor, cores and kernel.

    A new kernel is another host: the client's timing errors depend on it.
    """
    known = [str(at(gathered, "host", name)) for name in ("machine", "cpu", "cores", "cores_usable", "kernel")]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def path_facts(path: Path) -> PathFacts:
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
    text = read_text(Path("/proc/self/mountinfo")) or ""
    resolved = path.resolve()
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, source, *options) = left.split(), right.split()
        point = fields[4].replace("\\040", " ")
        inside = resolved == Path(point) or Path(point) in resolved.parents
        if inside and len(point) >= len(best.get("point", "")):
            best = {"point": point, "type": kind, "source": source, "options": ",".join([fields[5], *options])}
    return best


def _queue_facts(path: Path) -> dict[str, str | None]:
    """Read the block queue's settings of the device under a path; None values where there is no block device."""
    device = path.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    folder = node if (node / "queue").exists() else node.resolve().parent if node.exists() else node
    return {name.rsplit("/", 1)[-1]: read_text(folder / "queue" / name) for name in _QUEUE}


def _git_state(repository: Path) -> GitState:
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


def read_text(path: Path) -> str | None:
    """Return the content of a file without white space at its ends, None where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def field_of(path: Path, name: str) -> str | None:
    """Return the value of the first line `name: value` of a file, None where there is none."""
    text = read_text(path) or ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), None)
