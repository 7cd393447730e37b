"""G1: blocks in modelled GPU memory. No byte is moved here, only counted."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from kvbench.emulator.blocks import BLOCK_TOKENS, HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryTier:
    """Blocks in memory, least recently used dropped first; capacity 0 keeps nothing.

    Blocks enter when their request ends and of one request the tail is dropped before the head, as vLLM does. Requests
    that are running take room from the same memory; they are never made to wait for it. With `evicted` set, what
    pressure drops is handed over in runs of consecutive blocks: (chain, start, stop).
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
        self._taken_bytes = 0
        self._in_use: Counter[bytes] = Counter()
        self._blocks: OrderedDict[bytes, tuple[bytes, int] | None] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """Bytes of all blocks that may be found."""
        return (len(self._blocks) + len(self._in_use)) * self._block_bytes

    def covered(self, chain: bytes, start: int, stop: int) -> int:
        """Return the first block from `start` on that is not held, at most `stop`."""
        block = start
        while block < stop and self._holds(chain[block * HASH_BYTES : (block + 1) * HASH_BYTES]):
            block += 1
        return block

    def _holds(self, block: bytes) -> bool:
        return block in self._blocks or block in self._in_use

    def hold(self, chain: bytes, blocks: int) -> None:
        """Keep the first blocks of a chain from being dropped: a request has found them and counts on them."""
        for number in range(blocks):
            block = chain[number * HASH_BYTES : (number + 1) * HASH_BYTES]
            self._blocks.pop(block, None)
            self._in_use[block] += 1

    def take(self, new_tokens: int) -> int:
        """Make room for what a request that begins will compute; return its bytes."""
        taken_bytes = -(-new_tokens // BLOCK_TOKENS) * self._block_bytes
        self._taken_bytes += taken_bytes
        self._shrink()
        return taken_bytes

    def give_back(self, chain: bytes, held_blocks: int, taken_bytes: int) -> None:
        """Let go of what a request held and of its room when it has ended; what it leaves comes by `keep`.

        What it found here is never out of sight: `keep` comes later, and not at all for a request that was aborted.
        """
        self._taken_bytes -= taken_bytes
        for number in range(held_blocks - 1, -1, -1):
            block = chain[number * HASH_BYTES : (number + 1) * HASH_BYTES]
            self._in_use[block] -= 1
            if not self._in_use[block]:
                del self._in_use[block]
                self._blocks[block] = (chain, number) if self._evicted else None
        self._shrink()

    def keep(self, chain: bytes) -> None:
        """Make these blocks the most recently used, the head of the chain last."""
        if not self.capacity_bytes:
            if self._evicted and chain:
                self._evicted(chain, 0, len(chain) // HASH_BYTES)
            return
        for number in range(len(chain) // HASH_BYTES - 1, -1, -1):
            block = chain[number * HASH_BYTES : (number + 1) * HASH_BYTES]
            if block not in self._in_use:  # else the request that uses it keeps it when it ends
                self._blocks[block] = (chain, number) if self._evicted else None
                self._blocks.move_to_end(block)
        self._shrink()

    def _shrink(self) -> None:
        """Drop the oldest blocks; those that follow one another in a chain leave together."""
        runs: list[list[tuple[bytes, int]]] = []
        while self._blocks and self.used_bytes + self._taken_bytes > self.capacity_bytes:
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
