"""The tiers below G1 in their order: where blocks are found, and by which rules they are stored.

Blocks are found in G2, then G3, then G4, from block to block: a prompt may have its head in one tier and its tail in
another, and all of them load at the same time. They are stored through to every tier at once, or back: down one tier
each time a faster one is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.shared import SharedTier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.emulator.tiers import FileTier, Loaded

WritePolicy = Literal["through", "back"]
_MOST_ASKED = 1 << 20  # blocks whose requests are counted; the ones first asked for are forgotten first


class Timer(Protocol):
    """As much of a clock as is needed to write later."""

    def time(self) -> float:
        """Return the time in seconds."""

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> object:
        """Call back at `when`."""


@dataclass(frozen=True, slots=True)
class StoreRules:
    """When blocks are written: a block enters with the K-th request that asks for it, `delay_s` after that.

    `delay_shown` False leaves delayed writes out of what counts as pending: nobody can then know that they will come.
    """

    policy: WritePolicy = "through"
    admit_after_hits: int = 1
    delay_s: float = 0.0
    delay_shown: bool = True


class Hit(NamedTuple):
    """Blocks `start` to `stop` of a chain are in this tier, as far as its index knows."""

    tier: FileTier
    start: int
    stop: int


class Onboarded(NamedTuple):
    """What a load brought: blocks by tier, bytes read from files, and the longest of the measured times."""

    blocks: dict[str, int]
    read_bytes: int
    storage_s: float
    wrong: bool


class Hierarchy:
    """The tiers below G1, fastest first, shared by all instances; with no tier nothing is found and nothing stored."""

    def __init__(self, clock: Timer, tiers: Sequence[FileTier], rules: StoreRules | None = None) -> None:
        """Join the tiers: under write-back what one drops goes to the next."""
        self.tiers = tuple(tiers)
        self._shared = next((tier for tier in self.tiers if isinstance(tier, SharedTier)), None)
        self.rules = rules or StoreRules()
        self._clock = clock
        self._delayed = 0
        self._asked: dict[bytes, int] = {}
        for upper, lower in pairwise(self.tiers):
            upper.slowest = False
            upper.below = lower if self.writes_back else None
        for tier in self.tiers:
            tier.patient = self.writes_back

    @property
    def writes_back(self) -> bool:
        """Whether blocks move down only when a faster tier drops them."""
        return self.rules.policy == "back"

    @property
    def delayed_writes(self) -> int:
        """Chains that will be written later, as far as this is shown."""
        return self._delayed if self.rules.delay_shown else 0

    @property
    def pending_writes(self) -> int:
        """Everything that is still to be written, as far as this is shown."""
        return self.delayed_writes + sum(tier.pending_writes for tier in self.tiers)

    def find(self, chain: bytes, start: int, stop: int, then: Callable[[list[Hit], float], None]) -> None:
        """Call back with where the blocks from `start` on lie, and the seconds that a look into a directory took.

        The call comes at once unless a tier that others write into must be looked at.
        """
        hits = self._walk(chain, start, stop)
        reach = hits[-1].stop if hits else start
        if reach >= stop or self._shared is None:
            then(hits, 0.0)
            return
        looked_up = partial(self._looked_up, (chain, start, stop), self._clock.time(), then)
        self._shared.look_up(chain, reach, stop, looked_up)

    def _looked_up(
        self, where: tuple[bytes, int, int], began_s: float, then: Callable[[list[Hit], float], None]
    ) -> None:
        then(self._walk(*where), self._clock.time() - began_s)

    def _walk(self, chain: bytes, start: int, stop: int) -> list[Hit]:
        """Return the tiers that hold the chain, block by block the fastest that does."""
        hits: list[Hit] = []
        reach = start
        while reach < stop:
            for tier in self.tiers:
                if (end := tier.covered(chain, reach, stop)) > reach:
                    hits.append(Hit(tier, reach, end))
                    reach = end
                    break
            else:
                break
        return hits

    def load(self, chain: bytes, hits: Sequence[Hit], done: Callable[[Onboarded], None]) -> None:
        """Load all hits at the same time; `done` is called once, when the last is there."""
        loaded: dict[int, Loaded] = {}

        def take(index: int, part: Loaded) -> None:
            loaded[index] = part
            if len(loaded) == len(hits):
                done(_onboarded(hits, loaded))

        for index, hit in enumerate(hits):
            hit.tier.load(chain, hit.start, hit.stop, partial(take, index))

    def ask(self, chain: bytes, first: int = 0) -> None:
        """Count a request for these blocks, where admission depends on it."""
        if self.rules.admit_after_hits <= 1:
            return
        for at in range(first * HASH_BYTES, len(chain), HASH_BYTES):
            block = chain[at : at + HASH_BYTES]
            self._asked[block] = self._asked.pop(block, 0) + 1
        while len(self._asked) > _MOST_ASKED:
            del self._asked[next(iter(self._asked))]

    def _admitted(self, chain: bytes, stop: int) -> int:
        """Return how many blocks of a chain have been asked for often enough; a prefix never less than what follows."""
        wanted = self.rules.admit_after_hits
        if wanted <= 1:
            return stop
        hashes = (chain[block * HASH_BYTES : (block + 1) * HASH_BYTES] for block in range(stop))
        return next((block for block, value in enumerate(hashes) if self._asked.get(value, 0) < wanted), stop)

    def store(self, chain: bytes) -> None:
        """Write a chain through to every tier; under write-back wait until G1 drops it."""
        if not self.writes_back:
            self._begin(self.tiers, chain, 0, len(chain) // HASH_BYTES)

    def evicted(self, chain: bytes, start: int, stop: int) -> None:
        """Take what G1 drops under write-back into the fastest tier."""
        self._begin(self.tiers[:1], chain, start, stop)

    def _begin(self, tiers: Sequence[FileTier], chain: bytes, start: int, stop: int) -> None:
        stop = self._admitted(chain, stop)
        if start >= stop or not tiers:
            return
        if not self.rules.delay_s:
            self._write(tiers, chain, start, stop)
            return
        self._delayed += 1
        self._clock.call_at(self._clock.time() + self.rules.delay_s, self._write_late, tiers, chain, start, stop)

    def _write_late(self, tiers: Sequence[FileTier], chain: bytes, start: int, stop: int) -> None:
        self._delayed -= 1
        self._write(tiers, chain, start, stop)

    def _write(self, tiers: Sequence[FileTier], chain: bytes, start: int, stop: int) -> None:
        for tier in tiers:
            tier.keep(chain, start, stop)


def _onboarded(hits: Sequence[Hit], loaded: dict[int, Loaded]) -> Onboarded:
    """Add up what came from each tier; behind a tier that fell short nothing counts."""
    blocks: dict[str, int] = {}
    for index, hit in enumerate(hits):
        part = loaded[index]
        blocks[hit.tier.name] = blocks.get(hit.tier.name, 0) + part.stop - hit.start
        if part.stop < hit.stop:
            break
    return Onboarded(
        blocks=blocks,
        read_bytes=sum(loaded[index].read_bytes for index, hit in enumerate(hits) if not hit.tier.in_memory),
        storage_s=max(part.storage_s for part in loaded.values()),
        wrong=any(part.wrong for part in loaded.values()),
    )
