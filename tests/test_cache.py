"""Cache states: the order of steps, and that each proof fails when the server lies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import cache, plan
from kvbench.proof import Blocks
from kvbench.scenario_models import Treatment
from kvbench.servers import tier_directory
from tests.worlds import BLOCK, HEADER, KV_BYTES, FakeServer, make_scenario

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.proof import Manifest

OFF = Treatment.model_validate({"cache": "off"})
COLD = Treatment.model_validate({"cache": "cold"})
WARM = Treatment.model_validate({"cache": {"warm": "g4"}})
PLAN = plan.expand(make_scenario())


def prepare(server: FakeServer, treatment: Treatment, known: Manifest | None = None) -> cache.CacheProof:
    bench = cache.Bench(server, server.send, Blocks(BLOCK, KV_BYTES, "g4"))
    return cache.prepare(bench, treatment, PLAN, known)


def failed(proof: cache.CacheProof) -> list[str]:
    return [step.name for step in proof.steps if step.outcome == "failed"]


@pytest.fixture
def tier(tmp_path: Path) -> Path:
    return tmp_path / "tier"


def test_warm_goes_through_all_steps_in_order(tier: Path) -> None:
    server = FakeServer(tier)
    proof = prepare(server, WARM)
    assert server.log == [
        "probe canary-cold",  # makes it resident
        "probe canary-cold",  # shows that it is
        "reset external",
        "probe canary-cold",  # shows that it is gone
        "prime canary-first",
        "prime p1000-0",
        "prime p2000-0",
        "prime canary-last",
        "reset external",
        "probe canary-first",
        "probe canary-last",
    ]
    assert [step.name for step in proof.steps] == [
        "canary resident",
        "empty directory",
        "reset, external tiers too",
        "prove cold",
        "prime",
        "reset, external tiers too",
        "page cache",
        "prove warm, canary-first",
        "prove warm, canary-last",
    ]
    assert {step.outcome for step in proof.steps} == {"proven", "done"}


def test_the_manifest_holds_file_bytes_with_headers(tier: Path) -> None:
    manifest = prepare(FakeServer(tier), WARM).manifest
    assert manifest is not None
    assert manifest.text_bytes["p1000-0"] == HEADER + 992 * KV_BYTES  # 999 // 16 * 16 = 992
    assert sum(manifest.text_bytes.values()) + HEADER + 992 * KV_BYTES == sum(manifest.files.values())  # canary-cold


def test_a_tier_that_still_holds_its_manifest_is_not_primed_again(tier: Path) -> None:
    manifest = prepare(FakeServer(tier), WARM).manifest
    server = FakeServer(tier)
    proof = prepare(server, WARM, manifest)
    assert server.log == ["reset external", "probe canary-first", "probe canary-last"]
    assert proof.steps[0].name == "manifest"
    assert proof.manifest == manifest
    assert not failed(proof)


def test_a_tier_that_lost_a_file_is_primed_again(tier: Path) -> None:
    manifest = prepare(FakeServer(tier), WARM).manifest
    (tier / "p2000-0.kv").unlink()
    server = FakeServer(tier)
    proof = prepare(server, WARM, manifest)
    assert "prime p2000-0" in server.log
    assert not failed(proof)


def test_a_file_of_another_size_counts_as_lost(tier: Path) -> None:
    manifest = prepare(FakeServer(tier), WARM).manifest
    with (tier / "p2000-0.kv").open("ab") as file:
        file.write(b"x")
    server = FakeServer(tier)
    prepare(server, WARM, manifest)
    assert "prime p2000-0" in server.log


def test_cold_empties_the_directory(tier: Path) -> None:
    server = FakeServer(tier)
    (tier / "old.kv").write_bytes(b"old")
    proof = prepare(server, COLD)
    assert not failed(proof)
    assert list(tier_directory.listing(tier)) == ["canary-cold.kv"]  # the last canary went in again, and only it


def test_off_is_proven_by_a_canary_that_is_computed_twice(tier: Path) -> None:
    server = FakeServer(tier, cache_on=False)
    proof = prepare(server, OFF)
    assert server.log == ["probe canary-cold", "probe canary-cold"]
    assert [(step.name, step.outcome) for step in proof.steps] == [("prove off", "proven")]


LIES: list[tuple[str, dict[str, Any], Treatment, str]] = [
    ("reset says yes and keeps the blocks", {"g1": True, "keeps_blocks": True}, COLD, "prove cold"),
    ("the same, seen by a warm run", {"g1": True, "keeps_blocks": True}, WARM, "prove cold"),
    ("blocks stay in host memory", {"keeps_blocks": True}, WARM, "prove warm, canary-first"),
    ("counters stand still", {"frozen": True}, WARM, "canary resident"),
    ("counters stand still, off", {"frozen": True, "cache_on": False}, OFF, "prove off"),
    ("cached tokens are not reported", {"hides_cached_tokens": True}, WARM, "canary resident"),
    ("off was asked for and the cache is on", {}, OFF, "prove off"),
    ("warm was asked for and the cache is off", {"cache_on": False}, WARM, "canary resident"),
    ("the oldest text was evicted", {"forgets": {"canary-first"}}, WARM, "prove warm, canary-first"),
    ("one prompt never reaches the tier", {"forgets": {"p2000-0"}}, WARM, "prime"),
    ("reads come from the page cache", {"page_cache": True}, WARM, "prove warm, canary-first"),
    ("reset is refused for good", {"says_no": 10**6}, WARM, "reset, external tiers too"),
]


@pytest.mark.parametrize(("lie", "flags", "treatment", "step"), LIES, ids=[lie[0] for lie in LIES])
def test_every_lie_is_found_by_a_step(
    lie: str, flags: dict[str, Any], treatment: Treatment, step: str, tier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_RESET_PAUSE_S", 0.0)
    assert step in failed(prepare(FakeServer(tier, **flags), treatment)), lie


def test_a_refused_reset_is_asked_again(tier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_RESET_PAUSE_S", 0.0)
    server = FakeServer(tier, says_no=3)
    proof = prepare(server, COLD)
    assert server.log.count("reset external") == 4
    assert not failed(proof)


def test_a_tier_that_is_not_ours_is_never_emptied(tier: Path) -> None:
    server = FakeServer(tier, ours=False)
    (tier / "theirs.kv").write_bytes(b"theirs")
    proof = prepare(server, COLD)
    assert (tier / "theirs.kv").read_bytes() == b"theirs"
    assert [(s.name, s.outcome) for s in proof.steps if s.name == "prove cold"] == [("prove cold", "not established")]


def test_a_tier_out_of_sight_is_primed_until_its_prompts_hit(tier: Path) -> None:
    server = FakeServer(tier, ours=False)
    hidden = HiddenTier(server)
    bench = cache.Bench(hidden, server.send, Blocks(BLOCK, KV_BYTES, "g4"))
    proof = cache.prepare(bench, WARM, PLAN, None)
    assert server.log.count("prime p2000-0") == 1  # the write counter says that it went in
    assert proof.manifest is None
    outcomes = {step.name: step.outcome for step in proof.steps}
    assert outcomes["prime"] == "done"
    assert outcomes["page cache"] == "not established"
    assert outcomes["prove warm, canary-last"] == "proven"


def test_without_the_size_of_a_token_a_second_sweep_must_hit_and_bytes_prove_nothing(tier: Path) -> None:
    server = FakeServer(tier, ours=False)
    bench = cache.Bench(HiddenTier(server), server.send, Blocks(BLOCK, None, "g4"))
    proof = cache.prepare(bench, WARM, PLAN, None)
    assert server.log.count("prime p2000-0") == 2
    outcomes = {step.name: step.outcome for step in proof.steps}
    assert outcomes["canary resident"] == "not established"
    assert outcomes["prove warm, canary-last"] == "not established"


def test_a_manifest_of_another_tier_is_not_taken(tier: Path) -> None:
    manifest = prepare(FakeServer(tier), WARM).manifest
    assert manifest is not None
    server = FakeServer(tier)
    prepare(server, WARM, replace(manifest, tier="g3"))
    assert "prime p2000-0" in server.log


def test_a_slow_write_of_the_cold_canary_is_not_taken_for_the_first_prompt(tier: Path) -> None:
    """Write-back ends after the answer: each step must wait, or the manifest holds somebody else's bytes."""
    server = FakeServer(tier, write_delay=3)
    manifest = prepare(server, WARM).manifest
    assert manifest is not None
    assert manifest.text_bytes["canary-first"] == HEADER + 992 * KV_BYTES
    assert manifest.text_bytes["p2000-0"] == HEADER + 1984 * KV_BYTES


def test_a_server_that_still_looks_for_deleted_files_did_not_reset(tier: Path) -> None:
    assert "prove cold" in failed(prepare(FakeServer(tier, keeps_index=True), WARM))


class HiddenTier:
    """The same server from another host: no directory to list, nothing known about it."""

    tier_path = None
    ours = False

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.info: dict[str, Any] = {}
        self.scrape = server.scrape
        self.reset = server.reset
