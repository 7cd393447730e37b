"""What a client asks for: the JSON of a request, checked, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench.emulator.blocks import render_chat
from kvbench.lenient_json import at

if TYPE_CHECKING:
    from kvbench.typed_json import JsonObject


COMPLETION_TOKENS = 16  # the default of the completions API
CHAT_TOKENS = 128  # a chat answer has no default length; this one ends by itself after so many tokens


class ApiError(Exception):
    """An answer with an HTTP error and OpenAI's error body."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        """Keep what the body needs."""
        super().__init__(message)
        self.status = status
        self.param = param

    @property
    def body(self) -> JsonObject:
        """Return the error as vLLM writes it."""
        return {"error": {"message": str(self), "type": _TYPES[self.status], "param": self.param, "code": self.status}}


_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "BadRequestError",
    429: "RateLimitError",
    500: "InternalServerError",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation request. `source` is a text or token ids; `output_tokens` None lets the answer end by itself."""

    source: str | list[int]
    model: str | None
    chat: bool
    stream: bool = False
    include_usage: bool = False
    output_tokens: int | None = None
    with_ids: bool = False

    @property
    def answer_tokens(self) -> int:
        """How long the answer will be."""
        return self.output_tokens or (CHAT_TOKENS if self.chat else COMPLETION_TOKENS)

    @property
    def finish_reason(self) -> str:
        """Answers that were not given a length end because they are complete, as far as chat goes."""
        return "stop" if self.chat and self.output_tokens is None else "length"


def read_json(body: bytes) -> JsonObject:
    """Parse a body.

    Raises:
        ApiError: 400, it is no JSON object.

    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object")
    return value


def read_ask(value: JsonObject, *, chat: bool) -> Ask:
    """Check a request for a completion or a chat answer.

    Raises:
        ApiError: 400, with the parameter that is wrong.

    """
    if value.get("n", 1) not in (1, None):
        raise ApiError(400, "only n = 1 is served", "n")
    options = value.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, "stream_options is not an object", "stream_options")
    return Ask(
        source=read_messages(value) if chat else read_prompt(value),
        model=at(value, "model"),
        chat=chat,
        stream=bool(value.get("stream")),
        include_usage=bool(options.get("include_usage")),
        output_tokens=_output_tokens(value),
        with_ids=bool(value.get("return_token_ids")),
    )


def _output_tokens(value: JsonObject) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        count = value.get(name)
        if count is None:
            continue
        if type(count) is not int or count < 1:
            raise ApiError(400, f"{name} must be a whole number of at least 1, got {count!r}", name)
        return count
    return None


def read_prompt(value: JsonObject) -> str | list[int]:
    """Return a text or a list of token ids from `prompt`, which may be wrapped in a list of one.

    Raises:
        ApiError: 400, it is neither.

    """
    prompt: Any = value.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and type(prompt[0]) is int):
        return prompt
    raise ApiError(400, "prompt must be one text or one list of token ids", "prompt")


def read_messages(value: JsonObject) -> str:
    """Return the chat template filled with `messages`.

    Raises:
        ApiError: 400, a message lacks its role or its text.

    """
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list of at least one message", "messages")
    return render_chat([_read_message(message) for message in messages])


def _read_message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ApiError(400, "a message must be an object with a role", "messages")
    content = message.get("content")
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str | None):
        raise ApiError(400, "the content of a message must be text", "messages")
    return message["role"], content or ""
