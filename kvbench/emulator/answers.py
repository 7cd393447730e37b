"""What goes back to a client: bodies and server-sent events in OpenAI's form, with vLLM's details."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.typed_json import JsonObject


DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Timing:
    """What the emulator says of its own timing, in the object `kvbench` beside `usage`.

    `overrun_s` is how much later than modelled the first chunk with a token was sent. `path_s` is the modelled
    transfer with its wait for the path, `storage_s` the measured reads; TTFT contains the longer of the two.
    `tier_tokens` are the cached tokens by tier, `tier_read_bytes` those of files.
    """

    arrived_ns: int
    first_chunk_sent_ns: int
    modelled_ttft_s: float
    overrun_s: float
    storage_s: float
    path_s: float
    tier_read_bytes: int
    tier_tokens: dict[str, int]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; `cached_tokens` None leaves the detail out."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None

    def to_json(self) -> JsonObject:
        """Return the object that OpenAI calls usage."""
        value: JsonObject = {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.cached_tokens is not None:
            value["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        return value


class Writing:
    """Turns the words of one answer into chunks; what all chunks share is written once."""

    def __init__(self, model: str, *, chat: bool) -> None:
        """Give the answer its id."""
        self._chat = chat
        self._model = model
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        shared = json.dumps(self._head("chat.completion.chunk" if chat else "text_completion"))
        self._prefix = f"data: {shared[:-1]}, ".encode()

    def _head(self, kind: str) -> JsonObject:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _event(self, rest: str) -> bytes:
        return self._prefix + rest.encode() + b"}\n\n"

    def role(self, *, alone: bool = False) -> bytes:
        """Return the chunk that opens a chat stream and holds no token; `alone` leaves the content out altogether."""
        delta = '{"role": "assistant"}' if alone else '{"role": "assistant", "content": ""}'
        return self._event(f'"choices": [{{"index": 0, "delta": {delta}, "logprobs": null, "finish_reason": null}}]')

    def word(self, text: str, finish_reason: str | None = None, token_id: int | None = None) -> bytes:
        """Return the chunk of one token; `text` needs no escaping, and `token_id` is there only if it was asked for."""
        end = "null" if finish_reason is None else f'"{finish_reason}"'
        body = f'"delta": {{"content": "{text}"}}' if self._chat else f'"text": "{text}"'
        ids = "" if token_id is None else f', "token_ids": [{token_id}]'
        return self._event(f'"choices": [{{"index": 0, {body}, "logprobs": null, "finish_reason": {end}{ids}}}]')

    def usage(self, usage: Usage, timing: Timing) -> bytes:
        """Return the chunk without choices that closes a stream."""
        return self._event(
            f'"choices": [], "usage": {json.dumps(usage.to_json())}, "kvbench": {json.dumps(asdict(timing))}'
        )

    def whole(self, text: str, finish_reason: str, ids: list[int] | None = None) -> JsonObject:
        """Return the body of an answer that is not streamed, without usage."""
        content: JsonObject = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice: JsonObject = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        if ids is not None:
            choice["token_ids"] = [*ids]
        return {**self._head("chat.completion" if self._chat else "text_completion"), "choices": [choice]}


def error_event(body: JsonObject) -> bytes:
    """Return an error inside a stream, as vLLM sends it."""
    return f"data: {json.dumps(body)}\n\n".encode()
