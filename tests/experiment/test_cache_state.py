"""Cache states: the order of steps, and that each proof fails when the server lies."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from kvbench.experiment import cache_state, server_control
from kvbench.experiment.tier_proof import Blocks
from kvbench.scenario import plan
from kvbench.scenario.models import Treatment
from kvbench.testbed.servers import tier_directory
from kvbench.units import format_size
from tests.builders.worlds import BLOCK, HEADER, KV_BYTES, FakeServer, make_scenario

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.experiment.tier_proof import Manifest
    from kvbench.result.records import Phase, Response

OFF = Treatment.model_validate({"cache": "off"})
COLD = Treatment.model_validate({"cache": "cold"})
WARM = Treatment.model_validate({"cache": {"warm": "g4"}})
PLAN = plan.expand(make_scenario())


def prepare(server: FakeServer, treatment: Treatment, known: Manifest | None = None) -> cache_state.CacheProof:
    tier = treatment.warm_tier if treatment.warm_tier in ("g3", "g4") else "g4"
    on_bench = server_control.ServerControl(server, server.send, Blocks(BLOCK, KV_BYTES, tier))
    return cache_state.prepare(on_bench, treatment, PLAN, known)


def failed(proof: cache_state.CacheProof) -> list[str]:
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
        "answer, canary-cold",
        "canary resident",
        "empty directory",
        "reset, external tiers too",
        "prove cold",
        "prime",
        "reset, external tiers too",
        "page cache",
        "answer, canary-first",
        "prove warm, canary-first",
        "answer, canary-last",
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
    ("wrong KV is served", {"wrong_from_tokens": 0}, COLD, "answer, canary-cold"),
    ("the same, seen by a warm run", {"wrong_from_tokens": 0}, WARM, "answer, canary-last"),
    ("reset is refused for good", {"says_no": 10**6}, WARM, "reset, external tiers too"),
]


@pytest.mark.parametrize(("lie", "flags", "treatment", "step"), LIES, ids=[lie[0] for lie in LIES])
def test_every_lie_is_found_by_a_step(
    lie: str, flags: dict[str, Any], treatment: Treatment, step: str, tier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_state, "_RESET_PAUSE_S", 0.0)
    assert step in failed(prepare(FakeServer(tier, **flags), treatment)), lie


def test_wrong_kv_is_found_though_the_tier_is_not_primed_again(tier: Path) -> None:
    manifest = prepare(FakeServer(tier), WARM).manifest
    proof = prepare(FakeServer(tier, wrong_from_tokens=0), WARM, manifest)
    assert failed(proof) == ["answer, canary-first", "answer, canary-last"]


def test_another_answer_of_an_engine_is_told_and_judges_nothing(tier: Path) -> None:
    """Rounding alone may change it: `check_answers` is for those who know that theirs repeat."""
    proof = prepare(FakeServer(tier, wrong_from_tokens=0, info={}, tells_admission=False), WARM)
    assert not failed(proof)
    assert [step.outcome for step in proof.steps if step.name.startswith("answer")] == ["done"] * 3


def test_a_refused_reset_is_asked_again(tier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_state, "_RESET_PAUSE_S", 0.0)
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
    on_bench = server_control.ServerControl(hidden, server.send, Blocks(BLOCK, KV_BYTES, "g4"))
    proof = cache_state.prepare(on_bench, WARM, PLAN, None)
    assert server.log.count("prime p2000-0") == 1  # the write counter says that it went in
    assert proof.manifest is None
    outcomes = {step.name: step.outcome for step in proof.steps}
    assert outcomes["prime"] == "done"
    assert outcomes["page cache"] == "not established"
    assert outcomes["prove warm, canary-last"] == "proven"


SAYS_DIRECT = {"tiers": {"g4": {"direct": "enforced", "access": "direct"}}}


@pytest.mark.parametrize(("kernel", "outcome"), [("counts", "done"), ("silent", "not established")])
def test_another_servers_word_on_direct_reads_is_no_proof(tier: Path, kernel: str, outcome: str) -> None:
    server = FakeServer(tier, ours=False)
    hidden = HiddenTier(server)
    hidden.info = SAYS_DIRECT
    if kernel == "silent":
        hidden.scrape = lambda: replace(server.scrape(), process_read_bytes=None)
    proof = cache_state.prepare(
        server_control.ServerControl(hidden, server.send, Blocks(BLOCK, KV_BYTES, "g4")), WARM, PLAN, None
    )
    steps = {step.name: step for step in proof.steps}
    assert steps["page cache"].outcome == outcome
    assert "the server says that it reads the tier with O_DIRECT" in steps["page cache"].evidence
    assert steps["prove warm, canary-last"].outcome == "proven"


def test_another_servers_files_are_looked_up_in_the_page_cache_whatever_it_says(tier: Path) -> None:
    steps = {step.name: step for step in prepare(FakeServer(tier, ours=False, info=SAYS_DIRECT), WARM).steps}
    assert steps["page cache"].evidence == "0 B of the tier's files still resident"


def test_without_the_size_of_a_token_a_second_sweep_must_hit_and_bytes_prove_nothing(tier: Path) -> None:
    server = FakeServer(tier, ours=False)
    on_bench = server_control.ServerControl(HiddenTier(server), server.send, Blocks(BLOCK, None, "g4"))
    proof = cache_state.prepare(on_bench, WARM, PLAN, None)
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


# -- a slow tier behind a faster one ----------------------------------------------------------------------------------

WARM_G3 = Treatment.model_validate({"cache": {"warm": "g3"}})


def evidence(proof: cache_state.CacheProof, name: str) -> list[str]:
    return [step.evidence for step in proof.steps if step.name == name]


def test_a_slow_tier_is_warm_when_the_faster_one_is_emptied_last(tier: Path, tmp_path: Path) -> None:
    server = FakeServer(tier, fast_path=tmp_path / "fast")
    proof = prepare(server, WARM)
    assert not failed(proof)
    wiped = evidence(proof, "empty directory")  # both before priming, the faster one again after it
    assert [text.split(":")[0] for text in wiped] == ["g3", "g4", "g3"]
    assert wiped[-1] == "g3: 5 files deleted, 0 left"  # four primed, and the canary that was to be gone
    assert evidence(proof, "prove warm, canary-last")[0].startswith("served from g4")
    assert proof.manifest is not None
    assert proof.manifest.text_bytes["p2000-0"] == HEADER + 1984 * KV_BYTES  # the slow tier's bytes alone
    assert set(tier_directory.listing(tmp_path / "fast")) == {"canary-first.kv", "canary-last.kv"}  # promoted since


def test_what_was_promoted_in_an_earlier_run_is_dropped_again(tier: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast"
    manifest = prepare(FakeServer(tier, fast_path=fast), WARM).manifest
    server = FakeServer(tier, fast_path=fast)
    server.answer("p2000-0", 2000)
    server.scrape()
    proof = prepare(server, WARM, manifest)
    assert [step.name for step in proof.steps][:2] == ["manifest", "empty directory"]
    assert "prime p2000-0" not in server.log
    assert not failed(proof)
    assert "p2000-0.kv" not in tier_directory.listing(fast)


def test_a_fast_tier_is_warm_while_a_slower_one_holds_copies(tier: Path, tmp_path: Path) -> None:
    server = FakeServer(tier, fast_path=tmp_path / "fast")
    server.info["tiers"]["g3"] = server.info["tiers"]["g4"]
    proof = prepare(server, WARM_G3)
    assert not failed(proof)
    assert proof.manifest is not None
    assert proof.manifest.files == tier_directory.listing(tmp_path / "fast")
    assert evidence(proof, "prove warm, canary-first")[0].startswith("served from g3")
    assert len(evidence(proof, "empty directory")) == 2  # none is faster than g3


def test_a_directory_of_somebody_else_is_the_tier_that_is_asked_for(tier: Path) -> None:
    server = FakeServer(tier, ours=False)
    assert server_control.ServerControl(server, server.send, Blocks(BLOCK, KV_BYTES, "g3")).path_of("g3") == tier
    ours = FakeServer(tier)
    assert server_control.ServerControl(ours, ours.send, Blocks(BLOCK, KV_BYTES, "g3")).path_of("g3") is None


# -- admission --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("admit_after", [2, 5, 14])
def test_a_tier_that_takes_blocks_in_late_is_asked_often_enough(admit_after: int, tier: Path) -> None:
    server = FakeServer(tier, admit_after=admit_after)
    proof = prepare(server, WARM)
    assert not failed(proof)
    assert server.log.count("prime p2000-0") == admit_after
    assert evidence(proof, "prime")[0].endswith(f"in {admit_after} rounds")


def test_without_a_word_and_without_progress_three_rounds_are_enough_to_give_up(tier: Path) -> None:
    server = FakeServer(tier, admit_after=9, tells_admission=False)
    proof = prepare(server, WARM)
    assert server.log.count("prime p2000-0") == 3
    assert {"canary resident", "prime"} <= set(failed(proof))
    assert "not held in full in 3 rounds" in evidence(proof, "prime")[0]


@pytest.mark.parametrize(("pieces", "sent", "outcome"), [(6, 6, "proven"), (40, 12, "failed")])
def test_priming_goes_on_while_something_is_gained(pieces: int, sent: int, outcome: str, tier: Path) -> None:
    server = PiecewiseServer(tier, forgets={"p2000-0"})
    server.piece_bytes = -(-(HEADER + 1984 * KV_BYTES) // pieces)
    proof = prepare(server, WARM)
    assert server.log.count("prime p2000-0") == sent
    assert [step.outcome for step in proof.steps if step.name == "prime"] == [outcome]


class PiecewiseServer(FakeServer):
    """Stores what it forgets a piece at a time, one with each request."""

    piece_bytes = 0

    def answer(self, key: str, tokens: int) -> Response:
        """Serve a text as ever, and keep one more piece of it."""
        assert self.tier_path is not None
        if key in self.forgets:
            (self.tier_path / f"{key}-{self.asked.get(key, 0)}.kv").write_bytes(bytes(self.piece_bytes))
        return super().answer(key, tokens)


# -- another server that fills the tier -------------------------------------------------------------------------------


def prepare_by(server: FakeServer, writer: FakeServer, known: Manifest | None = None) -> cache_state.CacheProof:
    primer = server_control.Primer(writer, writer.send)

    def another() -> AbstractContextManager[server_control.Primer]:
        return nullcontext(primer)

    on_bench = server_control.ServerControl(server, server.send, Blocks(BLOCK, KV_BYTES, "g4"), another)
    return cache_state.prepare(on_bench, WARM, PLAN, known)


def test_another_server_fills_the_tier_and_the_measured_one_reads_it(tier: Path) -> None:
    server, writer = FakeServer(tier), FakeServer(tier)
    proof = prepare_by(server, writer)
    assert not failed(proof)
    assert [line for line in server.log if line.startswith("prime")] == []
    assert writer.log == ["prime canary-first", "prime p1000-0", "prime p2000-0", "prime canary-last"]
    wrote = format_size(4 * HEADER + (3 * 992 + 1984) * KV_BYTES)
    assert evidence(proof, "primed by another") == [f"another server wrote {wrote}, the one that is measured nothing"]
    assert server.read["g4"] > 0
    assert proof.manifest is not None
    assert proof.manifest.primed_by == "another"


def test_a_tier_filled_by_the_wrong_server_is_primed_again(tier: Path) -> None:
    by_itself = prepare(FakeServer(tier), WARM).manifest
    writer = FakeServer(tier)
    by_another = prepare_by(FakeServer(tier), writer, by_itself).manifest
    assert "prime p2000-0" in writer.log
    again = FakeServer(tier)
    prepare_by(FakeServer(tier), again, by_another)
    assert again.log == []


def test_a_measured_server_that_writes_the_tier_itself_is_found(tier: Path) -> None:
    server = FakeServer(tier)
    assert "primed by another" in failed(prepare_by(server, server))


class HiddenTier:
    """The same server from another host: no directory to list, nothing known about it."""

    tier_paths: ClassVar[dict[str, Path]] = {}
    ours = False

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.info: dict[str, Any] = {}
        self.scrape = server.scrape
        self.reset = server.reset


# -- several at once --------------------------------------------------------------------------------------------------


def prepare_at_once(server: FakeServer, laid_out: plan.Plan) -> tuple[cache_state.CacheProof, list[list[str]]]:
    sent: list[list[str]] = []

    def send_all(draws: Sequence[plan.Draw], phase: Phase) -> list[Response]:
        sent.append([draw.prompt_id for draw in draws])
        return [server.send(draw, phase) for draw in draws]

    on_bench = server_control.ServerControl(server, server.send, Blocks(BLOCK, KV_BYTES, "g4"), send_all=send_all)
    return cache_state.prepare(on_bench, WARM, laid_out, None), sent


def test_a_server_of_several_gpus_is_primed_with_prompts_of_one_length_at_once(tier: Path) -> None:
    laid_out = plan.expand(make_scenario(prompts={"lengths": [1000, 2000], "per_length": 3}))
    server = FakeServer(tier)
    server.info = {**server.info, "instances": 2}
    proof, sent = prepare_at_once(server, laid_out)
    assert not failed(proof)
    assert sent == [["p1000-0", "p1000-1"], ["p2000-0", "p2000-1"]], "what is left over of a length goes alone"
    order = [line.removeprefix("prime ") for line in server.log if line.startswith("prime ")]
    assert order == ["canary-first", *(draw.prompt_id for draw in laid_out.pool), "canary-last"]
    assert proof.manifest is not None
    assert proof.manifest.text_bytes["p2000-1"] == HEADER + 1984 * KV_BYTES


def test_what_a_batch_did_not_leave_in_equal_parts_is_sent_again_one_by_one(tier: Path) -> None:
    laid_out = plan.expand(make_scenario(prompts={"lengths": [1000], "per_length": 4}))
    server = FakeServer(tier, forgets={"p1000-2"})
    server.info = {**server.info, "instances": 4}
    proof, sent = prepare_at_once(server, laid_out)
    assert len(sent) == 1
    assert server.log.count("prime p1000-0") == 2
    assert "prime" in failed(proof)
