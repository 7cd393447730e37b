"""Reads AIPerf's raw export: the chunks of every answer with their times.

AIPerf's own word on a request is not taken where there are chunks. It counts a 200 stream with `data: {"error": ...}`
inside as a success, drops the tokens of a stream that was cut from its records, and leaves requests that it cancelled
out altogether. Its raw export holds what came, so each request is judged from that, by the rules of the native driver.
The driver and the importer both read records here, so a record has one status and one TTFT whoever reads it.

Times: `request_start_ns` is wall-clock, chunks have only the process's performance counter; both clocks were read at
the start of the request, so a chunk's wall time is `request_start_ns + (perf_ns - start_perf_ns)`. They are times of a
busy event loop, not of the kernel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kvbench.drivers.chunks import read_data
from kvbench.drivers.transcript import Transcript
from kvbench.lenient_json import at, items, text, whole
from kvbench.result.records import Response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.drivers.transcript import Outcome
    from kvbench.result.records import Bound, Request
    from kvbench.typed_json import JsonObject

_Connection = Literal["complete", "lost", "timeout", "cancelled", "refused"]

_TIMEOUTS = {"TimeoutError", "ServerTimeoutError", "SocketTimeoutError"}
_REFUSALS = {
    *("ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorCertificateError", "ClientConnectorSSLError"),
    *("ConnectionRefusedError", "ConnectionTimeoutError", "ClientProxyConnectionError", "ClientSSLError"),
}
_CANCELLED = {"CancelledError", "RequestCancellationError"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one record says of the answer to its request.

    Times in `transcript` are those of the worker's performance counter, moved by the shift that the caller gave.
    """

    transcript: Transcript
    outcome: Outcome
    http_status: int | None
    ttft_bound: Bound | None


