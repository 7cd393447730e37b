"""KV bytes per token, against figures that can be computed by hand from public model configurations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import model_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

GPT_OSS_120B: dict[str, Any] = {
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_size": 2880,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "max_position_embeddings": 131_072,
    "torch_dtype": "bfloat16",
}
LLAMA_3_8B: dict[str, Any] = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("name", "per_token", "full_layers_only"),
    [
        ("gpt-oss-120b", 73_728, 36_864),  # 2 x 36 x 8 x 64 x 2, and 18 full layers of the 36
        ("openai/gpt-oss-120b", 73_728, 36_864),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 131_072, 131_072),  # 2 x 32 x 8 x 128 x 2
        ("Llama-3.1-70B", 327_680, 327_680),  # 2 x 80 x 8 x 128 x 2
    ],
)
def test_known_models(name: str, per_token: int, full_layers_only: int) -> None:
    shape = model_shapes.shape_of(name)
    assert shape.kv_bytes_per_token == per_token
    assert shape.kv_bytes_per_token_full_layers == full_layers_only


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="gpt-oss-120b"):
        model_shapes.shape_of("nobody/knows-this")


def test_hybrid_layers_from_a_config() -> None:
    shape = model_shapes.shape_from_config(GPT_OSS_120B, "gpt-oss-120b")
    assert shape == model_shapes.shape_of("gpt-oss-120b")


def test_sliding_layers_stop_growing_at_their_window() -> None:
    shape = model_shapes.shape_from_config(GPT_OSS_120B)
    assert shape.kv_bytes(100) == 100 * 73_728
    assert shape.kv_bytes(1000) == 1000 * 36_864 + 128 * 36_864
    assert shape.kv_bytes(1001) - shape.kv_bytes(1000) == shape.kv_bytes_per_token_full_layers


def test_grouped_query_attention_with_the_head_size_from_the_hidden_size() -> None:
    assert model_shapes.shape_from_config(LLAMA_3_8B).kv_bytes_per_token == 131_072


def test_multi_head_attention_counts_every_head() -> None:
    config = {name: value for name, value in LLAMA_3_8B.items() if name != "num_key_value_heads"}
    assert model_shapes.shape_from_config(config).kv_bytes_per_token == 4 * 131_072


def test_fp8_halves_it() -> None:
    assert model_shapes.shape_from_config(LLAMA_3_8B, kv_dtype="fp8").kv_bytes_per_token == 65_536


def test_a_window_over_all_layers() -> None:
    shape = model_shapes.shape_from_config({**LLAMA_3_8B, "sliding_window": 4096})
    assert shape.kv_bytes_per_token == 131_072
    assert shape.kv_bytes(10_000) == shape.kv_bytes(4096)


def test_every_sixth_layer_full() -> None:
    shape = model_shapes.shape_from_config({**LLAMA_3_8B, "sliding_window": 512, "sliding_window_pattern": 6})
    assert (shape.full_layers, shape.sliding_layers) == (5, 27)


def test_linear_attention_layers_keep_nothing_per_token() -> None:
    kinds: list[JsonValue] = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    assert model_shapes.shape_from_config({**LLAMA_3_8B, "layer_types": kinds * 8}).kv_bytes_per_token == 131_072 // 4


def test_latent_attention_keeps_one_vector() -> None:
    config = {**LLAMA_3_8B, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert model_shapes.shape_from_config(config).kv_bytes_per_token == 32 * 576 * 2


@pytest.mark.parametrize("field", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        model_shapes.shape_from_config({name: value for name, value in LLAMA_3_8B.items() if name != field})


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ValueError, match="int3"):
        model_shapes.shape_from_config({**LLAMA_3_8B, "torch_dtype": "int3"})


def test_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": LLAMA_3_8B}))
    assert model_shapes.load_shape(tmp_path).kv_bytes_per_token == 131_072
