"""Collects what the chunks of one streamed answer contain, each with its time, and judges the answer.

Both drivers end here: the native one with the chunks that it read itself, AIPerf's with those of its raw export. So a
request has the same status and the same first token whoever sent it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kvbench.drivers.chunks import error_message
from kvbench.lenient_json import at, whole
from kvbench.result.records import Response

if TYPE_CHECKING:
    from kvbench.drivers.chunks import Chunk
    from kvbench.result.records import Request, Status
    from kvbench.typed_json import JsonObject

Ending = Literal["complete", "lost", "timeout", "cancelled"]

_ASKS_FOR_USAGE = b'"include_usage"'
_FAILED = {"error", "abort"}  # finish reasons by which vLLM and SGLang end an answer that they could not complete


@dataclass
class Transcript:
    """Takes chunks in their order; times are wall-clock nanoseconds."""

    first_token_ns: int | None = None
    first_content_ns: int | None = None
    last_token_ns: int | None = None
    error: str | None = None
    is_done: bool = False
    content: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    reported: JsonObject = field(default_factory=dict)

    def note(self, chunk: Chunk, arrived_ns: int) -> None:
        """Take one chunk; after a failure, and after `[DONE]`, nothing counts."""
        if self.error is not None or self.is_done:
            return
        if chunk.error is not None:
            self.error = chunk.error
            return
        self.is_done = chunk.is_done
        if chunk.has_token:
            self.first_token_ns = arrived_ns if self.first_token_ns is None else self.first_token_ns
            self.last_token_ns = arrived_ns
        self.token_ids += chunk.token_ids
        if chunk.content:
            self.first_content_ns = arrived_ns if self.first_content_ns is None else self.first_content_ns
            self.content.append(chunk.content)
        if chunk.model:
            self.reported["model"] = chunk.model
        if chunk.finish_reason:
            self.reported["finish_reason"] = chunk.finish_reason
        if chunk.usage:
            self.reported["usage"] = chunk.usage
        if chunk.server:
            self.reported["server"] = chunk.server

    def judge(
        self, request: Request | None, http_status: int | None, error_body: bytes, ending: Ending | None, why: str
    ) -> Outcome:
        """Name the outcome; `ok` needs a finish reason, the usage where the request asked for it, and `[DONE]`.

        The API closes a stream by `[DONE]`: without it nobody can tell whether the server had more to say.
        """
        if self.error is not None:
            return "stream_error", self.error
        if http_status is not None and http_status != 200:
            message = error_message(error_body)
            return "http_error", f"HTTP {http_status}" + (f": {message}" if message else "")
        reason = self.reported.get("finish_reason")
        if reason in _FAILED:
            return "stream_error", f"the server gave up: finish reason {reason!r}"
        if reason is not None and self.is_done:
            silent = request is not None and _ASKS_FOR_USAGE in request.body and "usage" not in self.reported
            return ("stream_error", "no usage came, although it was asked for") if silent else ("ok", None)
        match ending:
            case "timeout" | "cancelled" as status:
                return status, why
            case "complete":
                return "cut", f"the stream ended without {'[DONE]' if reason is not None else 'a finish reason'}"
            case _:
                return "cut", f"the connection ended before the answer was complete ({why})"

    def response(self, request_id: str, outcome: Outcome, **seen: Any) -> Response:
        """Return what was seen of a request; what came before a failure is kept."""
        usage = self.reported.get("usage")
        details = at(usage, "prompt_tokens_details")
        status, error = outcome
        return Response(
            request_id=request_id,
            status=status,
            error=error,
            first_token_ns=self.first_token_ns,
            first_content_ns=self.first_content_ns,
            last_token_ns=self.last_token_ns,
            isl=_count(usage, "prompt_tokens"),
            osl=_count(usage, "completion_tokens"),
            cached_tokens=_count(details, "cached_tokens"),
            finish_reason=at(self.reported, "finish_reason"),
            model=at(self.reported, "model"),
            text="".join(self.content),
            token_ids=tuple(self.token_ids),
            server=at(self.reported, "server") or {},
            **seen,
        )


Outcome = tuple["Status", str | None]


def _count(values: Any, key: str) -> int | None:
    return whole(at(values, key))
