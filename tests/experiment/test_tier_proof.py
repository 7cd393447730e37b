"""Which tier served a request: every source counts, and sources that disagree prove nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvbench.experiment import tier_proof
from kvbench.experiment.tier_proof import Blocks, Served
from kvbench.result.records import Response
from kvbench.testbed.servers.counters import Counters

BLOCKS = Blocks(tokens=16, kv_bytes_per_token=144.0, path_tier="g4")
ISL, CACHED = 10_000, 9_984  # 9,999 // 16 * 16
KV = CACHED * 144
FILES = KV + 8192


def served(cached: int | None = CACHED, isl: int = ISL, **delta: Any) -> Served:
    computed = isl - (cached or 0)
    counters: dict[str, Any] = {
        "local_hits": 0.0,
        "external_hits": float(cached or 0),
        "computed_tokens": float(computed),
        "read_bytes": {"g4": float(FILES if cached else 0)},
        "process_read_bytes": FILES if cached else 0,
    }
    response = Response("r", "ok", 0, isl=isl, cached_tokens=cached)
    return Served(response, Counters(**{**counters, **delta}))


def test_the_block_arithmetic() -> None:
    assert BLOCKS.cacheable(10_000) == 9_984
    assert BLOCKS.cacheable(17) == 16
    assert BLOCKS.cacheable(16) == 0  # at least one token is always computed
    assert BLOCKS.cacheable(1) == 0


def test_an_engine_that_counts_the_last_block_as_cached_has_a_full_hit_and_not_more() -> None:
    assert BLOCKS.expected(10_000, 9_984) == 9_984
    assert BLOCKS.expected(10_000, 10_000) == 10_000  # 625 blocks of 16
    assert BLOCKS.expected(10_001, 10_001) == 10_000  # not whole blocks: too many, and the ledger shows it


def test_g4_with_every_source_in_agreement() -> None:
    tier, evidence = tier_proof.judge(BLOCKS, served(), FILES)
    assert tier == "g4"
    assert "9984 cached tokens" in evidence
    assert "/proc/PID/io" in evidence


def test_recompute() -> None:
    assert tier_proof.judge(BLOCKS, served(0), None)[0] == "recompute"


def test_g1() -> None:
    one = served(local_hits=float(CACHED), external_hits=0.0, read_bytes={"g4": 0.0}, process_read_bytes=0)
    assert tier_proof.judge(BLOCKS, one, FILES)[0] == "g1"


def test_g2_is_a_hit_below_g1_that_no_tier_read() -> None:
    one = served(read_bytes={"g4": 0.0}, process_read_bytes=0)
    assert tier_proof.judge(BLOCKS, one, FILES)[0] == "g2"


def test_a_partial_hit_is_mixed() -> None:
    one = served(4992, read_bytes={"g4": 4992.0 * 144}, process_read_bytes=4992 * 144)
    tier, evidence = tier_proof.judge(BLOCKS, one, FILES)
    assert tier == "mixed"
    assert "5008 tokens computed" in evidence


def test_two_tiers_are_mixed() -> None:
    one = served(local_hits=16.0, external_hits=float(CACHED - 16))
    assert tier_proof.judge(BLOCKS, one, FILES)[0] == "mixed"
    assert tier_proof.judge(BLOCKS, served(read_bytes={"g3": 1.0, "g4": float(FILES)}), FILES)[0] == "mixed"


UNPROVEN: list[tuple[str, Served, str]] = [
    ("usage is silent", served(None, external_hits=0.0), "usage does not report"),
    ("no counters", served(local_hits=None), "no hit counters"),
    ("usage above the counters", served(external_hits=0.0), "the counters say 0"),
    ("counters above usage", served(0, external_hits=16.0), "the counters say 16"),
    ("counters frozen on a miss", served(0, computed_tokens=0.0), "the counter says 0"),
    ("hits without bytes", served(read_bytes={"g4": 0.0}, process_read_bytes=FILES), "no counter tells"),
    ("fewer bytes than the hits need", served(read_bytes={"g4": KV * 0.9}), "the files of this prompt"),
    ("more bytes than the files have", served(read_bytes={"g4": FILES * 1.02}), "the files of this prompt"),
    ("bytes from the page cache", served(process_read_bytes=0), "the process read 0 B"),
    ("bytes on a miss", served(0, read_bytes={"g4": 4096.0}), "no hit, yet tiers read"),
    ("device reads on a miss", served(0, process_read_bytes=10**7), "no hit, yet the process read"),
]


@pytest.mark.parametrize(("case", "one", "words"), UNPROVEN, ids=[case[0] for case in UNPROVEN])
def test_sources_that_disagree_prove_nothing(case: str, one: Served, words: str) -> None:
    tier, evidence = tier_proof.judge(BLOCKS, one, FILES)
    assert tier == "unproven", case
    assert words in evidence


def test_a_failed_request_proves_nothing() -> None:
    one = served()
    assert tier_proof.judge(BLOCKS, replace(one, response=replace(one.response, status="cut")), FILES)[0] == "unproven"


def test_without_a_manifest_the_hits_must_still_be_paid_for_in_bytes() -> None:
    assert tier_proof.judge(BLOCKS, served(), None)[0] == "g4"
    assert (
        tier_proof.judge(BLOCKS, served(read_bytes={"g4": KV * 0.5}, process_read_bytes=KV // 2), None)[0] == "unproven"
    )


def test_vllm_names_its_file_tier_in_its_own_words() -> None:
    assert tier_proof.judge(BLOCKS, served(read_bytes={"1:fs": float(FILES)}), None)[0] == "g4"


def test_an_engine_without_read_counters_is_proven_by_its_process() -> None:
    blocks = replace(BLOCKS, path_tier="g3")
    assert tier_proof.judge(blocks, served(read_bytes={}), None)[0] == "g3"
    assert tier_proof.judge(blocks, served(read_bytes={}, process_read_bytes=None), None)[0] == "unproven"


def test_bytes_of_the_process_are_held_against_files_and_hits_like_a_counter() -> None:
    blocks = replace(BLOCKS, path_tier="g3")
    tier, evidence = tier_proof.judge(blocks, served(read_bytes={}, process_read_bytes=2 * FILES), FILES)
    assert (tier, "the files of this prompt" in evidence) == ("unproven", True)
    assert tier_proof.judge(blocks, served(read_bytes={}, process_read_bytes=KV // 2), FILES)[0] == "unproven"
    part = served(4992, read_bytes={}, process_read_bytes=4992 * 144)
    assert tier_proof.judge(blocks, part, FILES)[0] == "mixed"


def test_bytes_without_a_scale_prove_nothing() -> None:
    unknown = replace(BLOCKS, kv_bytes_per_token=None)
    tier, evidence = tier_proof.judge(unknown, served(read_bytes={"g4": 1.0}, process_read_bytes=1), None)
    assert (tier, evidence) == ("unproven", "read 1 B, but how many bytes a token takes is not known")


def test_host_memory_needs_a_second_witness() -> None:
    one = served(read_bytes={"1:fs": 0.0}, process_read_bytes=None)
    assert tier_proof.judge(BLOCKS, one, None)[0] == "unproven"
    assert tier_proof.judge(BLOCKS, replace(one, delta=replace(one.delta, host_tokens=float(CACHED))), None)[0] == "g2"


def test_a_small_prompt_cannot_hide_its_reads() -> None:
    assert tier_proof.judge(BLOCKS, served(0, isl=1000, process_read_bytes=100_000), None)[0] == "unproven"


def test_a_last_block_that_is_stored_and_never_read_is_no_gap() -> None:
    """800 tokens are 50 blocks; 49 can be reused, and with one block a file the 50th file is not read."""
    big = replace(BLOCKS, kv_bytes_per_token=73_728.0)
    read, held = 49 * (16 * 73_728 + 8192), 50 * (16 * 73_728 + 8192)
    one = served(784, isl=800, read_bytes={"g4": float(read)}, process_read_bytes=read)
    assert tier_proof.judge(big, one, held)[0] == "g4"


def test_a_request_is_not_charged_with_files_that_move_down_meanwhile() -> None:
    read, moved = FILES + 4_000_000, 4_000_000.0
    tier, evidence = tier_proof.judge(BLOCKS, served(process_read_bytes=read, moved_bytes=moved), FILES)
    assert (tier, "by /proc/PID/io without 4,000,000 moved between tiers" in evidence) == ("g4", True)
    assert tier_proof.judge(BLOCKS, served(process_read_bytes=read), FILES)[0] == "unproven"
    assert tier_proof.judge(BLOCKS, served(0, process_read_bytes=4_000_000, moved_bytes=moved), FILES)[0] == "recompute"
    assert (
        tier_proof.judge(BLOCKS, served(0, process_read_bytes=4_000_000, moving_bytes=moved), FILES)[0] == "recompute"
    )


def test_bytes_are_needed_only_for_what_memory_did_not_serve() -> None:
    half = CACHED // 2
    one = served(host_tokens=float(half), read_bytes={"g4": (CACHED - half) * 144.0}, process_read_bytes=None)
    assert tier_proof.judge(BLOCKS, one, None)[0] == "mixed"
    short = replace(one, delta=replace(one.delta, read_bytes={"g4": (CACHED - half) * 100.0}))
    assert tier_proof.judge(BLOCKS, short, None)[0] == "unproven"
