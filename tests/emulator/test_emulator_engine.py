"""The engine on virtual time: every instant below is arithmetic on ROUND_FIGURES (1 ms a token, 0.5 s fixed)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvbench.emulator.settings import DEFAULT_PROFILE, load_profile
from tests.builders.virtual_world import BLOCK_BYTES, ROUND_FIGURES, World, prompt_of

if TYPE_CHECKING:
    from kvbench.emulator.instance import Generation


def test_recompute_is_the_prefill_alone() -> None:
    assert World().ttft_s(prompt_of(1000)) == pytest.approx(1.0)


def test_chunked_prefill_takes_as_long_in_the_end() -> None:
    curved = replace(ROUND_FIGURES, prefill_s_per_token2=1e-6)
    assert World(figures=curved, max_batched_tokens=64).ttft_s(prompt_of(1000)) == pytest.approx(2.0)


def test_onboarding_is_fixed_plus_path_plus_one_chunk() -> None:
    world = World()
    world.ttft_s(prompt_of(1600))
    assert world.ttft_s(prompt_of(1600)) == pytest.approx(0.5 + 1.584 + 0.016)


def test_slow_storage_shows_in_place_of_the_path() -> None:
    world = World(storage_bytes_per_s=1_000_000 / 4)
    world.ttft_s(prompt_of(1600))
    stored = sum(file.size_bytes for file in world.g4._files.values())
    assert world.ttft_s(prompt_of(1600)) == pytest.approx(0.5 + stored / 250_000 + 0.016)


def test_published_warm_curve_from_the_engine_itself() -> None:
    figures = load_profile(DEFAULT_PROFILE).figures
    world = World(figures=figures, block_bytes=16 * 73_728)
    assert world.ttft_s(prompt_of(10_000)) == pytest.approx(0.572, abs=0.0005)
    assert world.ttft_s(prompt_of(10_000)) == pytest.approx(0.193, abs=0.00005)


def test_decode_goes_first_and_prefill_gets_the_rest_of_the_budget() -> None:
    world = World(max_batched_tokens=101)
    one = world.send(prompt_of(100, "a"), output_tokens=4)
    two = world.send(prompt_of(200, "b"), at_s=0.05)
    world.clock.run()
    # step 1: a's 100 tokens. Steps 2 and 3: one token of a (0.11 s) with 100 tokens of b each. Step 4: a alone.
    assert world.tokens[one] == pytest.approx([0.1, 0.31, 0.52, 0.63])
    assert world.tokens[two] == pytest.approx([0.52])


def test_requests_of_one_batch_share_a_step() -> None:
    world = World()
    first, second = world.send(prompt_of(100, "a"), 2), world.send(prompt_of(300, "b"), 2)
    world.clock.run()
    # the first request starts alone; the second joins with the next step, beside a's decode
    assert world.tokens[first] == pytest.approx([0.1, 0.1 + 0.11 + 0.3])
    assert world.tokens[second] == pytest.approx([0.51, 0.51 + 0.11])


def test_least_loaded_instance_takes_the_next() -> None:
    world = World(instances=2)
    sent = [world.send(prompt_of(1000, name), at_s=at) for name, at in (("a", 0.0), ("b", 0.1), ("c", 1.05))]
    world.clock.run()
    assert [g.instance for g in sent] == [0, 1, 0]
    assert [world.tokens[g][0] for g in sent] == pytest.approx([1.0, 1.1, 2.05])


def test_g4_is_shared_and_the_path_is_not() -> None:
    world = World(instances=2)
    world.ttft_s(prompt_of(1600))
    start_s = world.clock.time()
    pair = [world.send(prompt_of(1600), at_s=start_s) for _ in range(2)]
    world.clock.run()
    assert {g.instance for g in pair} == {0, 1}
    assert [world.tokens[g][0] - start_s for g in pair] == pytest.approx([2.1, 2.1])


def test_onboardings_of_one_instance_use_the_path_one_after_another() -> None:
    world = World()
    world.ttft_s(prompt_of(1600))
    start_s = world.clock.time()
    pair = [world.send(prompt_of(1600), at_s=start_s) for _ in range(2)]
    world.clock.run()
    assert [world.tokens[g][0] - start_s for g in pair] == pytest.approx([0.5 + 1.584 + 0.016, 0.5 + 2 * 1.584 + 0.016])
    assert pair[1].path_s == pytest.approx(2 * 1.584)


def test_a_late_submission_starts_at_its_arrival() -> None:
    world = World()
    generation = world.send(prompt_of(100), at_s=1.0)
    generation.arrived_s = 0.9  # parsing took 0.1 s, which the modelled time contains
    world.clock.run()
    assert world.tokens[generation] == pytest.approx([1.0])


def test_off_reuses_nothing_and_still_counts_queries() -> None:
    world = World(cache=False, g1_bytes=10**9)
    for _ in range(2):
        assert world.ttft_s(prompt_of(100)) == pytest.approx(0.1)
    counts = world.engine.instances[0].counts
    assert (counts.local_queries, counts.external_queries, counts.prompt_tokens) == (200, 0, 200)
    assert (counts.local_hits, counts.external_hits, counts.computed_tokens) == (0, 0, 200)
    assert not world.files.on_disk


def test_g1_serves_before_g4_and_capacity_0_keeps_nothing() -> None:
    world = World(g1_bytes=10**9)
    world.ttft_s(prompt_of(160))
    assert world.ttft_s(prompt_of(160)) == pytest.approx(0.016)
    counts = world.engine.instances[0].counts
    assert (counts.local_hits, counts.external_hits) == (144, 0)
    assert world.engine.drop_memory()
    assert world.ttft_s(prompt_of(160)) == pytest.approx(0.5 + 0.144 + 0.016)
    assert World().engine.g1_used_bytes == 0


def test_g1_holds_a_prefix_and_g4_the_rest() -> None:
    world = World(g1_bytes=4 * 16_000)
    world.ttft_s(prompt_of(160))
    generation = world.send(prompt_of(160), at_s=world.clock.time())
    world.clock.run()
    assert (generation.local_tokens, generation.external_tokens) == (64, 80)


def test_only_loaded_blocks_are_hits() -> None:
    world = World()
    world.ttft_s(prompt_of(160))  # files of 4, 4 and 2 blocks
    world.files.bad[prompt_of(160).chain[64:80]] = "checksum"
    generation = world.send(prompt_of(160), at_s=world.clock.time())
    world.clock.run()
    assert generation.cached_tokens == 64
    assert world.engine.instances[0].counts.external_hits == 64
    assert world.g4.counts.bad_files["checksum"] == 1
    world.files.bad.clear()
    assert world.ttft_s(prompt_of(160)) == pytest.approx(0.5 + 0.144 + 0.016)  # it was written again


def test_nothing_loaded_costs_only_the_storage_time() -> None:
    world = World(storage_bytes_per_s=1e6)
    world.ttft_s(prompt_of(64))
    (file,) = world.files.on_disk.values()
    world.files.bad[file.key] = "missing"
    assert world.ttft_s(prompt_of(64)) == pytest.approx(file.size_bytes / 1e6 + 0.064)


def test_abort_frees_the_place_and_gives_no_more_tokens() -> None:
    world = World()
    gone = world.send(prompt_of(100, "a"), output_tokens=1000)
    stays = world.send(prompt_of(100, "b"), output_tokens=2)
    world.clock.call_at(0.15, world.engine.abort, gone)
    world.clock.run()
    assert len(world.tokens[gone]) == 1
    assert world.tokens[stays] == pytest.approx([0.31, 0.42])
    assert world.engine.unfinished == 0
    assert world.engine.instances[0].counts.finished["abort"] == 1


def test_abort_while_loading() -> None:
    world = World()
    world.ttft_s(prompt_of(160))
    gone = world.send(prompt_of(160), at_s=world.clock.time())
    world.clock.call_at(world.clock.time() + 0.1, world.engine.abort, gone)
    world.clock.run()
    assert world.tokens[gone] == []
    assert world.engine.unfinished == 0


def queue_behind_two(world: World) -> Generation:
    """Send a prompt that is in G1 behind two that need its room: one is in its steps, the other takes room next."""
    world.ttft_s(prompt_of(160, "w"))
    start_s = world.clock.time()
    world.send(prompt_of(192, "x"), at_s=start_s)  # three steps of 64 ms
    world.send(prompt_of(192, "y"), at_s=start_s + 0.001)
    return world.send(prompt_of(160, "w"), at_s=start_s + 0.002)


def test_what_a_waiting_request_has_found_is_not_dropped_before_its_first_step() -> None:
    """It is counted as a hit when the request arrives, and what others take meanwhile must not undo that."""
    world = World(g1_bytes=24 * BLOCK_BYTES, max_batched_tokens=64)
    waits, memory, seen = queue_behind_two(world), world.engine.instances[0].g1, []
    assert memory is not None
    for after_s in (0.003, 0.15, 0.25, 0.35):
        at_s = world.clock.time() + after_s
        world.clock.call_at(at_s, lambda: seen.append(memory.covered(waits.prompt.chain, 0, 9)))
    world.clock.run()
    assert waits.local_tokens == 9 * 16
    assert seen == [9, 9, 9, 9]
    assert memory.used_bytes <= 24 * BLOCK_BYTES


def test_an_aborted_request_lets_go_of_what_it_held_while_it_waited() -> None:
    world = World(g1_bytes=24 * BLOCK_BYTES, max_batched_tokens=64)
    gone, memory, seen = queue_behind_two(world), world.engine.instances[0].g1, []
    assert memory is not None
    world.clock.call_at(world.clock.time() + 0.1, world.engine.abort, gone)
    world.clock.call_at(world.clock.time() + 0.25, lambda: seen.append(memory.covered(gone.prompt.chain, 0, 9)))
    world.clock.run()
    assert seen == [0], "the second one took all room that was left"


def test_reset_is_refused_while_blocks_are_held() -> None:
    world = World()
    world.send(prompt_of(100))
    answers: list[bool] = []
    world.clock.call_at(0.05, lambda: answers.append(world.engine.drop_memory()))
    world.clock.call_at(0.2, lambda: answers.append(world.engine.drop_memory()))
    world.clock.run()
    assert answers == [False, True]


def test_many_requests_take_the_same_virtual_time_again() -> None:
    def simulate() -> tuple[float, list[float]]:
        world = World(instances=4, max_batched_tokens=2048)
        prompts = [prompt_of(480 + 16 * index, f"p{index:x}") for index in range(20)]
        sent = [world.send(prompts[index % 20], 8, at_s=0.2 * index) for index in range(2000)]
        world.clock.run()
        assert all(len(world.tokens[g]) == 8 for g in sent)
        return world.clock.time(), [world.tokens[g][0] for g in sent]

    assert simulate() == simulate()
