"""What the agent reads of the machine it runs on: the target, the marked folder, the counters.

Sent to side clients in one text with `agent.py`, ahead of it: Python 3.8, the standard library alone, nothing of ours.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

PROTOCOL = 1
OWNER = "owner.json"
MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")


class Owner(TypedDict):
    """Who made a folder, and until when it may be needed: the content of `owner.json`."""

    made_by: str
    run: str
    boot_id: str
    pid: int
    pid_start: str
    expires_ns: int


class Counters(TypedDict):
    """A host's cumulative counters: bytes in and out, ticks of the processors, microseconds of pressure."""

    disk: list[int] | None
    nic: list[int]
    cpu: dict[str, int] | None
    psi: dict[str, int]


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """What cannot be done, and what to do about it."""


def read_text(path: str | Path) -> str:
    """Return a file's text, empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def first_line(command: list[str]) -> str | None:
    """Return what a program says first, None where it is missing."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip().split("\n")[0]


def hello() -> dict[str, str | int | None]:
    """Say what this host is and has; fio and iperf3 by the first line of their --version, None where missing."""
    return {
        "protocol": PROTOCOL,
        "python": sys.version.split()[0],
        "kernel": os.uname().release,
        "host": os.uname().nodename,
        "cores": os.cpu_count(),
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "network": network(),
        "congestion_control": read_text("/proc/sys/net/ipv4/tcp_congestion_control").strip(),
        "fio": first_line(["fio", "--version"]),
        "iperf3": first_line(["iperf3", "--version"]),
    }


def network() -> str:
    """Return what tells this process's network namespace from all others of this machine."""
    return os.readlink("/proc/self/ns/net")  # noqa: PTH115 - Path.readlink came with 3.9


def queue_of(disk: str | None) -> dict[str, str]:
    """Return the settings of a disk's queue that decide results; an empty one where there is no disk."""
    names = ("scheduler", "rotational", "nr_requests", "max_sectors_kb", "iosched/read_expire")
    return {name: read_text(f"/sys/block/{disk}/queue/{name}").strip() for name in names} if disk else {}


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    best, kind = "", ""
    for line in read_text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if f"{folder}/".startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def disk_of(folder: Path) -> str | None:
    """Return the name of the whole disk under a folder, None where there is none (a network or FUSE mount)."""
    device = folder.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not link.exists():
        return None
    path = link.resolve()
    return path.parent.name if (path / "partition").exists() else path.name


def check_directory(given: str, need_bytes: int) -> Path:
    """Return the real path of a directory that may be loaded; refuse every other."""
    path = Path(given).resolve()
    if ":" in given or ":" in str(path):
        raise Refusal(f"the target {given} holds a colon, where fio would split it", "Name another directory.")
    if not Path(given).is_absolute() or not path.exists():
        raise Refusal(f"the target {given} does not exist", "Name an existing directory by its absolute path.")
    mode = path.stat().st_mode
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        raise Refusal(f"the target {given} is a device, which is never written", "Name a directory on it.")
    if Path(given).is_symlink():
        raise Refusal(f"the target {given} is a symbolic link", f"Name the directory itself: {path}.")
    if not stat.S_ISDIR(mode):
        raise Refusal(f"the target {given} is not a directory", "Name a directory.")
    if file_system_of(path) in MEMORY:
        raise Refusal(f"the target {given} is in memory, not on storage", "Name a directory on the storage.")
    if path.parts[1:2] in ((), ("dev",), ("proc",), ("sys",)):
        raise Refusal(f"the target {given} is the system's own", "Name a directory for the benchmark.")
    usage = os.statvfs(path)
    free = usage.f_bavail * usage.f_frsize
    if free < need_bytes * 1.1:
        text = f"{free // 10**6} MB are free, {need_bytes * 1.1 // 10**6 + 1:.0f} MB are needed"
        raise Refusal(f"the target {given} is too full: {text}", "Lower `size` or make room.")
    return path


