"""The levels of the cache below G1: what each holds, and what it drops or moves down first.

A tier answers one question, how far a chain is covered, and takes one order, keep this chain. `FileTier` decides which
files exist and leaves every touch of memory or a disk to a `FileIo`: G2's files are buffers in host memory, those of G3
and G4 lie in directories, and in a simulation they are only a formula.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.counts import TierCounts
from kvbench.emulator.tier_file import Move, TierFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvbench.emulator.files import Geometry
    from kvbench.emulator.tier_file import FileIo, FileRead


class Loaded(NamedTuple):
    """What a load brought: blocks up to `stop`, where the files behind a bad one do not count."""

    stop: int
    read_bytes: int
    storage_s: float
    wrong: bool = False


class _Run(NamedTuple):
    file: TierFile
    start: int
    stop: int


class FileTier:
    """Blocks in files, least recently used files first to go: to the tier `below` if there is one, else deleted.

    The index maps the first hash of each file to the file. That is enough to find every block: hashes are chained, so
    whoever holds block k of a file holds all blocks before it, and a chain is walked from its beginning.

    A `patient` tier lets new files wait until others have moved down; one that is not refuses what finds no room.
    `slowest` marks the last tier, where a refusal is an error; elsewhere the block is simply not kept at that level.
    """

    def __init__(
        self, name: str, io: FileIo, geometry: Geometry, capacity_bytes: int, *, in_memory: bool = False
    ) -> None:
        """Start empty; `adopt` takes what a scan of the directory found."""
        self.name = name
        self.in_memory = in_memory
        self.capacity_bytes = capacity_bytes
        self.counts = TierCounts()
        self.below: FileTier | None = None
        self.patient = False
        self.slowest = True
        self._io = io
        self._geometry = geometry
        self._files: OrderedDict[bytes, TierFile] = OrderedDict()  # the order is that of last use
        self._used_bytes = 0
        self._leaving_bytes = 0
        self._writing = 0
        self._incoming: deque[TierFile] = deque()
        self._admitting = False

    @property
    def block_bytes(self) -> int:
        """KV bytes of one block."""
        return self._geometry.block_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all files, also of those still being written or moved away."""
        return self._used_bytes

    @property
    def file_count(self) -> int:
        """Files that are stored."""
        return sum(file.stored for file in self._files.values())

    @property
    def pending_writes(self) -> int:
        """Files that are being written, or wait for room."""
        return self._writing + len(self._incoming)

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
                self._drop_bad(run.file, read.bad)
            intact = intact and read.bad is None
            reach = run.stop if intact else reach
        storage_s = max(read.ended_s for read in reads) - min(read.started_s for read in reads)
        self._admit_waiting()
        wrong = any(read.wrong for read in reads)
        done(Loaded(reach, sum(read.read_bytes for read in reads), storage_s, wrong))

    def keep(self, chain: bytes, start: int = 0, stop: int | None = None, move: Move | None = None) -> None:
        """Write the blocks of a chain, or of a part of it, that no file holds or is about to hold.

        The KV comes from `move`, whose `left` is then called when all is written; without one it comes from the GPU.
        """
        stop = len(chain) // HASH_BYTES if stop is None else stop
        held = [run for run in self._runs(chain, stop, gap_from=stop, pending=True) if run.stop > start]
        for run in held:  # what this chain already has must not make room for the rest of it
            self._files.move_to_end(run.file.key)
        fresh = [file for gap in _gaps(held, start, stop) for file in self._new_files(chain, gap, move)]
        if move:
            move.expect(len(fresh))
        self._incoming.extend(fresh)
        self._admit_waiting()
        for _, key in sorted([(f.start, f.key) for f in fresh] + [(run.start, run.file.key) for run in held])[::-1]:
            if key in self._files:  # the head of a chain is used last, and so is dropped last
                self._files.move_to_end(key)
        if move:
            move.arrived()

    def _new_files(self, chain: bytes, gap: range, move: Move | None) -> Iterator[TierFile]:
        for start in gap[:: self._geometry.blocks_per_file]:
            stop = min(gap.stop, start + self._geometry.blocks_per_file)
            hashes = chain[start * HASH_BYTES : stop * HASH_BYTES]
            size_bytes = self._geometry.file_bytes(stop - start)
            yield TierFile(hashes, size_bytes, chain=chain, start=start, move=move)

    def _admit_waiting(self) -> None:
        """Write what waits, in order, as far as there is room or room can be made."""
        if self._admitting:  # making room may bring us here again
            return
        self._admitting = True
        while self._incoming:
            file = self._incoming[0]
            room = file.size_bytes <= self.capacity_bytes and self._make_room(file.size_bytes)
            if not room and self.patient and file.size_bytes <= self.capacity_bytes:
                break
            self._incoming.popleft()
            if room:
                self._admit(file)
            else:
                self._refuse(file)
        self._admitting = False

    def _make_room(self, size_bytes: int) -> bool:
        """Evict until so many bytes fit; False if they do not fit now."""
        while self._used_bytes - self._leaving_bytes + size_bytes > self.capacity_bytes:
            movable = (f for f in self._files.values() if f.stored and not f.pins and not f.leaving)
            oldest = next(movable, None)
            if oldest is None:
                return False
            self._evict(oldest)
        return self._used_bytes + size_bytes <= self.capacity_bytes

    def _admit(self, file: TierFile) -> None:
        held = self._files.get(file.key)
        if held and held.known and held.blocks >= file.blocks:  # it came in another way while this one waited
            if file.move:
                file.move.part_arrived()
            return
        self._forget(held)
        self._files[file.key] = file
        self._used_bytes += file.size_bytes
        self._writing += 1
        self._io.write(file, self._written)

    def _refuse(self, file: TierFile) -> None:
        """Give up a file that finds no room here; where files move down, the tier below takes it at once."""
        if self.below is not None:
            self.below.keep(file.chain, file.start, file.start + file.blocks, file.move)
        elif self.slowest:
            self.counts.write_errors["capacity"] += 1
        else:
            self.counts.skipped_files += 1
        if file.move:
            file.move.part_arrived()

    def _evict(self, file: TierFile) -> None:
        self.counts.evicted_files += 1
        if self.below is None:
            self._discard(file)
            return
        file.leaving = True
        self._leaving_bytes += file.size_bytes
        move = Move(self._io, file, self.counts, self._left)
        self.below.keep(file.chain, file.start, file.start + file.blocks, move)

    def _left(self, file: TierFile) -> None:
        """The tier below has it: delete it here, unless somebody is reading it again."""
        file.leaving = False
        self._leaving_bytes -= file.size_bytes
        if not file.pins:
            self._discard(file)
        self._admit_waiting()

    def _written(self, file: TierFile, error: str | None) -> None:
        self._writing -= 1
        if error is not None:
            self.counts.write_errors[error] += 1
            self._forget(file)
        elif self._files.get(file.key) is file:
            file.stored = True
            self.counts.write_files += 1
            self.counts.write_bytes += file.size_bytes
            self.counts.kv_write_bytes += file.blocks * self._geometry.block_bytes
        elif file.key not in self._files:  # dropped while it was written
            self._io.remove(file)
        move, file.move = file.move, None
        if move:
            move.counts.moved_bytes += move.file.size_bytes
            move.part_arrived()
        self._admit_waiting()

    def _discard(self, file: TierFile) -> None:
        if self._forget(file):
            self._io.remove(file)

    def _forget(self, file: TierFile | None) -> bool:
        if file is None or self._files.get(file.key) is not file:
            return False
        del self._files[file.key]
        self._used_bytes -= file.size_bytes
        return True

    def _drop_bad(self, file: TierFile, bad: str) -> None:
        del bad  # whatever it is: the file is nobody's but ours
        self._discard(file)

    def drop(self) -> None:
        """Forget and delete everything on purpose; nothing moves down."""
        for file in list(self._files.values()):
            self._discard(file)

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
            if file is None or not file.known or not (file.stored or pending):
                if block >= gap_from:
                    return
                block += 1
                continue
            shared = shared_blocks(chain, block, stop, file.hashes)
            yield _Run(file, block, block + shared)
            block += shared


def _gaps(held: list[_Run], start: int, stop: int) -> Iterator[range]:
    """Yield the ranges of blocks from `start` on between the runs."""
    at = start
    for run in held:
        if run.start > at:
            yield range(at, run.start)
        at = max(at, run.stop)
    if at < stop:
        yield range(at, stop)


def shared_blocks(chain: bytes, start: int, stop: int, hashes: bytes) -> int:
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
