"""What a server can do wrong, once for both drivers: the pieces that it sends, and the status that must come of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.result.records import Request
from tests.builders.fault_server import (
    DONE,
    FINISH,
    HEAD,
    NORMAL,
    Call,
    chunk,
    event,
    plain,
    stream,
    text_event,
    usage_event,
)

if TYPE_CHECKING:
    from kvbench.result.records import Status


@dataclass(frozen=True)
class Fault:
    """`pieces` are sent; then the connection stays as it is, is closed, or hangs."""

    status: Status
    pieces: tuple[bytes, ...]
    then: str = ""


HELLO = text_event("Hello")
FAULTS = {
    "http-500": Fault("http_error", (plain("500 Internal Server Error", b'{"error":{"message":"boom"}}'),)),
    "http-429": Fault("http_error", (plain("429 Too Many Requests", b'{"error":{"message":"slow down"}}'),)),
    "cut": Fault("cut", (HEAD, chunk(HELLO), chunk(text_event(" wo"))), "close"),
    "closed-at-once": Fault("cut", (), "close"),
    "error-chunk": Fault("stream_error", (stream(HELLO, event({"error": {"message": "engine died"}}), DONE),)),
    "error-chunk-after-the-end": Fault(
        "stream_error", (stream(HELLO, FINISH, event({"error": {"message": "late"}}), usage_event(), DONE),)
    ),
    "malformed": Fault("stream_error", (stream(HELLO, b"data: {oops\n\n", FINISH, usage_event(), DONE),)),
    "given-up": Fault("stream_error", (stream(HELLO, text_event("", "abort"), usage_event(), DONE),)),
    "no-stream": Fault("stream_error", (plain("200 OK", json.dumps({"choices": [{"text": "x"}]}).encode()),)),
    "no-usage": Fault("stream_error", (stream(HELLO, FINISH, DONE),)),
    "no-done": Fault("cut", (stream(HELLO, FINISH, usage_event()),)),
    "no-finish-reason": Fault("cut", (stream(HELLO, usage_event(), DONE),)),
    "hang-before-headers": Fault("timeout", (), "hang"),
    "hang-after-headers": Fault("timeout", (HEAD,), "hang"),
    "hang-after-a-token": Fault("timeout", (HEAD, chunk(HELLO)), "hang"),
}


def misbehave(call: Call) -> bool:
    """Do what the prompt says; any other prompt gets a normal answer."""
    fault = FAULTS.get(json.loads(call.body)["prompt"])
    call.send(*(fault.pieces if fault else (NORMAL,)))
    if fault and fault.then == "hang":
        call.wait_for_close()
    return bool(fault and fault.then)


def fault_requests() -> list[Request]:
    """One request for each fault, with a good one after each second: a failure must not touch its neighbour."""
    kinds = [kind for name in FAULTS for kind in (name, "good")]
    return [asking(number, kind) for number, kind in enumerate(kinds)]


def asking(number: int, kind: str) -> Request:
    body = {"model": "m", "prompt": kind, "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    return Request(f"r01/{number:03d}-{kind}", kind, "measure", 5, json.dumps(body).encode())
