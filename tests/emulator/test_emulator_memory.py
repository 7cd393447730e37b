"""G1: what running requests take, what they found and keep, and what pressure drops."""

from __future__ import annotations

from kvbench.emulator.blocks import BLOCK_TOKENS
from kvbench.emulator.memory import MemoryTier
from tests.builders.hashing import hash_prompt
from tests.builders.virtual_world import words

BLOCK = 100


def chain_of(name: str, blocks: int = 4) -> bytes:
    return hash_prompt(words(blocks * BLOCK_TOKENS, name), b"root").chain


def held(tier: MemoryTier, chain: bytes) -> int:
    return tier.covered(chain, 0, len(chain) // 16)


def test_a_running_request_takes_room_from_what_is_kept() -> None:
    tier, old, new = MemoryTier("g1", 8 * BLOCK, BLOCK), chain_of("a"), chain_of("b")
    tier.keep(old)
    tier.keep(new)
    taken = tier.take(3 * BLOCK_TOKENS + 1)
    assert taken == 4 * BLOCK, "a block that is begun is a whole one"
    assert (held(tier, old), held(tier, new)) == (0, 4)
    tier.give_back(chain_of("c"), 0, taken)
    tier.keep(chain_of("c"))
    assert (held(tier, new), held(tier, chain_of("c"))) == (4, 4)


def test_blocks_in_use_are_counted_once_and_never_dropped() -> None:
    tier, used, other = MemoryTier("g1", 8 * BLOCK, BLOCK), chain_of("a"), chain_of("b")
    tier.keep(used)
    tier.hold(used, 4)
    taken = tier.take(BLOCK_TOKENS)
    tier.keep(other)  # 4 in use, 1 taken: room for 3 of these
    assert (held(tier, used), held(tier, other)) == (4, 3)
    assert tier.used_bytes == 7 * BLOCK
    tier.take(100 * BLOCK_TOKENS)
    assert (held(tier, used), held(tier, other)) == (4, 0), "more than there is: all goes but what is in use"
    tier.give_back(used, 4, taken)
    assert held(tier, used) == 0, "no room for it: what is running has taken more than there is"


def test_two_requests_may_use_the_same_blocks() -> None:
    tier, shared = MemoryTier("g1", 8 * BLOCK, BLOCK), chain_of("a")
    tier.keep(shared)
    tier.hold(shared, 4)
    tier.hold(shared, 4)
    first, second = tier.take(BLOCK_TOKENS), tier.take(BLOCK_TOKENS)
    tier.give_back(shared, 4, first)
    tier.keep(shared)
    assert held(tier, shared) == 4
    assert tier.used_bytes == 4 * BLOCK
    tier.give_back(shared, 4, second)
    tier.keep(shared)
    assert tier.used_bytes == 4 * BLOCK


def test_what_a_request_used_stays_in_sight_when_it_ends() -> None:
    """It is kept a moment later, and never if the request was aborted: who asks in between must find it."""
    tier, used = MemoryTier("g1", 8 * BLOCK, BLOCK), chain_of("a")
    tier.keep(used)
    tier.hold(used, 4)
    taken = tier.take(BLOCK_TOKENS)
    tier.give_back(used, 4, taken)
    assert held(tier, used) == 4
    assert tier.used_bytes == 4 * BLOCK


def test_what_room_is_made_from_goes_down_a_tier() -> None:
    gone: list[tuple[int, int]] = []
    tier, old = MemoryTier("g1", 4 * BLOCK, BLOCK, lambda _, start, stop: gone.append((start, stop))), chain_of("a")
    tier.keep(old)
    tier.take(2 * BLOCK_TOKENS)
    assert gone == [(2, 4)], "the tail before the head"
