"""Reads one answer while it arrives: HTTP, events, the first token and its time stamp; ends with a `Response`.

Everything here runs after the bytes were stamped, so that parsing costs the client time but never shifts a time.

**The first-token rule.** `first_token_ns` is the stamp of the read that completed the first event with a token on any
channel. That stamp belongs to the last segment of the read. Events before the token in the same read do not matter: the
token's own bytes came last. Bytes of later events do: their segment may have come later, so that the stamp is only an
upper bound (`ttft_bound: upper`). The line break that closes the token's own HTTP chunk is no later event; the next
chunk's size line is. Under TLS the unit is the record instead of the byte (`tls`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import httptools

from kvbench.drivers.chunks import read_chunk
from kvbench.drivers.sse import SseParser
from kvbench.drivers.transcript import Ending, Transcript

if TYPE_CHECKING:
    from kvbench.drivers.chunks import Chunk
    from kvbench.drivers.receiver_link import Read
    from kvbench.result.records import Bound, Request, Response

_ERROR_BODY_BYTES = 65_536
_LINE_BREAK = b"\r\n"


class Answer:
    """Fed with reads until it is `ended`; an answer that never ends is judged by what it has."""

    def __init__(self) -> None:
        """Expect the status line."""
        self.ending: Ending | None = None
        self.received_bytes = 0
        self.complete_ns: int | None = None
        self.first_token_read: Read | None = None
        self._http = httptools.HttpResponseParser(self)
        self._sse = SseParser()
        self._read: Read | None = None
        self._headers: dict[str, str] = {}
        self._http_status: int | None = None
        self._keeps_alive = False
        self._has_extra_bytes = False
        self._error_body = bytearray()
        self._transcript = Transcript()
        self._first_token_end_byte = 0
        self._bound: Bound | None = None
        self._why = "never begun"

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is in a known state, ready for another request."""
        return (
            self.ending == "complete" and self._keeps_alive and not self._has_extra_bytes and not self._transcript.error
        )

    @property
    def progress(self) -> str:
        """What the answer was waiting for, for the message of a timeout."""
        if not self.received_bytes:
            return "no byte of an answer came"
        if self._http_status is None:
            return "the headers were not complete"
        return "the stream stood still or was too slow" if self.first_token_read else "no token came"

    def feed(self, read: Read, data: bytes) -> None:
        """Take the bytes of one read; `data` is what they mean, after any encryption was taken off."""
        self.received_bytes += len(data)
        self._read = read
        try:
            self._http.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.ending is None:
                self._fail(f"the answer is not HTTP: {error}")
        if self.first_token_read is read and (
            self._sse.fed_bytes > self._first_token_end_byte or data[-1] not in _LINE_BREAK
        ):
            self._bound = "upper"
        if self.ending == "complete":
            self.complete_ns = self.complete_ns or read.arrived_ns

    def feed_record(self, read: Read, content: bytes) -> None:
        """Take what one TLS record of a read holds: it came as a whole, so nothing in it is later than the token."""
        had_token = self.first_token_read is not None
        self.feed(read, content)
        if not had_token and self.first_token_read is not None:
            self._bound = "exact"
        elif self.first_token_read is read and content.strip(_LINE_BREAK):
            self._bound = "upper"

    def feed_unread(self, read: Read) -> None:
        """Learn that a read ended with bytes that could not be opened: they may be later than a token before them."""
        if self.first_token_read is read:
            self._bound = "upper"

    def lose(self, reason: str | None) -> None:
        """The connection ended: a proper end only for an answer whose length was left open."""
        if self.ending is None:
            open_length = not {"content-length", "transfer-encoding"} & self._headers.keys()
            is_proper = reason is None and self._http_status is not None and open_length
            self.ending = "complete" if is_proper else "lost"
            self._why = reason or "closed by the server"

    def stop(self, ending: Literal["timeout", "cancelled"], why: str) -> None:
        """The client waits no longer; an answer that ended in time stays as it is."""
        if self.ending is None:
            self.ending = ending
            self._why = why

    # Called by httptools.
    def on_message_begin(self) -> None:
        """Bytes after the end of the answer make the connection unusable."""
        self._has_extra_bytes = self.ending is not None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        if self.ending is None:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Judge the status; an interim answer (1xx) is read over."""
        status = self._http.get_status_code()
        if self.ending is not None or status < 200:
            return
        self._http_status = status
        self._keeps_alive = self._http.should_keep_alive()
        if status == 200 and "text/event-stream" not in self._headers.get("content-type", "").lower():
            self._fail("answered without streaming")

    def on_chunk_header(self) -> None:
        """A size line after the first token in the same read means that a later segment may have come."""
        if self._read is not None and self.first_token_read is self._read:
            self._bound = "upper"

    def on_body(self, body: bytes) -> None:
        """Read the events of a stream, or keep the beginning of an error's body."""
        if self.ending is not None:
            return
        if self._http_status != 200:
            self._error_body += body[: _ERROR_BODY_BYTES - len(self._error_body)]
            return
        for event in self._sse.feed(body):
            chunk = read_chunk(event)
            if chunk.has_token and self.first_token_read is None:
                self._first_token_end_byte = event.end_byte
            self._note(chunk)

    def on_message_complete(self) -> None:
        """End the answer, unless it was an interim one."""
        if self._http_status is None:
            self._headers.clear()
        elif self.ending is None:
            self.ending = "complete"

    def _fail(self, message: str) -> None:
        """Keep the first failure and read no further: the answer cannot become a good one."""
        self._transcript.error = self._transcript.error or message
        self.ending = self.ending or "complete"

    def _note(self, chunk: Chunk) -> None:
        if self._read is None or self.ending is not None:
            return
        self._transcript.note(chunk, self._read.arrived_ns)
        if self._transcript.error is not None:
            self.ending = "complete"
        elif chunk.has_token and self.first_token_read is None:
            self.first_token_read, self._bound = self._read, "exact"

    def respond(self, request: Request, scheduled_ns: int, sent_ns: int | None) -> Response:
        """Return what was seen of `request`; what came before a failure is kept."""
        first = self.first_token_read
        return self._transcript.response(
            request.request_id,
            self._transcript.judge(request, self._http_status, bytes(self._error_body), self.ending, self._why),
            scheduled_ns=scheduled_ns,
            sent_ns=sent_ns,
            http_status=self._http_status,
            ttft_bound=self._bound,
            receive_lag_s=(first.user_ns - first.stamp_ns) / 1e9 if first and first.stamp_ns else None,
        )
