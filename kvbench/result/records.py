"""The plain values that go from the load driver to the files: requests, responses and rows.

A `Request` is what a driver is asked to send, a `Response` what it saw, and a `Row` is one line of `requests.jsonl`:
the response with the place it has in the plan and the tier that was proven for it.
All `*_ns` are wall-clock nanoseconds anchored to the monotonic clock, all `*_s` seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeVar

    from kvbench.typed_json import JsonObject

    _Number = TypeVar("_Number", int, float)

SCHEMA_VERSION = 2
READ_VERSIONS = (1, 2)

Phase = Literal["warmup", "probe", "prime", "measure"]
Status = Literal["ok", "http_error", "stream_error", "cut", "timeout", "refused", "cancelled"]
Tier = Literal["recompute", "g1", "g2", "g3", "g4", "mixed", "unproven"]
Bound = Literal["exact", "upper"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call, ready to be sent: `body` is the JSON exactly as it goes on the wire.

    In an open loop it is due `due_s` after the load begins.
    """

    request_id: str
    prompt_id: str
    phase: Phase
    isl_target: int
    body: bytes
    conversation_id: str | None = None
    turn: int = 0
    due_s: float | None = None


Conversation = Generator["Request", "Response | None", None]
"""Gives the request of each turn, and is sent the answer to it before the next."""


def alone(request: Request) -> Conversation:
    """Return the conversation of one request."""
    yield request


@dataclass(frozen=True, slots=True)
class Response:
    """What a driver saw of one request.

    `first_token_ns` is the first token on any channel (reasoning too; role-only and empty chunks never count) and
    `first_content_ns` the first token of the answer itself. `ttft_bound` is `upper` where the kernel's stamp may belong
    to a later chunk of the same read. `receive_lag_s` is how much later than the kernel user space saw the first token.
    What the server did not report is None, never 0. `server` keeps what the server says about its own timing.
    """

    request_id: str
    status: Status
    scheduled_ns: int
    sent_ns: int | None = None
    first_token_ns: int | None = None
    first_content_ns: int | None = None
    last_token_ns: int | None = None
    ttft_bound: Bound | None = None
    receive_lag_s: float | None = None
    isl: int | None = None
    osl: int | None = None
    cached_tokens: int | None = None
    http_status: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    text: str = ""
    token_ids: tuple[int, ...] = ()
    server: JsonObject = field(default_factory=dict)

    @property
    def answer_hash(self) -> str | None:
        """A short hash of the answer: of its token ids where the server sent them, else of its text."""
        if self.status != "ok":
            return None
        said = repr(self.token_ids) if self.token_ids else self.text
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def ttft_s(self) -> float | None:
        """First token on any channel minus send."""
        return _span_s(self.sent_ns, self.first_token_ns)

    @property
    def ttft_content_s(self) -> float | None:
        """First token of the answer minus send."""
        return _span_s(self.sent_ns, self.first_content_ns)

    @property
    def latency_s(self) -> float | None:
        """Last token minus send; only for an answer that came whole."""
        return _span_s(self.sent_ns, self.last_token_ns) if self.status == "ok" else None

    @property
    def tpot_s(self) -> float | None:
        """Formula: (latency - TTFT) / (osl - 1); none below two output tokens. AIPerf calls it ITL."""
        if self.latency_s is None or self.ttft_s is None or not self.osl or self.osl < 2:
            return None
        return (self.latency_s - self.ttft_s) / (self.osl - 1)

    @property
    def send_lag_s(self) -> float | None:
        """How much later than scheduled the first byte was handed to the kernel."""
        return _span_s(self.scheduled_ns, self.sent_ns)


def _span_s(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """One request of one run, as it stands in `requests.jsonl` and `requests.parquet`.

    `isl_target` and `scheduled_ns` are None only where another tool sent the request and nobody told us.
    """

    run_id: str
    attempt: int
    treatment: str
    repeat: int
    phase: Phase
    request_id: str
    prompt_id: str
    conversation_id: str | None
    turn: int
    isl_target: int | None
    isl: int | None
    osl: int | None
    cached_tokens: int | None
    scheduled_ns: int | None
    sent_ns: int | None
    first_token_ns: int | None
    last_token_ns: int | None
    ttft_s: float | None
    ttft_content_s: float | None
    ttft_bound: Bound | None
    tpot_s: float | None
    latency_s: float | None
    send_lag_s: float | None
    receive_lag_s: float | None
    status: Status
    error: str | None
    http_status: int | None
    tier: Tier | None
    driver: str
    tier_evidence: str | None = None
    answer_hash: str | None = None
    answers_match: bool | None = None
    model: str | None = None
    server_overrun_s: float | None = None
    server_storage_s: float | None = None
    server_path_s: float | None = None
    server_read_bytes: int | None = None
    server_first_chunk_ns: int | None = None

    @property
    def length(self) -> int | None:
        """The prompt length that its figures stand under: the planned one; the counted one where nobody planned."""
        return self.isl if self.isl_target is None else self.isl_target

    def to_json(self) -> JsonObject:
        """Return the row as plain JSON values."""
        return {name: getattr(self, name) for name in ROW_FIELDS}

    @classmethod
    def from_json(cls, value: JsonObject) -> Row:
        """Read a row back; fields that a later version added are left out."""
        known: dict[str, Any] = {name: value[name] for name in ROW_FIELDS if name in value}
        return cls(**known)


ROW_FIELDS = tuple(f.name for f in fields(Row))


def sum_of_all(values: Iterable[_Number | None]) -> _Number | None:
    """Return the sum, or None where one value is missing or there is none: a sum of some would pass for that of all."""
    known = list(values)
    told = [value for value in known if value is not None]
    return sum(told[1:], told[0]) if told and len(told) == len(known) else None
