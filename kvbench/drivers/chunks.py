"""One streamed chunk of an OpenAI-compatible answer: does it carry a token, and what else does it say?

A token is any non-empty text on any channel: the answer, the reasoning, a refusal or a tool call. Chunks that only name
the role, and chunks whose text is empty, carry none: servers send them before the first token exists.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvbench.lenient_json import parse

if TYPE_CHECKING:
    from kvbench.drivers.sse import Event
    from kvbench.typed_json import JsonObject

_OTHER_CHANNELS = ("reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")


@dataclass(slots=True)
class Chunk:
    """What one event says; `error` is set where it reports a failure or cannot be read.

    `has_choices` tells an event of the Completions APIs from one of another API. Nobody changes a chunk that was read;
    it is not frozen because that makes it four times as slow to make, and a raw export holds very many.
    """

    content: str = ""
    has_token: bool = False
    has_choices: bool = False
    token_ids: tuple[int, ...] = ()
    is_done: bool = False
    finish_reason: str | None = None
    model: str | None = None
    error: str | None = None
    usage: JsonObject = field(default_factory=dict)
    server: JsonObject = field(default_factory=dict)


def read_chunk(event: Event) -> Chunk:
    """Read one event of a stream."""
    return read_data(event.name, event.data)


def read_data(name: str, data: bytes) -> Chunk:
    """Read the name and the data of one event of a stream."""
    if data.strip() == b"[DONE]":
        return Chunk(is_done=True)
    value = parse(data)
    if name == "error" or (isinstance(value, dict) and (value.get("error") or value.get("object") == "error")):
        return Chunk(error=error_message(data))
    if not isinstance(value, dict):
        return Chunk(error=f"malformed JSON in the stream: {_shorten(data.decode(errors='replace'))}")
    return _read_object(value)


def _read_object(value: JsonObject) -> Chunk:
    chunk = Chunk(model=_text(value.get("model")) or None)
    if "usage" in value:
        chunk.usage = _object(value["usage"])
    if "kvbench" in value:
        chunk.server = _object(value["kvbench"])
    choices = value.get("choices")
    if isinstance(choices, list):
        chunk.has_choices = True
        for number, choice in enumerate(choices):
            if isinstance(choice, dict):
                _read_choice(choice, chunk)
                if number == 0 and "token_ids" in choice:
                    chunk.token_ids = _ids(choice["token_ids"])
    return chunk


def _read_choice(choice: JsonObject, chunk: Chunk) -> None:
    """Add what one choice says to its chunk."""
    delta = choice.get("delta")
    content = _text(choice["text"]) if "text" in choice else ""
    if isinstance(delta, dict):
        content += _text(delta.get("content"))
        chunk.has_token = chunk.has_token or any(map(delta.get, _OTHER_CHANNELS))
    if content:
        chunk.content += content
        chunk.has_token = True
    chunk.finish_reason = chunk.finish_reason or _text(choice.get("finish_reason")) or None


def error_message(body: bytes) -> str:
    """Return the message inside an error body, or the body itself, shortened.

    Knows `{"error": {"message": ...}}`, `{"error": "..."}`, `{"message": ...}` and `{"detail": ...}`.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return _shorten(body.decode(errors="replace"))
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return _shorten(value if isinstance(value, str) else json.dumps(value))


def _shorten(text: str, length: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _ids(value: Any) -> tuple[int, ...]:
    """Return the token ids that vLLM adds to a choice where a request asks for them (`return_token_ids`)."""
    return tuple(one for one in value if isinstance(one, int)) if isinstance(value, list) else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
