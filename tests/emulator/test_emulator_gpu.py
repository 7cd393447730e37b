from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from kvbench.emulator.gpu import Gpu
from kvbench.emulator.settings import DEFAULT_PROFILE, load_profile
from kvbench.emulator_profile import PROFILES
from kvbench.errors import ServerError
from tests.builders.virtual_world import ROUND_FIGURES

KV_BYTES = 73_728


def warm_ttft_s(gpu: Gpu, tokens: int, storage_s: float = 0.0) -> float:
    """TTFT of a single request whose blocks of 16 tokens are all in G4; the last one is computed again."""
    cached = (tokens - 1) // 16 * 16
    return gpu.onboard_fixed_s() + max(gpu.path_s(cached), storage_s) + gpu.prefill_s(cached, tokens)


@pytest.mark.parametrize(("tokens", "recompute_s", "warm_s"), [(10_000, 0.572, 0.193), (130_000, 32.14, 0.57)])
def test_profile_meets_the_published_ends(tokens: int, recompute_s: float, warm_s: float) -> None:
    gpu = Gpu(load_profile(DEFAULT_PROFILE).figures, KV_BYTES)
    assert gpu.prefill_s(0, tokens) == pytest.approx(recompute_s, abs=0.0005)
    assert warm_ttft_s(gpu, tokens) == pytest.approx(warm_s, abs=0.00005)


def test_time_scale_divides_everything() -> None:
    full, fast = Gpu(ROUND_FIGURES, KV_BYTES), Gpu(ROUND_FIGURES, KV_BYTES, 8.0)
    assert fast.prefill_s(0, 1000) == pytest.approx(full.prefill_s(0, 1000) / 8)
    assert warm_ttft_s(fast, 1000) == pytest.approx(warm_ttft_s(full, 1000) / 8)
    assert fast.decode_s(3) == pytest.approx(full.decode_s(3) / 8)


def test_storage_counts_only_beyond_the_path() -> None:
    gpu = Gpu(ROUND_FIGURES, 1000)
    alone = warm_ttft_s(gpu, 1600)  # 1,584 tokens cached: 0.5 + 1.584 + 16 tokens at 1 ms
    assert alone == pytest.approx(0.5 + 1.584 + 0.016)
    assert warm_ttft_s(gpu, 1600, storage_s=1.0) == alone
    assert warm_ttft_s(gpu, 1600, storage_s=2.0) == pytest.approx(0.5 + 2.0 + 0.016)


@given(st.lists(st.integers(0, 131_072), min_size=2, max_size=20))
def test_chunks_add_up_to_the_whole(cuts: list[int]) -> None:
    gpu = Gpu(load_profile(DEFAULT_PROFILE).figures, KV_BYTES)
    cuts = sorted(cuts)
    parts = sum(gpu.prefill_s(a, b) for a, b in pairwise(cuts))
    assert parts == pytest.approx(gpu.prefill_s(cuts[0], cuts[-1]))


def test_decode_needs_a_sequence() -> None:
    gpu = Gpu(ROUND_FIGURES, KV_BYTES)
    assert gpu.decode_s(0) == 0
    assert gpu.decode_s(2) == pytest.approx(0.12)


def test_each_figure_says_where_it_comes_from() -> None:
    for path in PROFILES.glob("*.yaml"):
        content = YAML(typ="safe").load(path)
        assert content["name"] == path.stem
        for figure in content["gpu"].values():
            assert figure["basis"] in ("fitted", "derived", "assumed")
            assert figure["from"]


def test_unknown_profile_names_the_known() -> None:
    with pytest.raises(ServerError) as caught:
        load_profile("nothing")
    assert DEFAULT_PROFILE in caught.value.remedy


def test_host_memory_has_its_own_figures_or_those_of_files() -> None:
    own = Gpu(ROUND_FIGURES, 1000)
    assert (own.onboard_fixed_s("g2"), own.path_s(1000, "g2")) == pytest.approx((0.05, 0.1))
    assert (own.onboard_fixed_s("g3"), own.path_s(1000, "g3")) == pytest.approx((0.5, 1.0))
    without = Gpu(replace(ROUND_FIGURES, host_fixed_s=None, host_path_bytes_per_s=None), 1000)
    assert (without.onboard_fixed_s("g2"), without.path_s(1000, "g2")) == pytest.approx((0.5, 1.0))


def test_a_local_disk_may_have_a_path_of_its_own() -> None:
    own = Gpu(replace(ROUND_FIGURES, g3_path_bytes_per_s=500_000.0), 1000, 4.0)
    assert [own.path_s(1000, tier) for tier in ("g2", "g3", "g4")] == pytest.approx([0.1 / 4, 2.0 / 4, 1.0 / 4])
    assert own.onboard_fixed_s("g3") == own.onboard_fixed_s("g4")
    shared = Gpu(ROUND_FIGURES, 1000)
    assert shared.path_s(1000, "g3") == shared.path_s(1000, "g4")


def test_the_shipped_local_drive_is_slower_than_the_port() -> None:
    """32,000 tokens of 327,680 bytes: 1.498 s from a drive of 7 GB/s, 0.839 s through a port of 12.5 GB/s."""
    gpu = Gpu(load_profile("llama-3-70b_4x-h100").figures, 327_680)
    assert gpu.path_s(32_000, "g3") == pytest.approx(1.49797, abs=1e-5)
    assert gpu.path_s(32_000, "g4") == pytest.approx(0.83886, abs=1e-5)
    ibm = Gpu(load_profile(DEFAULT_PROFILE).figures, KV_BYTES)
    assert ibm.path_s(32_000, "g3") == ibm.path_s(32_000, "g4")
