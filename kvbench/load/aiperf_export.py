"""AIPerf's raw export, read as what it is: the chunks of every answer with their times.

AIPerf's own word on a request is not taken. It counts a 200 stream with `data: {"error": ...}` inside as a success,
drops the tokens of a stream that was cut from its records, and leaves requests that it cancelled out altogether.
Its raw export holds what came over the wire, so each request is judged from that, by the rules of the native driver.

Times: `request_start_ns` is wall-clock, chunks have only the process's performance counter; both clocks were read at
the start of the request, so a chunk's wall time is `request_start_ns + (perf_ns - start_perf_ns)`. They are times of a
busy event loop, not of the kernel.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kvbench.load.chunks import read_chunk
from kvbench.load.sse import Event
from kvbench.load.transcript import Ending, Transcript
from kvbench.records import Response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.load.transcript import Outcome
    from kvbench.records import Bound, Request

_TIMEOUTS = {"TimeoutError", "ServerTimeoutError", "SocketTimeoutError"}
_REFUSALS = {
    *("ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorCertificateError", "ClientConnectorSSLError"),
    *("ConnectionRefusedError", "ConnectionTimeoutError", "ClientProxyConnectionError", "ClientSSLError"),
}
_CANCELLED = {"CancelledError", "RequestCancellationError"}


def read_raw(folder: Path) -> Iterator[dict[str, Any]]:
    """Give every record of a raw export.

    AIPerf puts it together at its end; a run of which every request failed leaves the parts in `raw_records/`. A last
    line that a killed AIPerf cut in half is left out.
    """
    whole = folder / "profile_export_raw.jsonl"
    for path in [whole] if whole.exists() else sorted((folder / "raw_records").glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def translate(record: dict[str, Any], request_id: str, request: Request | None = None) -> Response:
    """Make of one raw record what the native driver would have made of the same answer.

    Where the request is given, the body that AIPerf says it sent must be the request's.
    """
    told = record["metadata"]
    sent_ns = int(told["request_start_ns"])
    shift_ns = sent_ns - int(record["start_perf_ns"])
    transcript, first_of = Transcript(), []
    for message in record.get("responses") or ():
        arrived_ns = int(message["perf_ns"]) + shift_ns
        for event in _events(message):
            transcript.note(read_chunk(event), arrived_ns)
        if "packets" not in message:
            transcript.error = transcript.error or "answered without streaming"
        first_of.append(arrived_ns)
    if request is not None and record.get("payload") != json.loads(request.body):
        transcript.error = "AIPerf sent another body than it was given"
    return transcript.response(
        request_id,
        _outcome(record, transcript, request),
        scheduled_ns=int(told.get("credit_issued_ns") or sent_ns),
        sent_ns=sent_ns,
        http_status=record.get("status"),
        ttft_bound=_bound(transcript, first_of),
    )


def missing(request: Request, scheduled_ns: int) -> Response:
    """Return the response of a request that AIPerf has no record of."""
    return Response(request.request_id, "cancelled", scheduled_ns, error="AIPerf left no record of this request")


def _events(message: dict[str, Any]) -> Iterator[Event]:
    """Put the lines of one message together as the event that they were."""
    packets = message.get("packets") or ()
    name = next((packet["value"] for packet in packets if packet["name"] == "event"), "")
    data = "\n".join(packet["value"] for packet in packets if packet["name"] == "data" and packet["value"] is not None)
    if data:
        yield Event(name, data.encode(), 0)


def _bound(transcript: Transcript, arrived_ns: list[int]) -> Bound | None:
    """Return `upper` where a later message bears the first token's time: AIPerf read both at once."""
    if transcript.first_token_ns is None:
        return None
    return "upper" if arrived_ns.count(transcript.first_token_ns) > 1 else "exact"


def _outcome(record: dict[str, Any], transcript: Transcript, request: Request | None) -> Outcome:
    """Judge by what came; AIPerf's own error only tells how the connection ended."""
    error = record.get("error") or {}
    kinds = {error.get("type"), *(error.get("cause_chain") or ())}
    why = _sentence(error)
    status = record.get("status")
    if status is None and kinds & _REFUSALS:
        return "refused", why
    ending: Ending = "lost"
    if record["metadata"].get("was_cancelled") or (kinds & _CANCELLED and not kinds & _TIMEOUTS):
        ending = "cancelled"
    elif kinds & _TIMEOUTS:
        ending = "timeout"
    elif status is not None and not _ended_early(kinds):
        ending = "complete"
    body = str(error.get("message") or "").encode()
    return transcript.judge(request, status, body, ending, why)


def _ended_early(kinds: set[str | None]) -> bool:
    """Tell whether the connection broke; AIPerf's complaints about the content of an answer do not say so."""
    return any(kind is not None and kind.startswith(("Client", "Server", "Connection", "OSError")) for kind in kinds)


def _sentence(error: dict[str, Any]) -> str:
    kind = str(error.get("type") or "no reason given")
    cause = str(error.get("cause") or error.get("message") or "").strip()
    return " ".join(f"{kind}: {cause}".split())[:300] if cause and not cause.startswith(kind) else cause[:300] or kind
