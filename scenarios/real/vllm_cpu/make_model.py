"""Make a small random-weight Llama: config, byte-level tokenizer, chat template and saved weights.

Runs in vLLM's environment. 25.7 M parameters, 8,192 bytes of KV cache a token in bfloat16. The weights are saved,
and of the scale that a trained model has (deviation 1 / sqrt(fan in), embeddings 1), because the tiny weights that
engines make up by themselves give answers that hardly depend on the context: a wrong KV cache would go unseen.

    python make_model.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE, CONTEXT, VOCABULARY = 512, 8, 8, 4, 1536, 40_960, 512
HEAD_DIM = HIDDEN // HEADS
SPECIAL = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
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


def main(folder: Path) -> None:
    """Write all files; the same weights every time."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "do_sample": False})
    write_json(folder / "config.json", CONFIG)  # last: its presence says that the folder is whole


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer without merges: one token a byte, so any text can be sent."""
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1]}
    settings |= {"pad_token": SPECIAL[1], "model_max_length": CONTEXT, "chat_template": TEMPLATE}
    write_json(folder / "tokenizer_config.json", settings)


def weights() -> dict[str, torch.Tensor]:
    """Return all weights by their names in the Llama architecture."""
    generator = torch.Generator().manual_seed(1)

    def normal(rows: int, columns: int, deviation: float) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * deviation).to(torch.bfloat16)

    def linear(rows: int, columns: int) -> torch.Tensor:
        return normal(rows, columns, columns**-0.5)

    made = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN, 1.0), "lm_head.weight": linear(VOCABULARY, HIDDEN)}
    made["model.norm.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        made[f"{name}.input_layernorm.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
        made[f"{name}.post_attention_layernorm.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
        made[f"{name}.self_attn.q_proj.weight"] = linear(HEADS * HEAD_DIM, HIDDEN)
        made[f"{name}.self_attn.k_proj.weight"] = linear(KV_HEADS * HEAD_DIM, HIDDEN)
        made[f"{name}.self_attn.v_proj.weight"] = linear(KV_HEADS * HEAD_DIM, HIDDEN)
        made[f"{name}.self_attn.o_proj.weight"] = linear(HIDDEN, HEADS * HEAD_DIM)
        made[f"{name}.mlp.gate_proj.weight"] = linear(INTERMEDIATE, HIDDEN)
        made[f"{name}.mlp.up_proj.weight"] = linear(INTERMEDIATE, HIDDEN)
        made[f"{name}.mlp.down_proj.weight"] = linear(HIDDEN, INTERMEDIATE)
    return made


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
