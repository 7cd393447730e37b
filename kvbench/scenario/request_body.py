"""Writes the bodies of requests, for the two routes of OpenAI's API: completions and chat."""

from __future__ import annotations

import itertools
import json
from typing import Any

Prompt = str | list[int] | tuple[str, ...]
"""A text, token ids, or the texts of a conversation: the user's and the model's in turn, the user's last."""


def prompt_fields(prompt: Prompt, api: str) -> dict[str, Any]:
    """Return the field of a body that carries a prompt: messages of user and model in turn, or one text."""
    said = prompt if isinstance(prompt, tuple) else (prompt,)
    if api != "chat":
        return {"prompt": " ".join(prompt) if isinstance(prompt, tuple) else prompt}
    roles = itertools.cycle(("user", "assistant"))
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]}


def request_body(
    model: str, api: str, prompt: Prompt, output_tokens: int, temperature: float = 0, *, with_ids: bool = False
) -> bytes:
    """Return the JSON body of one streaming request that must give exactly `output_tokens` tokens.

    `with_ids` asks for the token ids of the answer, as vLLM offers them.
    """
    body: dict[str, Any] = {"model": model}
    body |= prompt_fields(prompt, api)
    body["max_completion_tokens" if api == "chat" else "max_tokens"] = output_tokens
    body |= {"temperature": temperature, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    if with_ids:
        body["return_token_ids"] = True
    return json.dumps(body, separators=(",", ":")).encode()
