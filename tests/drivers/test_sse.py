"""Any way of cutting a stream gives the same events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.drivers.sse import Event, SseParser


def parse(*pieces: bytes) -> list[Event]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("", b"a")]),
        (b"data:a\r\n\r\n", [("", b"a")]),
        (b"data:  a\n\n", [("", b" a")]),
        (b": ping\n\ndata: a\n\n", [("", b"a")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data\n\n", [("", b"")]),
        (b"event: error\ndata: x\n\ndata: y\n\n", [("error", b"x"), ("", b"y")]),
        (b"id: 7\nretry: 10\ndata: a\n\n", [("", b"a")]),
        (b"event: lonely\n\n\n\n", []),
        (b"data: not ended\n", []),
        (b'data: {"a": "b: c"}\n\n', [("", b'{"a": "b: c"}')]),
    ],
)
def test_streams(stream: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert [(event.name, event.data) for event in parse(stream)] == expected


def test_end_byte_counts_up_to_the_blank_line() -> None:
    assert [event.end_byte for event in parse(b"data: a\n", b"\ndata: ", b"bc\r\n\r\nda")] == [9, 21]


LINES = st.lists(
    st.sampled_from(
        [b"data: x", b"data:", b"data: \xc3\xa9", b": comment", b"event: error", b"id: 1", b"", b"", b"junk"]
    )
)


@settings(deadline=None)
@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_any_split_gives_the_same_events(lines: list[bytes], line_end: bytes, data: st.DataObject) -> None:
    stream = b"".join(line + line_end for line in lines)
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(edges)]
    assert parse(*pieces) == parse(stream)


@settings(deadline=None)
@given(st.lists(st.binary().filter(lambda b: b"\n" not in b and b"\r" not in b), min_size=1))
def test_payloads_survive(payloads: list[bytes]) -> None:
    stream = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    assert [event.data for event in parse(stream)] == payloads
