"""G1: blocks in modelled GPU memory. No byte is moved here, only counted."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from kvbench.emulator.blocks import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryTier:
    """Blocks in memory, least recently used dropped first; capacity 0 keeps nothing.

    Blocks enter when their request ends and of one request the tail is dropped before the head, as vLLM does. With
    `evicted` set, what pressure drops is handed over in runs of consecutive blocks: (chain, start, stop).
    """

    def __init__(
        self,
        name: str,
        capacity_bytes: int,
        block_bytes: int,
        evicted: Callable[[bytes, int, int], object] | None = None,
    ) -> None:
        """Start empty."""
        self.name = name
        self.capacity_bytes = capacity_bytes
        self._block_bytes = block_bytes
        self._evicted = evicted
        self._blocks: OrderedDict[bytes, tuple[bytes, int] | None] = OrderedDict()

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
            if self._evicted and chain:
                self._evicted(chain, 0, len(chain) // HASH_BYTES)
            return
        for number in range(len(chain) // HASH_BYTES - 1, -1, -1):
            block = chain[number * HASH_BYTES : (number + 1) * HASH_BYTES]
            self._blocks[block] = (chain, number) if self._evicted else None
            self._blocks.move_to_end(block)
        self._shrink()

    def _shrink(self) -> None:
        """Drop the oldest blocks; those that follow one another in a chain leave together."""
        runs: list[list[tuple[bytes, int]]] = []
        while self.used_bytes > self.capacity_bytes:
            place = self._blocks.popitem(last=False)[1]
            if place is None:
                continue
            chain, number = place
            if runs and runs[-1][-1][0] is chain and runs[-1][-1][1] == number + 1:
                runs[-1].append(place)
            else:
                runs.append([place])
        for run in runs:
            assert self._evicted  # noqa: S101 - only then do blocks know their place
            self._evicted(run[0][0], run[-1][1], run[0][1] + 1)

    def drop(self) -> None:
        """Forget everything on purpose; nothing is handed over."""
        self._blocks.clear()
