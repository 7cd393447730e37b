"""A file of a tier, its way to the tier below, and what moves its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kvbench.emulator.blocks import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.emulator.counts import TierCounts


@dataclass(slots=True, eq=False)
class TierFile:
    """A file of consecutive blocks of one chain; its name is the hash of its first block.

    `chain` and `start` say where in which chain it stands; of a file found by a scan only its own blocks are known.
    `known` is False for a file of another server of which only the name was seen.
    """

    hashes: bytes
    size_bytes: int
    stored: bool = False
    pins: int = 0
    chain: bytes = b""
    start: int = 0
    leaving: bool = False
    known: bool = True
    move: Move | None = None

    def __post_init__(self) -> None:
        """Let a file without a chain stand for itself."""
        self.chain = self.chain or self.hashes

    @property
    def key(self) -> bytes:
        """Hash of the first block."""
        return self.hashes[:HASH_BYTES]

    @property
    def blocks(self) -> int:
        """How many blocks it holds."""
        return len(self.hashes) // HASH_BYTES


@dataclass(slots=True, eq=False)
class Move:
    """A file on its way to the tier below, in one part or several; `left` is called when the last part has arrived."""

    io: FileIo
    file: TierFile
    counts: TierCounts
    left: Callable[[TierFile], object]
    parts: int = 0

    def expect(self, parts: int) -> None:
        """Wait for so many parts more, and for the word that these are all; each of them reads the file."""
        self.parts += parts + 1
        self.counts.moving_bytes += parts * self.file.size_bytes

    def part_arrived(self) -> None:
        """Count a part that is written, or that cannot be."""
        self.counts.moving_bytes -= self.file.size_bytes
        self.arrived()

    def arrived(self) -> None:
        """Count a part, or the word that no more will come."""
        self.parts -= 1
        if not self.parts:
            self.left(self.file)


class FileRead(NamedTuple):
    """How reading one file went: `bad` is a reason of `counts.BAD_FILE_REASONS`, None if the file is taken as good.

    `wrong` marks content that is not what was written and is served all the same, because nobody looked.
    """

    file: TierFile
    bad: str | None
    read_bytes: int
    started_s: float
    ended_s: float
    wrong: bool = False


class FileIo(Protocol):
    """Where files really are. Calls return at once; `done` is called later, on the clock's own thread."""

    def read(self, files: Sequence[TierFile], done: Callable[[Sequence[FileRead]], None]) -> None:
        """Read and check whole files, several at a time; report all of them together and in order."""

    def write(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        """Write a file, from `file.move` if it has one; report one of `counts.WRITE_ERROR_REASONS`, None if stored."""

    def remove(self, file: TierFile) -> None:
        """Delete a file that is no longer indexed."""

    def content(self, file: TierFile) -> memoryview | str:
        """Return the KV of a file for the tier below, or why it is bad; the one call that waits, from a writer."""
