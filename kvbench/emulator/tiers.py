"""The levels of the cache: what each holds, and what it drops first.

A tier answers one question, how far a chain is covered, and takes one order, keep this chain. `MemoryTier` (G1) is
pure accounting. `FileTier` (G4) decides which files exist and leaves every touch of a disk to a `FileIo`; with a
modelled `FileIo` the same code runs in a simulation.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.counts import TierCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvbench.emulator.files import Geometry


class Tier(Protocol):
    """One level of the cache; `chain` is the hashes of a prompt's full blocks."""

    name: str
    capacity_bytes: int

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""

    def covered(self, chain: bytes, start: int, stop: int) -> int:
        """Return the first block from `start` on that is not held, at most `stop`."""

    def keep(self, chain: bytes) -> None:
        """Take the blocks of a chain that are not held yet; those used longest ago make room."""


class MemoryTier:
    """Blocks in memory, least recently used dropped first; capacity 0 keeps nothing.

    Blocks enter when their request ends and of one request the tail is dropped before the head, as vLLM does.
    """

    def __init__(self, name: str, capacity_bytes: int, block_bytes: int) -> None:
        """Start empty."""
        self.name = name
        self.capacity_bytes = capacity_bytes
        self._block_bytes = block_bytes
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """Bytes of all blocks held."""
        return len(self._blocks) * self._block_bytes

    def covered(self, chain: bytes, start: int, stop: int) -> int:
        """Return the first block from `start` on that is not held, at most `stop`."""
        block = start
        while block < stop and chain[block * HASH_BYTES : (block + 1) * HASH_BYTES] in self._blocks:
            block += 1
        return block

    def keep(self, chain: bytes) -> None:
        """Make these blocks the most recently used, the head of the chain last."""
        if not self.capacity_bytes:
            return
        for at in range(len(chain) - HASH_BYTES, -1, -HASH_BYTES):
            block = chain[at : at + HASH_BYTES]
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while self.used_bytes > self.capacity_bytes:
            self._blocks.popitem(last=False)

    def drop(self) -> None:
        """Forget everything."""
        self._blocks.clear()


@dataclass(slots=True, eq=False)
class TierFile:
    """A file of consecutive blocks of one chain; its name is the hash of its first block."""

    hashes: bytes
    size_bytes: int
    stored: bool = False
    pins: int = 0

    @property
    def key(self) -> bytes:
        """Hash of the first block."""
        return self.hashes[:HASH_BYTES]

    @property
    def blocks(self) -> int:
        """How many blocks it holds."""
        return len(self.hashes) // HASH_BYTES


class FileRead(NamedTuple):
    """How reading one file went: `bad` is a reason of `counts.BAD_FILE_REASONS`, None if the file is good."""

    file: TierFile
    bad: str | None
    read_bytes: int
    started_s: float
    ended_s: float


