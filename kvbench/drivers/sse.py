"""Server-sent events, parsed as the bytes arrive; an event may be split anywhere.

Follows the WHATWG rules that matter for answers of language models: `data:` and `event:` fields, comments, several data
lines per event, LF or CRLF. `id:` and `retry:` are read over. An event is complete at its blank line, so that one
without it is dropped at the end of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `end_byte` counts the stream's bytes up to and with its blank line.

    `end_byte` lets the caller see whether more bytes of the same read follow the event.
    """

    name: str
    data: bytes
    end_byte: int


class SseParser:
    """Turns pieces of a stream into events; any way of cutting the stream gives the same events."""

    def __init__(self) -> None:
        """Start before the first byte of a stream."""
        self.fed_bytes = 0
        self._line = bytearray()
        self._data: list[bytes] = []
        self._name = ""

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes."""
        events = []
        start = 0
        while (stop := piece.find(b"\n", start)) >= 0:
            self._line += piece[start:stop]
            start = stop + 1
            line = bytes(self._line.removesuffix(b"\r"))
            self._line.clear()
            if line:
                self._read_field(line)
            elif event := self._take_event(self.fed_bytes + start):
                events.append(event)
        self._line += piece[start:]
        self.fed_bytes += len(piece)
        return events

    def _read_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode(errors="replace")

    def _take_event(self, end_byte: int) -> Event | None:
        event = Event(self._name, b"\n".join(self._data), end_byte) if self._data else None
        self._data = []
        self._name = ""
        return event
