from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.files import Geometry
from kvbench.emulator.memory import MemoryTier
from kvbench.emulator.tiers import FileTier, Loaded
from tests.builders.hashing import hash_prompt
from tests.builders.virtual_world import BLOCK_BYTES, ModelledFiles, VirtualClock, prompt_of, words

GEOMETRY = Geometry(BLOCK_BYTES, blocks_per_file=4)


def tier_of(capacity_files: float = 1e6) -> tuple[FileTier, ModelledFiles]:
    files = ModelledFiles(VirtualClock())
    return FileTier("g4", files, GEOMETRY, int(capacity_files * GEOMETRY.max_file_bytes)), files


def keep(tier: FileTier, files: ModelledFiles, chain: bytes) -> None:
    tier.keep(chain)
    files.clock.run()


def load(tier: FileTier, files: ModelledFiles, chain: bytes, start: int = 0) -> Loaded | None:
    loaded: list[Loaded] = []
    tier.load(chain, start, len(chain) // HASH_BYTES, loaded.append)
    files.clock.run()
    return loaded[0] if loaded else None


def test_memory_and_files_answer_the_same_questions() -> None:
    files_tier, files = tier_of()
    tiers: list[MemoryTier | FileTier] = [MemoryTier("g1", 10**6, BLOCK_BYTES), files_tier]
    chain = prompt_of(160).chain
    for tier in tiers:
        assert (tier.used_bytes, tier.covered(chain, 0, 10)) == (0, 0)
        tier.keep(chain)
        files.clock.run()
        assert tier.covered(chain, 0, 10) == 10
        assert 0 < tier.used_bytes <= tier.capacity_bytes
    assert [tier.name for tier in tiers] == ["g1", "g4"]


def test_a_chain_is_stored_once_in_files_of_four_blocks_and_a_partial_one() -> None:
    tier, files = tier_of()
    chain = prompt_of(160).chain
    keep(tier, files, chain)
    keep(tier, files, chain)
    assert sorted(file.blocks for file in files.on_disk.values()) == [2, 4, 4]
    assert tier.covered(chain, 0, 10) == 10
    assert tier.used_bytes == sum(file.size_bytes for file in files.on_disk.values())
    assert tier.counts.write_files == 3


def test_blocks_being_written_are_no_hits_and_are_not_written_twice() -> None:
    tier, files = tier_of()
    chain = prompt_of(160).chain
    tier.keep(chain)
    tier.keep(chain)
    assert (tier.pending_writes, tier.covered(chain, 0, 10)) == (3, 0)
    files.clock.run()
    assert (tier.pending_writes, tier.counts.write_files, tier.covered(chain, 0, 10)) == (0, 3, 10)


def test_a_longer_prompt_reads_the_stored_files_and_writes_only_its_new_blocks() -> None:
    tier, files = tier_of()
    short, long = prompt_of(96).chain, prompt_of(192).chain
    keep(tier, files, short)
    loaded = load(tier, files, long)
    assert loaded is not None
    assert loaded.stop == 6
    keep(tier, files, long)
    assert sorted(file.blocks for file in files.on_disk.values()) == [2, 2, 4, 4]
    assert tier.covered(long, 0, 12) == 12


def test_a_fork_reads_only_what_it_shares() -> None:
    tier, files = tier_of()
    trunk = words(96)
    keep(tier, files, hash_prompt(trunk, b"root").chain)
    fork = hash_prompt(" ".join(trunk.split()[:40]) + " " + words(56, "z"), b"root").chain
    assert tier.covered(fork, 0, 6) == 2
    keep(tier, files, fork)
    assert tier.covered(fork, 0, 6) == 6
    assert sum(file.blocks for file in files.on_disk.values()) == 6 + 4


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2), st.integers(1, 12)), max_size=12))
def test_whatever_is_kept_is_covered_and_no_block_is_stored_twice(prompts: list[tuple[int, int, int]]) -> None:
    tier, files = tier_of()
    for shared, fork, own in prompts:
        trunk = words(16 * shared)
        chain = hash_prompt(f"{trunk} {words(16 * own, 'xyz'[fork])}", b"root").chain
        keep(tier, files, chain)
        blocks = len(chain) // HASH_BYTES
        assert tier.covered(chain, 0, blocks) == blocks
    stored = [
        file.hashes[at : at + HASH_BYTES]
        for file in files.on_disk.values()
        for at in range(0, len(file.hashes), HASH_BYTES)
    ]
    assert len(stored) == len(set(stored))


