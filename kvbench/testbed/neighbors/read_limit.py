"""Limits the reads of chosen processes on the disk under a path, by a control group.

Tried in this order: `io.max` of cgroup v2, `blkio.throttle` of v1, nothing. It emulates a shared resource with a known
capacity; it stands for no product, and is never made unasked. (The other bottleneck, a token-bucket link between
network namespaces, is `lab.standing(with_sshd=False)`.)
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.result.run_record import BottleneckRecord
from kvbench.testbed.neighbors.agent_host import disk_of, read_text, starting_time

if TYPE_CHECKING:
    from collections.abc import Iterator

_V1 = Path("/sys/fs/cgroup/blkio")
_NAME = re.compile(r"kvb-cap-(\d+)-(\d+)")


@dataclass
class Cap:
    """A limit that was made (`how`), or why none could be (`reason`, and `how` is None)."""

    bytes_per_s: float
    how: str | None
    reason: str
    group: Path | None = None
    disk: str | None = None
    _home: dict[int, Path] = field(default_factory=dict)

    @property
    def made(self) -> bool:
        """Whether the limit is there."""
        return self.how is not None

    def add(self, pid: int) -> None:
        """Put a process under the limit; what it starts later inherits that. Without a limit nothing happens."""
        if self.group is not None:
            self._home.setdefault(pid, _home_of(pid, self.group))
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                (self.group / "cgroup.procs").write_text(str(pid))

    def record(self) -> BottleneckRecord:
        """Return what a result says about it."""
        return BottleneckRecord("disk", self.bytes_per_s, self.how, self.reason)

    def _remove(self) -> None:
        if self.group is None:
            return
        for pid in _members(self.group):
            _move(pid, self._home.get(pid, self.group.parent))
        with contextlib.suppress(OSError):
            self.group.rmdir()


@contextlib.contextmanager
def capped(path: Path, read_bytes_per_s: float) -> Iterator[Cap]:
    """Limit the reads of processes that are added to the cap, from the disk under a path, while the context is open.

    It is always entered: `cap.made` tells whether there is a limit, `cap.reason` why not.
    """
    sweep()
    cap = _make(path, read_bytes_per_s)
    try:
        yield cap
    finally:
        cap._remove()  # noqa: SLF001 - its own


def sweep() -> list[str]:
    """Remove the groups of processes that are gone (after a kill); return their names."""
    removed = []
    for parent in (_V1, _v2_root() or _V1):
        for group in parent.glob("kvb-cap-*"):
            match = _NAME.fullmatch(group.name)
            if match and starting_time(int(match[1])) != match[2]:
                for pid in _members(group):
                    _move(pid, parent)
                with contextlib.suppress(OSError):
                    group.rmdir()
                    removed.append(group.name)
    return removed


def _make(path: Path, read_bytes_per_s: float) -> Cap:
    disk = disk_of(path)
    if disk is None:
        return Cap(read_bytes_per_s, None, f"there is no disk of this machine under {path}")
    number = read_text(f"/sys/block/{disk}/dev").strip()
    reasons = []
    limits = (
        ("cgroup v2 io.max", _v2_parent(), "io.max", f"{number} rbps={round(read_bytes_per_s)}"),
        ("cgroup v1 blkio", _V1 if _V1.is_dir() else None, "blkio.throttle.read_bps_device", None),
    )
    for how, parent, file, text in limits:
        if parent is None:
            reasons.append(f"{how}: not here")
            continue
        group = parent / f"kvb-cap-{os.getpid()}-{starting_time(os.getpid())}"
        try:
            group.mkdir()
            (group / file).write_text(text or f"{number} {round(read_bytes_per_s)}")
        except OSError as fault:
            reasons.append(f"{how}: {(fault.strerror or str(fault)).lower()}")
            with contextlib.suppress(OSError):
                group.rmdir()
        else:
            return Cap(read_bytes_per_s, how, f"reads from {disk} are limited by {how}", group, disk)
    return Cap(read_bytes_per_s, None, f"no read limit could be made ({'; '.join(reasons)})")


def _v2_root() -> Path | None:
    """Return where cgroup v2 is mounted."""
    for line in read_text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return Path(left.split(" ")[4])
    return None


def _v2_parent() -> Path | None:
    """Return the root of cgroup v2 if it hands the `io` controller to its children, which is asked for if need be."""
    root = _v2_root()
    if root is None or "io" not in read_text(root / "cgroup.controllers").split():
        return None
    if "io" not in read_text(root / "cgroup.subtree_control").split():
        try:
            (root / "cgroup.subtree_control").write_text("+io")
        except OSError:
            return None
    return root


def _home_of(pid: int, group: Path) -> Path:
    """Return the group that a process is in now, in the hierarchy of ours."""
    v1 = group.parent == _V1
    for line in read_text(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if ("blkio" in controllers.split(",")) if v1 else controllers == "":
            return group.parent / path.lstrip("/")
    return group.parent


def _members(group: Path) -> list[int]:
    return [int(pid) for pid in read_text(group / "cgroup.procs").split()]


def _move(pid: int, group: Path) -> None:
    with contextlib.suppress(OSError):
        (group / "cgroup.procs").write_text(str(pid))
