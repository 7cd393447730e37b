"""G1 to G4 together, on virtual time: books that close whatever is asked for, and every rule of storing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.emulator.blocks import BLOCK_TOKENS, HASH_BYTES, extend_chain, token_ids
from kvbench.emulator.hierarchy import StoreRules, WritePolicy
from tests.builders.hashing import hash_prompt
from tests.builders.virtual_world import BLOCK_BYTES, ROUND_FIGURES, World, prompt_of, words

if TYPE_CHECKING:
    from kvbench.emulator.blocks import Prompt
    from kvbench.emulator.instance import Generation

BACK = StoreRules("back")
FILE_BYTES = 4096 + 65_536  # of four blocks of 16,000 bytes


def ask(world: World, prompt: Prompt, output_tokens: int = 1) -> Generation:
    generation = world.send(prompt, output_tokens, world.clock.time())
    world.clock.run()
    return generation


def served(world: World, prompt: Prompt) -> dict[str, int]:
    """Send a prompt and return its cached tokens by tier."""
    generation = ask(world, prompt)
    return ({"g1": generation.local_tokens} if generation.local_tokens else {}) | generation.tier_tokens


def blocks_in(world: World, name: str) -> list[bytes]:
    held = world.io[name].on_disk.values()
    return [file.hashes[at : at + HASH_BYTES] for file in held for at in range(0, len(file.hashes), HASH_BYTES)]


def check_books(world: World, sent: list[Generation]) -> None:
    """Compare every count that says the same in two ways."""
    counts = [instance.counts for instance in world.engine.instances]
    for generation in sent:
        assert generation.finished
        assert generation.cached_tokens <= generation.prompt.reusable_blocks * BLOCK_TOKENS
    hits = {name: sum(g.tier_tokens.get(name, 0) for g in sent) for name in ("g2", "g3", "g4")}
    assert {name: sum(c.tier_tokens[name] for c in counts) for name in hits} == hits
    assert sum(c.local_tokens for c in counts) == sum(g.local_tokens for g in sent)
    assert sum(c.external_hits for c in counts) == sum(hits.values())
    tokens = sum(g.prompt.tokens for g in sent)
    assert sum(c.computed_tokens for c in counts) + sum(g.cached_tokens for g in sent) == tokens
    assert sum(c.load_bytes for c in counts) == sum(hits.values()) * BLOCK_BYTES // BLOCK_TOKENS
    for name, tier in world.tiers.items():
        io = world.io[name]
        assert not io.never_written
        assert tier.used_bytes == io.used_bytes <= io.most_bytes <= tier.capacity_bytes
        assert tier.counts.read_bytes == sum(file.size_bytes for file in io.read_files)
        assert (tier.pending_writes, tier.file_count) == (0, len(io.on_disk))
        assert not any(file.leaving or file.pins for file in io.on_disk.values())
    assert world.engine.g1_used_bytes <= world.engine.limits.g1_bytes * world.engine.limits.instances


BUDGETS = st.sampled_from([0, 1, 3, 7, 1000])
REQUESTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(1, 9), st.sampled_from([1, 17, 40]), st.integers(0, 2)),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=300)
@given(
    requests=REQUESTS,
    budgets=st.tuples(BUDGETS, BUDGETS, BUDGETS, st.sampled_from([1, 3, 7, 1000])),
    policy=st.sampled_from(["through", "back"]),
    admit_after=st.sampled_from([1, 2]),
    write_s=st.sampled_from([0.0, 0.3]),
    bytes_per_s=st.sampled_from([1e12, 1e5]),
)
def test_the_books_close_for_any_requests_and_any_budgets(
    requests: list[tuple[int, int, int, int, int]],
    budgets: tuple[int, int, int, int],
    policy: WritePolicy,
    admit_after: int,
    write_s: float,
    bytes_per_s: float,
) -> None:
    """Cached and computed tokens make the prompt, no tier is above its budget at any time, what is read was written."""
    g1, g2, g3, g4 = budgets
    world = World(
        faster={"g2": g2 * 4 * BLOCK_BYTES, "g3": g3 * FILE_BYTES},
        capacity_bytes=g4 * FILE_BYTES,
        rules=StoreRules(policy, admit_after),
        write_s=write_s,
        storage_bytes_per_s=bytes_per_s,
        g1_bytes=g1 * 4 * BLOCK_BYTES,
        instances=2,
    )
    sent: list[Generation] = []
    for shared, fork, own, output_tokens, pause in requests:
        prompt = hash_prompt(f"{words(16 * shared)} {words(16 * own, 'xyz'[fork])}", b"root")
        sent.append(world.send(prompt, output_tokens, world.clock.time()))
        if pause:  # else the next request comes while this one runs
            world.clock.run()
            check_books(world, sent)
    world.clock.run()
    check_books(world, sent)


def test_written_through_blocks_are_in_every_tier_and_each_serves_when_the_faster_are_empty() -> None:
    world = World(faster={"g2": 10**9, "g3": 10**9}, g1_bytes=10**9)
    prompt = prompt_of(160)
    assert served(world, prompt) == {}
    assert {name: len(blocks_in(world, name)) for name in world.tiers} == {"g2": 10, "g3": 10, "g4": 10}
    assert served(world, prompt) == {"g1": 144}
    for gone, then in (("g1", "g2"), ("g2", "g3"), ("g3", "g4")):
        for name in ("g2", "g3")[: ("g1", "g2", "g3").index(gone)]:
            world.tiers[name].drop()
        world.engine.drop_memory()
        assert served(world, prompt) == {then: 144}
    assert {name: len(blocks_in(world, name)) for name in world.tiers} == {"g2": 10, "g3": 10, "g4": 10}  # onboarded


def test_host_memory_has_a_path_of_its_own() -> None:
    world = World(faster={"g2": 10**9})
    world.ttft_s(prompt_of(1600))
    assert world.ttft_s(prompt_of(1600)) == pytest.approx(0.05 + 0.1584 + 0.016)


def test_a_slower_local_disk_holds_up_what_comes_from_g4_after_it() -> None:
    """4 ms a token from G3, 1 ms from G4: the two tiers have bandwidths of their own, and one path that they share."""
    world = World(figures=replace(ROUND_FIGURES, g3_path_bytes_per_s=250_000.0), faster={"g3": 10**9})
    remote, local = prompt_of(1600, "r"), prompt_of(1600, "l")
    world.ttft_s(remote)
    world.tiers["g3"].drop()
    world.ttft_s(local)
    start_s = world.clock.time()
    pair = [world.send(prompt, at_s=start_s) for prompt in (local, remote)]
    world.clock.run()
    assert [one.tier_tokens for one in pair] == [{"g3": 1584}, {"g4": 1584}]
    assert [world.tokens[one][0] - start_s for one in pair] == pytest.approx([0.5 + 6.336 + 0.016, 0.5 + 7.92 + 0.016])


def test_a_prompt_may_come_from_three_tiers() -> None:
    """G1 holds 4 blocks, G2 what stands behind them, G4 the rest: one fixed time, all transfers, one chunk."""
    world = World(faster={"g2": 4 * BLOCK_BYTES}, g1_bytes=4 * BLOCK_BYTES)
    long = prompt_of(256)
    ask(world, long)
    world.tiers["g2"].drop()
    world.tiers["g2"].keep(long.chain, 4, 8)
    world.clock.run()
    start_s = world.clock.time()
    generation = ask(world, long)
    assert generation.local_tokens == 64
    assert generation.tier_tokens == {"g2": 64, "g4": 112}
    assert world.tokens[generation][0] - start_s == pytest.approx(0.5 + 0.0064 + 0.112 + 0.016)
    assert generation.read_bytes == sum(file.size_bytes for file in world.files.read_files)  # of files alone


def test_a_bad_file_ends_the_hit_though_a_slower_tier_goes_on() -> None:
    world = World(faster={"g3": 10**9})
    prompt = prompt_of(256)
    world.tiers["g3"].keep(prompt.chain, 0, 8)
    world.tiers["g4"].keep(prompt.chain)
    world.clock.run()
    world.io["g3"].bad[prompt.chain[64:80]] = "checksum"
    assert served(world, prompt) == {"g3": 64}
    assert world.tiers["g4"].counts.read_files == 2
    assert world.engine.instances[0].counts.external_hits == 64
    world.io["g3"].bad.clear()
    assert served(world, prompt) == {"g3": 240}  # computed, and stored again


def test_written_back_blocks_go_down_one_tier_at_a_time() -> None:
    world = World(faster={"g2": 8 * BLOCK_BYTES, "g3": 2 * FILE_BYTES}, rules=BACK, g1_bytes=8 * BLOCK_BYTES)
    prompts = [prompt_of(128, name) for name in "abcd"]
    held = []
    for prompt in prompts:
        ask(world, prompt)
        held.append([world.engine.g1_used_bytes // BLOCK_BYTES, *(len(blocks_in(world, n)) for n in world.tiers)])
    assert held == [[8, 0, 0, 0], [8, 8, 0, 0], [8, 8, 8, 0], [8, 8, 8, 8]]
    assert sorted(blocks_in(world, "g4")) == sorted(
        prompts[0].chain[at : at + HASH_BYTES] for at in range(0, len(prompts[0].chain), HASH_BYTES)
    )
    assert {name: world.tiers[name].counts.moved_bytes for name in ("g2", "g3")} == {
        "g2": 16 * BLOCK_BYTES,
        "g3": 2 * FILE_BYTES,
    }
    assert served(world, prompts[1]) == {"g3": 112}
    assert served(world, prompts[0]) == {"g4": 112}


def test_written_back_without_g1_goes_to_the_first_tier_at_once() -> None:
    world = World(rules=BACK)
    ask(world, prompt_of(160))
    assert len(blocks_in(world, "g4")) == 10
    assert served(world, prompt_of(160)) == {"g4": 144}


def test_a_move_down_keeps_the_budget_while_it_lasts() -> None:
    world = World(faster={"g2": 8 * BLOCK_BYTES}, rules=BACK, write_s=1.0)
    most = 0
    for name in "abc":
        world.send(prompt_of(128, name), 1, world.clock.time())

    def look() -> None:
        nonlocal most
        most = max(most, world.io["g2"].used_bytes)
        assert world.tiers["g2"].used_bytes <= 8 * BLOCK_BYTES

    for tick in range(200):
        world.clock.call_at(tick * 0.05, look)
    world.clock.run()
    assert most == 8 * BLOCK_BYTES
    assert (len(blocks_in(world, "g2")), len(blocks_in(world, "g4"))) == (8, 16)


def test_what_is_larger_than_a_tier_passes_it_by() -> None:
    back = World(faster={"g2": BLOCK_BYTES}, rules=BACK)
    ask(back, prompt_of(128))
    assert (len(blocks_in(back, "g2")), len(blocks_in(back, "g4"))) == (0, 8)
    through = World(faster={"g2": BLOCK_BYTES})
    ask(through, prompt_of(128))
    counts = through.tiers["g2"].counts
    assert (counts.skipped_files, counts.write_errors["capacity"], len(blocks_in(through, "g4"))) == (2, 0, 8)


def test_least_recently_used_goes_first_in_every_tier() -> None:
    world = World(faster={"g2": 8 * BLOCK_BYTES, "g3": 2 * FILE_BYTES}, capacity_bytes=3 * FILE_BYTES)
    for name in "aba":
        ask(world, prompt_of(64, name))
    ask(world, prompt_of(64, "c"))
    for tier, names in (("g2", "ac"), ("g3", "ac"), ("g4", "bac")):
        held = blocks_in(world, tier)
        assert sorted(held) == sorted(block for name in names for block in _blocks(prompt_of(64, name)))


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(1, 5), st.booleans())
def test_a_tier_holds_what_a_plain_list_of_last_uses_says(names: list[str], files: int, load: bool) -> None:  # noqa: FBT001
    """Prompts of one file each, kept or read: the tier holds the last ones used, in the order of their use."""
    world = World(capacity_bytes=files * FILE_BYTES)
    used: list[str] = []
    for name in names:
        chain = prompt_of(64, name).chain
        if load and world.g4.load(chain, 0, 4, lambda _loaded: None):
            assert name in used
        else:
            world.g4.keep(chain)
        world.clock.run()
        used = [*(other for other in used if other != name), name][-files:]
        assert [file.key for file in world.g4._files.values()] == [prompt_of(64, one).chain[:16] for one in used]


def _blocks(prompt: Prompt) -> list[bytes]:
    return [prompt.chain[at : at + HASH_BYTES] for at in range(0, len(prompt.chain), HASH_BYTES)]


@pytest.mark.parametrize("policy", ["through", "back"])
def test_blocks_enter_with_the_request_that_asks_often_enough(policy: WritePolicy) -> None:
    world = World(rules=StoreRules(policy, admit_after_hits=3))
    prompt, longer = prompt_of(128), prompt_of(256)
    assert [served(world, prompt) for _ in range(4)] == [{}, {}, {}, {"g4": 112}]
    assert served(world, longer) == {"g4": 128}  # its head is known, its tail is not
    assert len(blocks_in(world, "g4")) == 8


def test_writes_begin_late_and_are_pending_until_then() -> None:
    for shown in (True, False):
        world = World(rules=StoreRules(delay_s=20.0, delay_shown=shown))
        pending: list[int] = []
        world.clock.call_at(10.0, lambda w, p: p.append(w.below.pending_writes), world, pending)
        second = world.send(prompt_of(128), at_s=19.0)
        third = world.send(prompt_of(128), at_s=21.0)
        ask(world, prompt_of(128))
        assert pending == [int(shown)]
        assert (second.cached_tokens, third.cached_tokens) == (0, 112)
        assert world.below.pending_writes == 0


@pytest.mark.parametrize("form", ["text", "ids"])
def test_the_next_turn_hits_the_answer_of_the_last(form: str) -> None:
    world = World()
    source: str | list[int] = words(100) if form == "text" else list(range(100))
    generation = ask(world, hash_prompt(source, b"root"), output_tokens=30)
    answer = [generation.word(index) for index in range(30)]
    if isinstance(source, str):
        following = hash_prompt(" ".join([source, *answer, words(50, "z")]), b"root")
    else:
        following = hash_prompt([*source, *token_ids(" ".join(answer)), *range(50)], b"root")
    assert served(world, following) == {"g4": 128}  # of 129 tokens with KV


@given(st.integers(1, 70), st.integers(0, 70), st.booleans())
def test_an_extended_chain_is_the_chain_of_the_longer_prompt(tokens: int, more: int, ids: bool) -> None:  # noqa: FBT001
    answer = [f"w{index}" for index in range(more)]
    if ids:
        short = hash_prompt(list(range(tokens)), b"root")
        long = hash_prompt([*range(tokens), *token_ids(" ".join(answer))], b"root")
    else:
        short = hash_prompt(words(tokens), b"root")
        long = hash_prompt(" ".join([words(tokens), *answer]), b"root")
    assert extend_chain(short, answer) == long.chain


def test_an_aborted_answer_keeps_what_it_has_computed() -> None:
    world = World(g1_bytes=10**9)
    gone = world.send(prompt_of(100), output_tokens=1000)
    world.clock.call_at(3.0, world.engine.abort, gone)
    world.clock.run()
    assert world.engine.g1_used_bytes == (100 + gone.generated_tokens - 1) // 16 * BLOCK_BYTES > 6 * BLOCK_BYTES
