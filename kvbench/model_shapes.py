"""Computes how many bytes of KV cache one token of a model takes.

Formula: each attention layer keeps one key and one value vector per KV head, so a token takes
`2 * kv_heads * head_dim * dtype_bytes` bytes in each layer that keeps it. Layers with a sliding window keep only the
last `window` tokens, and linear-attention or state-space layers keep nothing per token (their state has a fixed size).
Field names are those of Hugging Face `config.json` files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench.lenient_json import at

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.typed_json import JsonObject

_DTYPE_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "fp8": 1,
    "int8": 1,
}
_LINEAR = ("linear_attention", "mamba", "mamba2", "recurrent", "conv", "ssm")


@dataclass(frozen=True)
class ModelShape:
    """What decides the size of a model's KV cache.

    `full_layers` keep every token, `sliding_layers` the last `window` tokens; layers without per-token state do not
    count. `latent_dim` is set for multi-head latent attention, where a layer keeps one vector of this length.
    """

    name: str
    full_layers: int
    kv_heads: int
    head_dim: int
    dtype_bytes: int = 2
    sliding_layers: int = 0
    window: int = 0
    latent_dim: int = 0
    max_context: int = 0

    @property
    def layer_bytes(self) -> int:
        """Bytes that one layer keeps for one token."""
        values = self.latent_dim or 2 * self.kv_heads * self.head_dim
        return values * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes per token where every attention layer keeps every token, as offloading engines store it."""
        return (self.full_layers + self.sliding_layers) * self.layer_bytes

    @property
    def kv_bytes_per_token_full_layers(self) -> int:
        """Bytes that each further token adds once the sliding windows are full."""
        return self.full_layers * self.layer_bytes

    def kv_bytes(self, tokens: int) -> int:
        """Bytes for a context of `tokens` tokens where sliding-window layers keep only their window."""
        kept = min(tokens, self.window) if self.window else tokens
        return (self.full_layers * tokens + self.sliding_layers * kept) * self.layer_bytes


KNOWN_SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape("gpt-oss-120b", 18, 8, 64, sliding_layers=18, window=128, max_context=131_072),
        ModelShape("gpt-oss-20b", 12, 8, 64, sliding_layers=12, window=128, max_context=131_072),
        ModelShape("llama-3-8b", 32, 8, 128, max_context=131_072),
        ModelShape("llama-3-70b", 80, 8, 128, max_context=131_072),
    )
}


def shape_of(name: str) -> ModelShape:
    """Find a shape by the model's name, with or without its organisation and size suffixes.

    Raises:
        KeyError: the name is not among `KNOWN_SHAPES`; the message lists them.

    """
    plain = (
        name.rsplit("/", 1)[-1].lower().replace("meta-", "").replace("llama-3.1", "llama-3").removesuffix("-instruct")
    )
    if plain not in KNOWN_SHAPES:
        raise KeyError(f"{name} is not a model whose shape is known; known are {', '.join(sorted(KNOWN_SHAPES))}")
    return KNOWN_SHAPES[plain]


def shape_from_config(config: JsonObject, name: str = "model", kv_dtype: str | None = None) -> ModelShape:
    """Read a shape from the content of a Hugging Face `config.json`.

    `kv_dtype` overrides the weights' type, for engines that keep KV in another one (vLLM `--kv-cache-dtype fp8`).

    Raises:
        ValueError: a needed field is missing, or the dtype is not known.

    """
    config = at(config, "text_config") or config
    try:
        layers, heads = _needed(config, "num_hidden_layers"), _needed(config, "num_attention_heads")
        head_dim = int(at(config, "head_dim") or _needed(config, "hidden_size") // heads)
    except KeyError as missing:
        raise ValueError(f"config.json of {name} has no {missing}") from None
    dtype = (kv_dtype or at(config, "dtype") or at(config, "torch_dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPE_BYTES:
        raise ValueError(f"dtype {dtype} of {name} is not known; known are {', '.join(_DTYPE_BYTES)}")
    full, sliding = _count_layers(config, layers)
    latent = int(at(config, "kv_lora_rank") or 0) + int(at(config, "qk_rope_head_dim") or 0)
    return ModelShape(
        name=name,
        full_layers=full,
        sliding_layers=sliding,
        window=int(at(config, "sliding_window") or 0) if sliding else 0,
        kv_heads=int(at(config, "num_key_value_heads") or heads),
        head_dim=head_dim,
        dtype_bytes=_DTYPE_BYTES[dtype],
        latent_dim=latent if at(config, "kv_lora_rank") else 0,
        max_context=int(at(config, "max_position_embeddings") or 0),
    )


def _needed(config: JsonObject, name: str) -> int:
    """Return a whole number; KeyError where it is missing."""
    value: Any = config[name]
    return int(value)


def _count_layers(config: JsonObject, layers: int) -> tuple[int, int]:
    """Return how many layers keep all tokens and how many only a window of them."""
    kinds = at(config, "layer_types") or at(config, "layers_block_type")
    if kinds:
        sliding = sum("sliding" in kind or "chunked" in kind for kind in kinds)
        stateless = sum(any(word in kind for word in _LINEAR) for kind in kinds)
        return len(kinds) - sliding - stateless, sliding
    if pattern := at(config, "sliding_window_pattern"):  # Gemma: every n-th layer is full
        return layers // int(pattern), layers - layers // int(pattern)
    if at(config, "sliding_window") and config.get("use_sliding_window", True):
        return 0, layers
    return layers, 0


def load_shape(path: Path, kv_dtype: str | None = None) -> ModelShape:
    """Read a shape from a `config.json` file or from the model folder that holds it.

    Raises:
        ValueError: the file is not a usable config.json.
        OSError: the file cannot be read.

    """
    file = path / "config.json" if path.is_dir() else path
    return shape_from_config(json.loads(file.read_text()), file.parent.name, kv_dtype)
