"""Make a small random-weight Llama: config, byte-level tokenizer, chat template and saved weights.

Runs in vLLM's environment. 25.7 M parameters, 8,192 bytes of KV cache a token in bfloat16. The weights are saved,
and of the scale that a trained model has (deviation 1 / sqrt(fan in), embeddings 1), because the tiny weights that
engines make up by themselves give answers that hardly depend on the context: a wrong KV cache would go unseen.

    python make_model.py FOLDER [--shape 8b --without-weights]

Shape 8b is that of an 8B-class model with 8 KV heads (131,072 bytes of KV a token), 8b-2kv the same with 2 (32,768).
Their timings are right with the made-up weights that an engine gives itself (`--load-format dummy`), so they can be had
without weights; their answers then mean nothing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCABULARY = 512


@dataclass(frozen=True)
class Shape:
    """The sizes of a dense Llama."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    context: int

    @property
    def head_dim(self) -> int:
        """Values of one head."""
        return self.hidden // self.heads


SHAPES = {
    "26m": Shape(512, 8, 8, 4, 1536, 40_960),
    "8b": Shape(4096, 32, 32, 8, 14_336, 131_072),
    "8b-2kv": Shape(4096, 32, 32, 2, 14_336, 131_072),
}
SPECIAL = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> None:
    """Write all files; the same weights every time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="26m")
    parser.add_argument("--without-weights", action="store_true")
    given = parser.parse_args()
    shape, folder = SHAPES[given.shape], given.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, shape)
    if not given.without_weights:
        save_file(weights(shape), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "do_sample": False})
    write_json(folder / "config.json", config(shape))  # last: its presence says that the folder is whole


def config(shape: Shape) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "attention_bias": False,
        "mlp_bias": False,
    }


def write_tokenizer(folder: Path, shape: Shape) -> None:
    """Write a byte-level tokenizer without merges: one token a byte, so any text can be sent."""
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1]}
    settings |= {"pad_token": SPECIAL[1], "model_max_length": shape.context, "chat_template": TEMPLATE}
    write_json(folder / "tokenizer_config.json", settings)


def weights(shape: Shape) -> dict[str, torch.Tensor]:
    """Return all weights by their names in the Llama architecture."""
    generator = torch.Generator().manual_seed(1)

    def normal(rows: int, columns: int, deviation: float) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * deviation).to(torch.bfloat16)

    def linear(rows: int, columns: int) -> torch.Tensor:
        return normal(rows, columns, columns**-0.5)

    hidden, inner, head_dim = shape.hidden, shape.intermediate, shape.head_dim
    made = {"model.embed_tokens.weight": normal(VOCABULARY, hidden, 1.0), "lm_head.weight": linear(VOCABULARY, hidden)}
    made["model.norm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        made[f"{name}.input_layernorm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        made[f"{name}.post_attention_layernorm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        made[f"{name}.self_attn.q_proj.weight"] = linear(shape.heads * head_dim, hidden)
        made[f"{name}.self_attn.k_proj.weight"] = linear(shape.kv_heads * head_dim, hidden)
        made[f"{name}.self_attn.v_proj.weight"] = linear(shape.kv_heads * head_dim, hidden)
        made[f"{name}.self_attn.o_proj.weight"] = linear(hidden, shape.heads * head_dim)
        made[f"{name}.mlp.gate_proj.weight"] = linear(inner, hidden)
        made[f"{name}.mlp.up_proj.weight"] = linear(inner, hidden)
        made[f"{name}.mlp.down_proj.weight"] = linear(hidden, inner)
    return made


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