def read_raw(folder: Path) -> Iterator[JsonObject]:
    """Give every record of a raw export.

    AIPerf puts it together at its end; a run of which every request failed leaves the parts in `raw_records/`. A last
    line that a killed AIPerf cut in half is left out.
    """
    whole_file = folder / "profile_export_raw.jsonl"
    for path in [whole_file] if whole_file.exists() else sorted((folder / "raw_records").glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def translate(record: JsonObject, request_id: str, request: Request | None = None) -> Response:
    """Make of one raw record what the native driver would have made of the same answer.

    Where the request is given, the body that AIPerf says it sent must be the request's.
    """
    sent_ns = int(at(record, "metadata", "request_start_ns"))
    answer = read_answer(record, request, shift_ns=sent_ns - int(at(record, "start_perf_ns")))
    return answer.transcript.response(
        request_id,
        answer.outcome,
        scheduled_ns=int(at(record, "metadata", "credit_issued_ns") or sent_ns),
        sent_ns=sent_ns,
        http_status=answer.http_status,
        ttft_bound=answer.ttft_bound,
    )


def missing(request: Request, scheduled_ns: int) -> Response:
    """Return the response of a request that AIPerf has no record of."""
    return Response(request.request_id, "cancelled", scheduled_ns, error="AIPerf left no record of this request")


def read_answer(record: JsonObject, request: Request | None = None, shift_ns: int = 0) -> Answer:
    """Read the chunks of one raw record and judge the answer; what is malformed in the record counts as missing.

    A request that kvbench drew adds demands of its own: AIPerf sent its body, and usage came if it asked for it. Nobody
    made them of a record that is imported: a server that tells no usage still has a TTFT.
    """
    reading = _Reading(Transcript(), is_streamed=request is not None or at(record, "payload", "stream") is True)
    for message in items(record.get("responses")):
        reading.note(message, shift_ns)
    transcript = reading.transcript
    if request is not None and record.get("payload") != json.loads(request.body):
        transcript.error = "AIPerf sent another body than it was given"
    if reading.is_untimed:  # a time that cannot be read may be the first one
        transcript.first_token_ns = transcript.first_content_ns = transcript.last_token_ns = None
    http_status = _http_status(record)
    is_native = request is not None or not reading.is_foreign
    outcome = _judge(record, reading, http_status, request) if is_native else _own_word(record, http_status)
    return Answer(transcript, outcome, http_status, _bound(transcript, reading.arrived_ns))


def read_own_word(record: JsonObject) -> Answer:
    """Judge a request by what AIPerf says of it, where its export holds no chunks."""
    http_status = _http_status(record)
    return Answer(Transcript(), _own_word(record, http_status), http_status, None)


def _own_word(record: JsonObject, http_status: int | None) -> Outcome:
    error = record.get("error")
    ending = _ending(record, http_status)
    why = _sentence(error)
    if ending in ("refused", "cancelled", "timeout"):
        return ending, why
    if http_status is not None and http_status >= 400:
        return Transcript().judge(None, http_status, _body(error), None, "")
    if ending == "lost" and error:
        return Transcript().judge(None, None, b"", "lost", why)
    return ("stream_error", why) if error else ("ok", None)


class _Reading:
    """Takes the messages of one record in their order."""

    def __init__(self, transcript: Transcript, *, is_streamed: bool) -> None:
        """Start before the first message of an answer that should have been streamed or not."""
        self.transcript = transcript
        self.arrived_ns: list[int] = []
        self.is_untimed = False
        self.is_whole = False
        self._is_streamed = is_streamed
        self._forms: set[bool] = set()

    @property
    def is_foreign(self) -> bool:
        """Whether messages came, but none that is of the Completions or the Chat Completions API."""
        return self._forms == {False}

    def note(self, message: Any, shift_ns: int) -> None:
        """Take one message: an event of a stream, or a whole body."""
        if not isinstance(message, dict):
            message = {}
        read_ns = whole(message.get("perf_ns"))
        arrived_ns = (read_ns or 0) + shift_ns
        self.arrived_ns.append(arrived_ns)
        packets = message.get("packets")
        if packets is None:
            self._note_body(message, arrived_ns, is_timed=read_ns is not None)
            return
        name, data = _event(items(packets))
        if data:
            chunk = read_data(name, data)
            self._forms.add(chunk.has_choices or chunk.is_done or chunk.error is not None)
            self.is_untimed = self.is_untimed or (read_ns is None and chunk.has_token)
            self.transcript.note(chunk, arrived_ns)

    def _note_body(self, message: JsonObject, arrived_ns: int, *, is_timed: bool) -> None:
        """Take an answer that was not streamed: its first token came at some time before."""
        if self._is_streamed:
            self._forms |= {True}
            self.transcript.error = self.transcript.error or "answered without streaming"
            return
        chunk = read_data("", (text(message.get("text")) or "{}").encode())
        self._forms.add(chunk.has_choices or chunk.error is not None)
        self.transcript.note(replace(chunk, has_token=False, content=""), arrived_ns)
        self.is_whole = True
        self.transcript.last_token_ns = arrived_ns if is_timed else None


def _event(packets: list[Any]) -> tuple[str, bytes]:
    """Put the lines of one message together as the event that they were: its name and its data."""
    name, lines = "", []
    for packet in packets:
        if isinstance(packet, dict):
            kind, value = packet.get("name"), packet.get("value")
            if kind == "data" and isinstance(value, str):
                lines.append(value)
            elif kind == "event":
                name = name or text(value) or ""
    return name, "\n".join(lines).encode(errors="replace")


def _bound(transcript: Transcript, arrived_ns: list[int]) -> Bound | None:
    """Return `upper` where a later message bears the first token's time: AIPerf read both at once."""
    if transcript.first_token_ns is None:
        return None
    return "upper" if arrived_ns.count(transcript.first_token_ns) > 1 else "exact"


def _judge(record: JsonObject, reading: _Reading, http_status: int | None, request: Request | None) -> Outcome:
    """Judge by what came; AIPerf's own error only tells how the connection ended."""
    error = record.get("error")
    ending = _ending(record, http_status)
    why = _sentence(error)
    if ending == "refused":
        return "refused", why
    if ending == "complete" and http_status is None:
        ending = "lost"
    outcome = reading.transcript.judge(request, http_status, _body(error), ending, why)
    if reading.is_whole and ending == "complete" and outcome[0] == "cut":  # a whole body needs no `[DONE]`
        return "ok", None
    return outcome


def _kinds(error: Any) -> set[str]:
    """Return the names of the exceptions that AIPerf tells of a failed request."""
    return {name for name in map(text, [at(error, "type"), *items(at(error, "cause_chain"))]) if name is not None}


def _http_status(record: JsonObject) -> int | None:
    """Return the HTTP status; where the record itself has none, the code of its error, unless AIPerf made that up."""
    known, error = whole(record.get("status")), record.get("error")
    if known is None and not _kinds(error) & (_CANCELLED | _TIMEOUTS):
        known = whole(at(error, "code"))
    return known if known is not None and 100 <= known <= 599 else None


def _ending(record: JsonObject, http_status: int | None) -> _Connection:
    """Tell how the connection ended; AIPerf's complaints about the content of an answer do not say so."""
    kinds = _kinds(record.get("error"))
    if http_status is None and kinds & _REFUSALS:
        return "refused"
    if at(record, "metadata", "was_cancelled") is True or (kinds & _CANCELLED and not kinds & _TIMEOUTS):
        return "cancelled"
    if kinds & _TIMEOUTS:
        return "timeout"
    is_broken = any(kind.startswith(("Client", "Server", "Connection", "OSError")) for kind in kinds)
    return "lost" if is_broken else "complete"


def _body(error: Any) -> bytes:
    return (text(at(error, "message")) or "").encode()


def _sentence(error: Any) -> str:
    kind = text(at(error, "type")) or "no reason given"
    cause = (text(at(error, "cause")) or text(at(error, "message")) or "").strip()
    return " ".join(f"{kind}: {cause}".split())[:300] if cause and not cause.startswith(kind) else cause[:300] or kind