def make_folder(directory: Path, run: str, owner: Owner) -> Path:
    """Make the marked folder of a run; refuse where a link or somebody else's file is in the way."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run):
        raise Refusal(f"{run!r} is no name for a run", "Use letters, digits, dots and dashes.")
    folder = directory / ".kvbench" / run
    try:
        for path in (folder.parent, folder):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                raise Refusal(f"{path} leads elsewhere", "Remove it: kvbench follows no links there.")
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        (folder / OWNER).write_text(json.dumps(owner))
    except FileExistsError:
        raise Refusal(f"{folder} is there already", "Remove what an earlier run left, or wait for its end.") from None
    except OSError as fault:
        raise Refusal(f"cannot write in {directory}: {fault.strerror}", "Check its owner and its mount.") from None
    return folder


def remove_folder(folder: Path) -> list[str]:
    """Remove a marked folder and the plain files in it; return what had to stay."""
    if folder.is_symlink() or not (folder / OWNER).is_file():
        return [str(folder)]
    left = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name == OWNER):  # the marker last
        try:
            path.unlink()
        except OSError:
            left.append(str(path))
    for path in (folder, folder.parent):
        try:
            path.rmdir()
        except OSError:
            if path == folder:
                left.append(str(path))
    return left


def sweep(directory: Path) -> dict[str, list[str]]:
    """Remove the marked folders below a directory whose agents are gone."""
    ours = directory / ".kvbench"
    removed: list[str] = []
    kept: list[str] = []
    for folder in sorted(ours.iterdir()) if ours.is_dir() and not ours.is_symlink() else []:
        try:
            owner = json.loads(read_text(folder / OWNER))
            if owner["boot_id"] == boot_id():
                stale = starting_time(owner["pid"]) != owner["pid_start"]
            else:
                stale = time.time_ns() > owner["expires_ns"]
        except (ValueError, KeyError, TypeError):
            stale = False  # not ours
        (removed if stale and not remove_folder(folder) else kept).append(str(folder))
    return {"removed": removed, "kept": kept}


def starting_time(pid: int) -> str:
    """Return when a process began, in ticks since boot, empty where there is none: a pid alone may be used again."""
    return "".join(read_text(f"/proc/{pid}/stat").rpartition(")")[2].split(" ")[20:21])


def boot_id() -> str:
    """Return what tells one start of one machine from all others."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def direct_io(folder: Path) -> str:
    """Tell whether O_DIRECT is enforced, accepted but not enforced (tmpfs), or refused."""
    path = folder / "probe"
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
    except OSError:
        return "refused"
    try:
        os.pwrite(fd, b"unaligned", 7)
    except OSError as fault:
        return "enforced" if fault.errno == errno.EINVAL else "refused"
    else:
        return "accepted, not enforced"
    finally:
        os.close(fd)
        path.unlink()


def process_bytes(pid: int) -> dict[str, int]:
    """Return the kernel's byte counters of a process: {"rchar": ..., "wchar": ..., "read_bytes": ...}."""
    lines = (line.split(": ") for line in read_text(f"/proc/{pid}/io").splitlines())
    return {name: int(value) for name, value in lines}


def listens(port: int) -> bool:
    """Tell whether somebody in this network namespace listens on a TCP port."""
    lines = (read_text("/proc/net/tcp") + read_text("/proc/net/tcp6")).splitlines()
    fields = [line.split() for line in lines]
    return any(len(f) > 3 and f[3] == "0A" and f[1].endswith(f":{port:04X}") for f in fields)


def counters(disk: str | None, interface: str | None) -> Counters:
    """Read this host's cumulative counters: disk and network bytes, processor ticks, microseconds of pressure."""
    found: Counters = {"disk": None, "nic": [0, 0], "cpu": None, "psi": {}}
    for line in read_text("/proc/diskstats").splitlines():
        fields = line.split()
        if fields[2] == disk:
            found["disk"] = [int(fields[5]) * 512, int(fields[9]) * 512]
    for line in read_text("/proc/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        if name.strip() == interface or (interface is None and name.strip() != "lo"):
            fields = rest.split()
            found["nic"] = [found["nic"][0] + int(fields[0]), found["nic"][1] + int(fields[8])]
    ticks = [int(field) for field in read_text("/proc/stat").split("\n")[0].split()[1:9]]
    if ticks:
        found["cpu"] = {"busy": sum(ticks) - ticks[3] - ticks[4], "all": sum(ticks), "steal": ticks[7]}
    for what in ("cpu", "io", "memory"):
        match = re.search(r"^some .*total=(\d+)", read_text("/proc/pressure/" + what))
        if match:
            found["psi"][what] = int(match.group(1))
    return found
