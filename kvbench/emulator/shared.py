"""A file tier in a directory that other servers use too: what they wrote is found, what they deleted is no error.

The index in memory knows what this server wrote and has met. Two looks at the directory keep it true: where a look-up
misses, the file that would go on with the chain is opened by its name; and before new files are written the directory
is listed, at most once in `SURVEY_S`, so that the capacity holds for all servers together. A hit sets the file's time,
and eviction follows that time, whoever served the hit.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kvbench.emulator.tier_file import FileIo, TierFile
from kvbench.emulator.tiers import FileTier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.emulator.files import Geometry
    from kvbench.emulator.tier_file import Move

SURVEY_S = 1.0


class Seen(NamedTuple):
    """A file in a listing: its name as a hash, its size, and when it was last used."""

    key: bytes
    size_bytes: int
    used_ns: int


class SharedIo(FileIo, Protocol):
    """A directory that others may change."""

    def find(self, chain: bytes, starts: Sequence[int], stop: int, done: Callable[[list[TierFile]], None]) -> None:
        """Report the good files that go on with a chain from each of the blocks `starts`, until the first gap."""

    def survey(self, done: Callable[[list[Seen]], None]) -> None:
        """Report every tier file, those used longest ago first."""


class Timer(Protocol):
    """As much of a clock as is needed to know how old a listing is."""

    def time(self) -> float:
        """Return the time in seconds."""


class SharedTier(FileTier):
    """A `FileTier` that is not alone in its directory."""

    def __init__(self, name: str, io: SharedIo, geometry: Geometry, capacity_bytes: int, clock: Timer) -> None:
        """Start empty, with a listing that is out of date."""
        super().__init__(name, io, geometry, capacity_bytes)
        self._shared_io = io
        self._clock = clock
        self._listed_s = float("-inf")
        self._stored_then: set[bytes] = set()
        self._held_back: deque[Callable[[], None]] = deque()

    @property
    def pending_writes(self) -> int:
        """Files that are being written or wait for room, and chains that wait for a listing."""
        return super().pending_writes + len(self._held_back)

    def look_up(self, chain: bytes, start: int, stop: int, then: Callable[[], object]) -> None:
        """Learn what others wrote of a chain: from where this tier's own files end, and from block `start` on."""
        starts = sorted({self.covered(chain, 0, stop), start})
        self._shared_io.find(chain, starts, stop, partial(self._add_files, then))

    def _add_files(self, then: Callable[[], object], files: list[TierFile]) -> None:
        for file in files:
            held = self._files.get(file.key)
            if held is None or not held.known:
                self._forget(held)
                self._files[file.key] = file
                self._used_bytes += file.size_bytes
        then()

    def _drop_bad(self, file: TierFile, bad: str) -> None:
        """Delete what is corrupt; a file of another length or with other blocks is another server's newer one."""
        if bad in ("hashes", "truncated"):
            self._forget(file)
        else:
            self._discard(file)

    def keep(self, chain: bytes, start: int = 0, stop: int | None = None, move: Move | None = None) -> None:
        """Write what nobody has written, after a look at what the directory holds by now."""
        go_on = partial(super().keep, chain, start, stop, move)
        if self._clock.time() - self._listed_s < SURVEY_S and not self._held_back:
            go_on()
            return
        self._held_back.append(go_on)
        if len(self._held_back) == 1:
            self._stored_then = {key for key, file in self._files.items() if file.stored}
            self._shared_io.survey(self._surveyed)

    def _surveyed(self, listing: list[Seen]) -> None:
        self._listed_s = self._clock.time()
        mine = self._files
        self._files = OrderedDict()
        for seen in listing:
            file = mine.pop(seen.key, None)
            if file is None or (file.stored and file.size_bytes != seen.size_bytes):
                file = TierFile(seen.key, seen.size_bytes, stored=True, known=False)
            self._files[seen.key] = file
        for key, file in mine.items():  # not listed: written meanwhile, being read, or deleted by others
            if key not in self._stored_then or file.pins:
                self._files[key] = file
        self._used_bytes = sum(file.size_bytes for file in self._files.values())
        waiting = list(self._held_back)
        self._held_back.clear()
        for go_on in waiting:
            go_on()
