"""The tiers that are built from settings: buffers for G2, directories for G3 and G4."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.emulator.direct_io import Access
from kvbench.emulator.file_io import MARKER, Damage, ThreadedFiles, claim, mark
from kvbench.emulator.files import Geometry
from kvbench.emulator.host_memory import HostFiles
from kvbench.emulator.shared import SharedTier
from kvbench.emulator.shared_files import SharedFiles
from kvbench.emulator.tiers import FileTier
from kvbench.errors import ServerError, StorageError
from kvbench.units import format_size

if TYPE_CHECKING:
    import asyncio

    from kvbench.emulator.direct_io import Probe
    from kvbench.emulator.faults import Faults
    from kvbench.emulator.file_io import Scan
    from kvbench.emulator.settings import EmulatorSettings
    from kvbench.typed_json import JsonObject

_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class HostMemory:
    """G2: the tier with its buffers."""

    io: HostFiles
    tier: FileTier

    def info(self) -> JsonObject:
        """Describe the tier for `GET /kvbench/info`."""
        tier = self.tier
        return {"capacity_bytes": tier.capacity_bytes, "used_bytes": tier.used_bytes, "buffers": tier.file_count}


@dataclass(frozen=True)
class TierDirectory:
    """G3 or G4: the tier with the directory that it lives in; `lock` is held until the process ends."""

    path: Path
    probe: Probe
    access: Access
    io: ThreadedFiles
    tier: FileTier
    lock: int | None

    def info(self) -> JsonObject:
        """Describe the tier for `GET /kvbench/info`."""
        found = asdict(self.probe)
        return {
            "path": str(self.path),
            "capacity_bytes": self.tier.capacity_bytes,
            "used_bytes": self.tier.used_bytes,
            "files": self.tier.file_count,
            "pending_writes": self.tier.pending_writes,
            "shared": isinstance(self.tier, SharedTier),
            "direct": found.pop("status"),
            **found,
            "access": self.access.value,
        }

    def adopt(self, scan: Scan) -> None:
        """Take what a scan found as all that there is."""
        self.tier.adopt(scan.files)
        self.tier.counts.scan_bytes += scan.read_bytes
        for reason in scan.bad:
            self.tier.counts.bad_files[reason] += 1

    def scan(self) -> Scan:
        """Read every header, in a directory that is made again if it is gone."""
        mark(self.path)
        return self.io.scan()


def open_host_memory(
    settings: EmulatorSettings, geometry: Geometry, loop: asyncio.AbstractEventLoop
) -> HostMemory | None:
    """Return G2, None where it has no capacity.

    Raises:
        ServerError: the machine has not so much memory left.

    """
    if not settings.g2_bytes:
        return None
    free_bytes = _available_bytes()
    if free_bytes is not None and settings.g2_bytes > free_bytes:
        asked, free = format_size(settings.g2_bytes), format_size(free_bytes)
        raise ServerError(f"--g2 {asked} is more than the {free} of memory that is available", "Make --g2 smaller.")
    bare = Geometry(geometry.block_bytes, geometry.blocks_per_file, bare=True)
    io = HostFiles(bare, loop.call_soon_threadsafe)
    return HostMemory(io, FileTier("g2", io, bare, settings.g2_bytes, in_memory=True))


def _available_bytes() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def open_directories(
    settings: EmulatorSettings, geometry: Geometry, faults: Faults, loop: asyncio.AbstractEventLoop
) -> list[TierDirectory]:
    """Return G3 and G4 as far as they have a path, with what they hold already.

    Raises:
        StorageError: a directory cannot be used, or another server uses it.

    """
    wanted = (
        ("g3", settings.g3_path, settings.g3_capacity_bytes),
        ("g4", settings.g4_path, settings.g4_capacity_bytes),
    )
    return [
        _open(name, path, capacity_bytes, (settings, geometry, faults, loop))
        for name, path, capacity_bytes in wanted
        if path is not None and capacity_bytes is not None
    ]


def _open(
    name: str,
    path: Path,
    capacity_bytes: int,
    common: tuple[EmulatorSettings, Geometry, Faults, asyncio.AbstractEventLoop],
) -> TierDirectory:
    settings, geometry, faults, loop = common
    shared = name == "g4" and settings.g4_shared
    found = claim(path, allow_tmpfs=settings.allow_tmpfs)
    path = path.resolve()
    lock = _hold(path, shared=shared)
    access = Access.DROPPED if found.status == "refused" else Access.DIRECT
    if "page_cache" in faults:
        access = Access.CACHED
    where = (path, geometry, access, loop.call_soon_threadsafe, settings.io_threads)
    io: ThreadedFiles
    tier: FileTier
    if shared:
        io = SharedFiles(*where, damage=_damage(faults))
        tier = SharedTier(name, io, geometry, capacity_bytes, loop)
    else:
        io = ThreadedFiles(*where, damage=_damage(faults))
        tier = FileTier(name, io, geometry, capacity_bytes)
    directory = TierDirectory(path, found, access, io, tier, lock)
    directory.adopt(_first_scan(name, path, io, replace_others=settings.replace_others and not shared))
    return directory


def _damage(faults: Faults) -> Damage:
    served = "corrupt_file_served" in faults
    return Damage(
        corrupt=served or "corrupt_file" in faults,
        full="tier_full" in faults,
        unverified=served,
        every=faults.every,
    )


def _first_scan(name: str, path: Path, io: ThreadedFiles, *, replace_others: bool) -> Scan:
    try:
        scan = io.scan(replace_others=replace_others)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", "Check its owner and mode.") from error
    if "header" in scan.bad:
        raise StorageError(
            f"{path} holds files of another model, scale or file size",
            f"Start with the same --model, --bytes and --g4-payload, or empty the directory of {name}.",
        )
    return scan


def _hold(path: Path, *, shared: bool) -> int | None:
    """Lock the marker for as long as this process lives; None on a file system without locks.

    Raises:
        StorageError: another server has it, and not both want to share it.

    """
    descriptor = os.open(path / MARKER, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StorageError(
                f"another server uses {path} as its tier",
                "Start every server on a common G4 with --g4-shared, or give each a directory of its own.",
            ) from None
        return None
    return descriptor
