"""Tier files on a real path: a directory that is ours, threads that read and write, a scan after a restart."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kvbench.emulator.direct_io import RAM_FILESYSTEMS, Access, Probe, aligned_buffer, probe, read_into, write_from
from kvbench.emulator.files import SUFFIX, check, encode, read_header
from kvbench.emulator.tier_file import FileRead, TierFile
from kvbench.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kvbench.emulator.files import Geometry

MARKER = ".kvbench-tier.json"
WRITE_THREADS = 2
STALE_S = 60.0  # a temporary file this old belongs to nobody any more


@dataclass(frozen=True)
class Scan:
    """What a look at every header of a directory found: good files, oldest first, and why others are not."""

    files: list[TierFile]
    bad: list[str]
    read_bytes: int


def claim(directory: Path, *, allow_tmpfs: bool) -> Probe:
    """Make sure that a directory is ours and on a real disk, mark it, and probe it.

    Raises:
        StorageError: it is no directory, belongs to somebody else, cannot be written, or is in memory.

    """
    marker = directory / MARKER
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not marker.exists() and any(directory.iterdir()):
            raise StorageError(
                f"{directory} is not empty and carries no {MARKER}, so it is not a tier of kvbench",
                "Name an empty or a new directory.",
            )
        found = probe(directory)
        if found.filesystem in RAM_FILESYSTEMS and not allow_tmpfs:
            raise StorageError(
                f"{directory} is on {found.filesystem}, which is memory and not storage",
                "Name a directory on a disk, or pass --allow-tmpfs where the storage time does not matter.",
            )
        mark(directory)
    except OSError as error:
        raise StorageError(
            f"{directory} cannot be used as a tier: {error.strerror or error}",
            "Name a directory that this user may create and write.",
        ) from error
    return found


def mark(directory: Path) -> None:
    """Put the owner marker into a directory, which is made if it is gone."""
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / MARKER
    if not marker.exists():
        marker.write_text(json.dumps({"owner": "kvbench", "kind": "tier", "schema_version": 1}) + "\n")


@dataclass
class Damage:
    """What is wrong with a disk on purpose, for each `every`-th file that is written.

    `corrupt` flips bytes of the KV behind the checksum, `full` has no space left. `unverified` reads without a look at
    the checksum, so that what is corrupt is served.
    """

    corrupt: bool = False
    full: bool = False
    unverified: bool = False
    every: int = 1
    _written: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def next_is_hit(self) -> bool:
        """Count a file and tell whether it is one of those that go wrong."""
        return next(self._written) % self.every == 0


def _refuse_space() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass
class _Gather:
    """Collects the reads of one load; whoever brings the last one calls `done`."""

    left: int
    done: Callable[[list[FileRead]], object]
    started_s: float
    reads: dict[int, FileRead] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, index: int, read: FileRead) -> None:
        with self.lock:
            self.reads[index] = read
            self.left -= 1
            last = not self.left
        if last:
            self.done([self.reads[i] for i in range(len(self.reads))])


class ThreadedFiles:
    """`FileIo` on threads. `post` runs a callback on the engine's thread, e.g. `loop.call_soon_threadsafe`.

    Each file is read by one `preadv` into memory that its thread reuses; the GIL is free while the disk works.
    """

    def __init__(
        self,
        directory: Path,
        geometry: Geometry,
        access: Access,
        post: Callable[..., object],
        read_threads: int = 8,
        *,
        damage: Damage | None = None,
    ) -> None:
        """Start no thread yet: pools do so with the first file."""
        self._damage = damage or Damage()
        self._directory = str(directory)
        self._path = directory
        self._geometry = geometry
        self._access = access
        self._write_access = Access.DROPPED if access is Access.CACHED else access
        self._post = post
        self._readers = ThreadPoolExecutor(read_threads, "tier-read")
        self._writers = ThreadPoolExecutor(WRITE_THREADS, "tier-write")
        self._memory = threading.local()

    def path_of(self, file: TierFile) -> str:
        """Return where a file lies."""
        return f"{self._directory}/{file.key.hex()}{SUFFIX}"

    def read(self, files: Sequence[TierFile], done: Callable[[Sequence[FileRead]], None]) -> None:
        """Queue every file for the next free thread; waiting for one is part of the storage time."""
        gather = _Gather(len(files), partial(self._post, done), time.monotonic())
        for index, file in enumerate(files):
            self._readers.submit(self._read_one, file, index, gather)

    def _read_one(self, file: TierFile, index: int, gather: _Gather) -> None:
        view, count = self._buffer()[: file.size_bytes], 0
        try:
            count = read_into(self.path_of(file), view, self._access)
        except OSError as error:
            bad: str | None = "missing" if error.errno == errno.ENOENT else "io_error"
        else:
            bad = "truncated" if count < file.size_bytes else check(view, file.hashes, self._geometry)
        wrong = bad == "checksum" and self._damage.unverified
        ended_s = time.monotonic()
        if bad is None:
            self._mark_used(file)
        gather.add(index, FileRead(file, None if wrong else bad, count, gather.started_s, ended_s, wrong))

    def _mark_used(self, file: TierFile) -> None:
        """Leave a trace of a read for other servers, where there are any."""

    def write(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        """Queue a file for the next free writer."""
        self._writers.submit(self._write_one, file, done)

    def _write_one(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        content = self._moved(file)
        if isinstance(content, str):
            self._post(done, file, "bad_source")
            return
        view = encode(self._buffer(), file.hashes, self._geometry, content)
        hit = self._damage.next_is_hit()
        if self._damage.corrupt and hit:
            view[self._geometry.header_bytes(file.blocks)] ^= 0xFF
        try:
            if self._damage.full and hit:
                _refuse_space()
            try:
                write_from(self.path_of(file), view, self._write_access)
            except FileNotFoundError:  # somebody wiped the directory with its marker
                mark(self._path)
                write_from(self.path_of(file), view, self._write_access)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._post(done, file, "no_space" if full else "io_error")
        else:
            self._post(done, file, None)

    def _moved(self, file: TierFile) -> memoryview | str | None:
        """Return the KV of a file that comes from the tier above, or why it cannot be had; None without a move."""
        if file.move is None:
            return None
        content = file.move.io.content(file.move.file)
        if isinstance(content, str):
            return content
        at = (file.start - file.move.file.start) * self._geometry.block_bytes
        return content[at : at + file.blocks * self._geometry.block_bytes]

    def content(self, file: TierFile) -> memoryview | str:
        """Read a whole file for the tier below, into memory that the calling thread keeps for that."""
        if not hasattr(self._memory, "source"):
            self._memory.source = aligned_buffer(self._geometry.max_file_bytes)
        view = self._memory.source[: file.size_bytes]
        try:
            count = read_into(self.path_of(file), view, self._access)
        except OSError as error:
            return "missing" if error.errno == errno.ENOENT else "io_error"
        bad = "truncated" if count < file.size_bytes else check(view, file.hashes, self._geometry)
        start = self._geometry.header_bytes(file.blocks)
        body: memoryview = view[start : start + file.blocks * self._geometry.block_bytes]
        return bad or body

    def _buffer(self) -> memoryview:
        """Return this thread's own aligned memory."""
        if not hasattr(self._memory, "view"):
            self._memory.view = aligned_buffer(self._geometry.max_file_bytes)
        view: memoryview = self._memory.view
        return view

    def remove(self, file: TierFile) -> None:
        """Delete a file now; that it is gone already is fine."""
        with contextlib.suppress(OSError):
            Path(self.path_of(file)).unlink()

    def scan(self, *, replace_others: bool = False) -> Scan:
        """Read the header of every file of ours, oldest first, and delete what is broken.

        With `replace_others` files of another model, scale or file size are deleted too.

        Raises:
            OSError: the directory cannot be listed.

        """
        files: list[TierFile] = []
        bad: list[str] = []
        view = aligned_buffer(self._geometry.header_bytes(self._geometry.blocks_per_file))
        read_bytes = 0
        for _, path, size_bytes in sorted(self._candidates()):
            try:
                count = read_into(path, view, self._write_access)
            except OSError:
                bad.append("io_error")
                continue
            read_bytes += count
            found = self._examine(view[:count], path, size_bytes)
            if isinstance(found, TierFile):
                files.append(found)
                continue
            is_other = found == "header"  # a header of another model or scale is good, only not ours to judge
            if is_other and not replace_others:
                bad.append(found)
                continue
            Path(path).unlink(missing_ok=True)
            if not is_other:
                bad.append(found)
        return Scan(files, bad, read_bytes)

    def _examine(self, view: memoryview, path: str, size_bytes: int) -> TierFile | str:
        hashes = read_header(view, self._geometry)
        if isinstance(hashes, str):
            return hashes
        file = TierFile(hashes, size_bytes, stored=True)
        if path != self.path_of(file):
            return "hashes"
        return file if size_bytes == self._geometry.file_bytes(file.blocks) else "truncated"

    def _candidates(self) -> Iterator[tuple[int, str, int]]:
        """Yield time, path and size of the regular files that are named as ours; links are never followed."""
        with os.scandir(self._directory) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # another server deleted it
                if not stat.S_ISREG(about.st_mode):
                    continue
                if SUFFIX in entry.name and entry.name.endswith(".tmp"):
                    if time.time() - about.st_mtime > STALE_S:  # a younger one may be another server's
                        Path(entry.path).unlink(missing_ok=True)
                elif entry.name.endswith(SUFFIX):
                    yield about.st_mtime_ns, entry.path, about.st_size

    def close(self) -> None:
        """Wait for what is queued and stop the threads."""
        self._readers.shutdown()
        self._writers.shutdown()