def test_least_recently_used_files_go_first_and_the_tail_before_the_head() -> None:
    tier, files = tier_of(capacity_files=6)
    old, used, new = (prompt_of(128, name).chain for name in "abc")  # two files each
    keep(tier, files, old)
    keep(tier, files, used)
    load(tier, files, old)
    keep(tier, files, prompt_of(128, "d").chain)  # fits: six files
    keep(tier, files, new[: 4 * HASH_BYTES])  # one more: the tail of `used` goes
    assert [tier.covered(chain, 0, 8) for chain in (old, used)] == [8, 4]
    assert tier.counts.evicted_files == 1
    assert [file.key for file in files.removed] == [used[4 * HASH_BYTES : 5 * HASH_BYTES]]


def test_a_prompt_above_the_capacity_keeps_its_head() -> None:
    tier, files = tier_of(capacity_files=2)
    chain = prompt_of(256).chain
    keep(tier, files, chain)
    assert tier.covered(chain, 0, 16) == 8
    assert tier.used_bytes <= tier.capacity_bytes
    assert tier.counts.write_errors["capacity"] == 2


def test_files_being_read_are_not_evicted() -> None:
    tier, files = tier_of(capacity_files=2)
    read, other = prompt_of(128, "a").chain, prompt_of(64, "b").chain
    keep(tier, files, read)
    tier.load(read, 0, 8, lambda _loaded: None)
    keep(tier, files, other)
    assert tier.counts.evicted_files == 0
    assert tier.counts.write_errors["capacity"] == 1
    keep(tier, files, other)
    assert tier.counts.evicted_files == 1


@pytest.mark.parametrize(("bad_file", "stop"), [(0, 0), (1, 4), (2, 8)])
def test_a_bad_file_ends_the_hit_and_leaves_the_index(bad_file: int, stop: int) -> None:
    tier, files = tier_of()
    chain = prompt_of(160).chain
    keep(tier, files, chain)
    files.bad[chain[bad_file * 4 * HASH_BYTES :][:HASH_BYTES]] = "truncated"
    loaded = load(tier, files, chain)
    assert loaded is not None
    assert loaded.stop == stop
    assert tier.counts.bad_files["truncated"] == 1
    assert len(files.removed) == 1
    files.bad.clear()
    assert tier.covered(chain, 0, 10) == stop


def test_what_is_behind_a_lost_head_is_used_again() -> None:
    tier, files = tier_of()
    chain = prompt_of(160).chain
    keep(tier, files, chain)
    files.bad[chain[:HASH_BYTES]] = "missing"
    load(tier, files, chain)
    files.bad.clear()
    assert tier.covered(chain, 0, 10) == 0
    assert tier.covered(chain, 4, 10) == 10
    keep(tier, files, chain)
    assert tier.counts.write_files == 4  # only the head


def test_a_load_that_starts_inside_a_file_reads_that_file() -> None:
    tier, files = tier_of()
    chain = prompt_of(160).chain
    keep(tier, files, chain)
    loaded = load(tier, files, chain, start=6)
    assert loaded is not None
    assert loaded.stop == 10
    assert [file.key for file in files.read_files] == [chain[64:80], chain[128:144]]


def test_a_full_disk_is_counted_and_the_block_is_not_indexed() -> None:
    tier, files = tier_of()
    files.write_error = "no_space"
    chain = prompt_of(64).chain
    keep(tier, files, chain)
    assert tier.counts.write_errors["no_space"] == 1
    assert (tier.used_bytes, tier.file_count, tier.covered(chain, 0, 4)) == (0, 0, 0)


def test_adopting_more_than_the_capacity_deletes_the_oldest() -> None:
    tier, files = tier_of()
    keep(tier, files, prompt_of(192).chain)
    found = list(files.on_disk.values())
    small, _ = tier_of(capacity_files=2)
    small.adopt(found)
    assert small.file_count == 2
    assert small.counts.evicted_files == 1


def test_memory_drops_the_tail_of_the_oldest_first() -> None:
    g1 = MemoryTier("g1", 6 * BLOCK_BYTES, BLOCK_BYTES)
    one, two = prompt_of(64, "a").chain, prompt_of(64, "b").chain
    g1.keep(one)
    g1.keep(two)
    assert [g1.covered(chain, 0, 4) for chain in (one, two)] == [2, 4]
    assert g1.used_bytes == g1.capacity_bytes
    g1.drop()
    assert g1.used_bytes == 0


def test_runs_of_a_chain_never_overlap() -> None:
    tier, files = tier_of()
    for tokens in (48, 144, 256):
        keep(tier, files, prompt_of(tokens).chain)
    runs = tier._stored_runs(prompt_of(256).chain, 0, 16)
    assert runs[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(runs))
