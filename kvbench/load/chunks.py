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
    from kvbench.load.sse import Event

_OTHER_CHANNELS = ("reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event says; `error` is set where it reports a failure or cannot be read.

    `has_choices` tells an event of the Completions APIs from one of another API.
    """

    content: str = ""
    has_token: bool = False
    has_choices: bool = False
    token_ids: tuple[int, ...] = ()
    is_done: bool = False
    finish_reason: str | None = None
    model: str | None = None
    error: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)


def read_chunk(event: Event) -> Chunk:
    """Read one event of a stream."""
    if event.data.strip() == b"[DONE]":
        return Chunk(is_done=True)
    value = parse(event.data)
    if event.name == "error" or (isinstance(value, dict) and (value.get("error") or value.get("object") == "error")):
        return Chunk(error=error_message(event.data))
    if not isinstance(value, dict):
        return Chunk(error=f"malformed JSON in the stream: {_shorten(event.data.decode(errors='replace'))}")
    return _read_object(value)


def _read_object(value: dict[str, Any]) -> Chunk:
    choices = value.get("choices")
    listed = [_object(one) for one in choices] if isinstance(choices, list) else []
    deltas = [_object(choice.get("delta")) for choice in listed]
    content = "".join(
        _text(choice.get("text")) + _text(delta.get("content")) for choice, delta in zip(listed, deltas, strict=True)
    )
    return Chunk(
        content=content,
        token_ids=_ids(listed[0].get("token_ids")) if listed else (),
        has_token=bool(content) or any(delta.get(channel) for delta in deltas for channel in _OTHER_CHANNELS),
        has_choices=isinstance(choices, list),
        finish_reason=next((reason for choice in listed if (reason := _text(choice.get("finish_reason")))), None),
        model=_text(value.get("model")) or None,
        usage=_object(value.get("usage")),
        server=_object(value.get("kvbench")),
    )


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


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _ids(value: Any) -> tuple[int, ...]:
    """Return the token ids that vLLM adds to a choice where a request asks for them (`return_token_ids`)."""
    return tuple(one for one in value if isinstance(one, int)) if isinstance(value, list) else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
