"""Tier files in a directory that other servers use too: found by name, listed by time, marked when they are used."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.direct_io import read_into
from kvbench.emulator.file_io import ThreadedFiles
from kvbench.emulator.files import SUFFIX
from kvbench.emulator.shared import Seen
from kvbench.emulator.tier_file import TierFile
from kvbench.emulator.tiers import shared_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class SharedFiles(ThreadedFiles):
    """`SharedIo` on threads; looks into the directory wait for a reader like any file."""

    def _mark_used(self, file: TierFile) -> None:
        with contextlib.suppress(OSError):
            os.utime(self.path_of(file))

    def find(self, chain: bytes, starts: Sequence[int], stop: int, done: Callable[[list[TierFile]], None]) -> None:
        """Look on a thread for files of other servers that go on with a chain."""
        self._readers.submit(self._find, chain, tuple(starts), stop, partial(self._post, done))

    def _find(self, chain: bytes, starts: Sequence[int], stop: int, done: Callable[[list[TierFile]], object]) -> None:
        found: list[TierFile] = []
        for start in starts:
            block = start
            while block < stop and (file := self._open(chain[block * HASH_BYTES : (block + 1) * HASH_BYTES])):
                file.chain, file.start = chain[: block * HASH_BYTES] + file.hashes, block
                found.append(file)
                block += shared_blocks(chain, block, stop, file.hashes)
        done(found)

    def _open(self, key: bytes) -> TierFile | None:
        """Return the good file that begins with a block, None if there is none."""
        path = f"{self._directory}/{key.hex()}{SUFFIX}"
        view = self._buffer()[: self._geometry.header_bytes(self._geometry.blocks_per_file)]
        try:
            size_bytes = os.lstat(path).st_size
            count = read_into(path, view, self._access)
        except OSError:
            return None
        found = self._examine(view[:count], path, size_bytes)
        return found if isinstance(found, TierFile) else None

    def survey(self, done: Callable[[list[Seen]], None]) -> None:
        """List the directory on a thread, those files first that were used longest ago."""
        self._readers.submit(self._survey, partial(self._post, done))

    def _survey(self, done: Callable[[list[Seen]], object]) -> None:
        try:
            entries = sorted(self._candidates())
        except OSError:  # wiped with its marker; the next write makes it again
            entries = []
        seen = []
        for used_ns, path, size_bytes in entries:
            with contextlib.suppress(ValueError):  # a name that is no hash is none of ours
                seen.append(Seen(bytes.fromhex(Path(path).stem), size_bytes, used_ns))
        done(seen)