class FileIo(Protocol):
    """Where files really are. Calls return at once; `done` is called later, on the clock's own thread."""

    def read(self, files: Sequence[TierFile], done: Callable[[Sequence[FileRead]], None]) -> None:
        """Read and check whole files, several at a time; report all of them together and in order."""

    def write(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        """Write a file; report a reason of `counts.WRITE_ERROR_REASONS`, or None if it is stored."""

    def remove(self, file: TierFile) -> None:
        """Delete a file that is no longer indexed."""


class Loaded(NamedTuple):
    """What a load brought: blocks up to `stop`, where the files behind a bad one do not count."""

    stop: int
    read_bytes: int
    storage_s: float


class _Run(NamedTuple):
    file: TierFile
    start: int
    stop: int


class FileTier:
    """G4: blocks in files, least recently used files deleted first.

    The index maps the first hash of each file to the file. That is enough to find every block: hashes are chained, so
    whoever holds block k of a file holds all blocks before it, and a chain is walked from its beginning.
    """

    name = "g4"

    def __init__(self, io: FileIo, geometry: Geometry, capacity_bytes: int) -> None:
        """Start empty; `adopt` takes what a scan of the directory found."""
        self.capacity_bytes = capacity_bytes
        self.counts = TierCounts()
        self.pending_writes = 0
        self._io = io
        self._geometry = geometry
        self._files: OrderedDict[bytes, TierFile] = OrderedDict()  # the order is that of last use
        self._used_bytes = 0

    @property
    def block_bytes(self) -> int:
        """KV bytes of one block."""
        return self._geometry.block_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all files, also of those still being written."""
        return self._used_bytes

    @property
    def file_count(self) -> int:
        """Files that are stored."""
        return sum(file.stored for file in self._files.values())

    def covered(self, chain: bytes, start: int, stop: int) -> int:
        """Return the first block from `start` on that is in no stored file, at most `stop`."""
        reach = start
        for run in self._stored_runs(chain, start, stop):
            reach = run.stop
        return max(reach, start)

    def load(self, chain: bytes, start: int, stop: int, done: Callable[[Loaded], None]) -> int:
        """Read the files that hold blocks from `start` on and return how far they should reach.

        `done` is called once, and only if the return value is above `start`.
        """
        runs = self._stored_runs(chain, start, stop)
        if not runs:
            return start
        for run in reversed(runs):  # the head of a chain is used last, and so is dropped last
            run.file.pins += 1
            self._files.move_to_end(run.file.key)
        self._io.read([run.file for run in runs], partial(self._loaded, runs, start, done))
        return runs[-1].stop

    def _loaded(self, runs: list[_Run], start: int, done: Callable[[Loaded], None], reads: Sequence[FileRead]) -> None:
        reach, intact = start, True
        for run, read in zip(runs, reads, strict=True):
            run.file.pins -= 1
            self.counts.read_bytes += read.read_bytes
            self.counts.read_files += read.bad is None
            if read.bad is not None:
                self.counts.bad_files[read.bad] += 1
                self._discard(run.file)
            intact = intact and read.bad is None
            reach = run.stop if intact else reach
        storage_s = max(read.ended_s for read in reads) - min(read.started_s for read in reads)
        done(Loaded(reach, sum(read.read_bytes for read in reads), storage_s))

    def keep(self, chain: bytes) -> None:
        """Write the blocks of a chain that no file holds or is about to hold."""
        blocks = len(chain) // HASH_BYTES
        held = list(self._runs(chain, blocks, gap_from=blocks, pending=True))
        for run in held:  # what this chain already has must not make room for the rest of it
            self._files.move_to_end(run.file.key)
        fresh = [pair for gap in _gaps(held, blocks) for pair in self._new_files(chain, gap)]
        kept = [(start, file) for start, file in fresh if self._admit(file)]
        for _, file in sorted([*kept, *((run.start, run.file) for run in held)], key=_start_of, reverse=True):
            if file.key in self._files:  # the head of a chain is used last, and so is dropped last
                self._files.move_to_end(file.key)
        for _, file in kept:
            self.pending_writes += 1
            self._io.write(file, self._written)

    def _new_files(self, chain: bytes, gap: range) -> Iterator[tuple[int, TierFile]]:
        for start in gap[:: self._geometry.blocks_per_file]:
            stop = min(gap.stop, start + self._geometry.blocks_per_file)
            yield (
                start,
                TierFile(chain[start * HASH_BYTES : stop * HASH_BYTES], self._geometry.file_bytes(stop - start)),
            )

    def _admit(self, file: TierFile) -> bool:
        """Index a file that is to be written, if enough others can go."""
        while self._used_bytes + file.size_bytes > self.capacity_bytes:
            oldest = next((f for f in self._files.values() if f.stored and not f.pins), None)
            if oldest is None or file.size_bytes > self.capacity_bytes:
                self.counts.write_errors["capacity"] += 1
                return False
            self.counts.evicted_files += 1
            self._discard(oldest)
        self._files[file.key] = file
        self._used_bytes += file.size_bytes
        return True

    def _written(self, file: TierFile, error: str | None) -> None:
        self.pending_writes -= 1
        if error is not None:
            self.counts.write_errors[error] += 1
            self._forget(file)
            return
        file.stored = True
        self.counts.write_files += 1
        self.counts.write_bytes += file.size_bytes
        self.counts.kv_write_bytes += file.blocks * self._geometry.block_bytes

    def _discard(self, file: TierFile) -> None:
        if self._forget(file):
            self._io.remove(file)

    def _forget(self, file: TierFile) -> bool:
        if self._files.get(file.key) is not file:
            return False
        del self._files[file.key]
        self._used_bytes -= file.size_bytes
        return True

    def adopt(self, files: Iterable[TierFile]) -> None:
        """Forget the index and take these files, oldest first, deleting what is above the capacity."""
        self._files = OrderedDict((file.key, file) for file in files)
        self._used_bytes = sum(file.size_bytes for file in self._files.values())
        while self._used_bytes > self.capacity_bytes:
            self.counts.evicted_files += 1
            self._discard(next(iter(self._files.values())))

    def _stored_runs(self, chain: bytes, start: int, stop: int) -> list[_Run]:
        """Return the runs of stored blocks that cover `start` and go on without a gap."""
        reach, found = start, []
        for run in self._runs(chain, stop, gap_from=start, pending=False):
            if run.start > reach:
                break
            if run.stop > start:
                found.append(run)
                reach = run.stop
        return found

    def _runs(self, chain: bytes, stop: int, *, gap_from: int, pending: bool) -> Iterator[_Run]:
        """Walk a chain and yield what files hold of it; end at the first gap at or after `gap_from`."""
        block = 0
        while block < stop:
            file = self._files.get(chain[block * HASH_BYTES : (block + 1) * HASH_BYTES])
            if file is None or not (file.stored or pending):
                if block >= gap_from:
                    return
                block += 1
                continue
            shared = _shared_blocks(chain, block, stop, file.hashes)
            yield _Run(file, block, block + shared)
            block += shared


def _start_of(pair: tuple[int, TierFile]) -> int:
    return pair[0]


def _gaps(held: list[_Run], blocks: int) -> Iterator[range]:
    """Yield the ranges of blocks between the runs."""
    at = 0
    for run in held:
        if run.start > at:
            yield range(at, run.start)
        at = run.stop
    if at < blocks:
        yield range(at, blocks)


def _shared_blocks(chain: bytes, start: int, stop: int, hashes: bytes) -> int:
    """Count the blocks of a file that a chain goes on with; equal at k means equal before k, so halving finds it."""
    most = min(stop - start, len(hashes) // HASH_BYTES)
    at = start * HASH_BYTES
    if chain[at : at + most * HASH_BYTES] == hashes[: most * HASH_BYTES]:
        return most
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        last = (middle - 1) * HASH_BYTES
        if chain[at + last : at + last + HASH_BYTES] == hashes[last : last + HASH_BYTES]:
            low = middle
        else:
            high = middle
    return low
