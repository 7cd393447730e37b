"""The first-token rule and the outcomes, fed read by read: no socket, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvbench.drivers.answer import Answer
from kvbench.drivers.receiver_link import Read
from tests.builders.fault_server import (
    DONE,
    FINISH,
    HEAD,
    LAST_CHUNK,
    NORMAL,
    chunk,
    delta_event,
    event,
    plain,
    request,
    stream,
    text_event,
    usage_event,
)

if TYPE_CHECKING:
    from kvbench.result.records import Response

A, B = chunk(text_event("a")), chunk(text_event("b"))


def feed(*pieces: bytes) -> Answer:
    """Feed one read per piece, stamped 100, 200, ... and seen 7 ns later."""
    answer = Answer()
    for number, piece in enumerate(pieces, start=1):
        answer.feed(Read(piece, 100 * number, 100 * number + 7), piece)
    return answer


def respond(*pieces: bytes, lose: bool = False) -> Response:
    answer = feed(*pieces)
    if lose:
        answer.lose(None)
    return answer.respond(request(), 1, 2)


@pytest.mark.parametrize(
    ("pieces", "first_token_ns", "bound"),
    [
        ([HEAD, A, B], 200, "exact"),
        ([HEAD + A, B], 100, "exact"),
        ([HEAD + chunk(delta_event(role="assistant")) + A, B], 100, "exact"),
        ([HEAD, chunk(text_event("")), A], 300, "exact"),
        ([HEAD, A + B], 200, "upper"),
        ([HEAD, A + B[:9]], 200, "upper"),
        ([HEAD, A + B[:4]], 200, "upper"),
        ([HEAD, A + B[:1]], 200, "upper"),  # half a size line
        ([HEAD, A[:-2], A[-2:] + B], 200, "exact"),
        ([HEAD, A[:-3], A[-3:]], 300, "exact"),
        ([HEAD, A[:-3], A[-3:] + B], 300, "upper"),
        ([HEAD, A + LAST_CHUNK], 200, "upper"),
        ([HEAD, chunk(text_event("a") + text_event("b"))], 200, "upper"),
        ([HEAD, chunk(text_event("a") + b": ping\n\n")], 200, "upper"),
        ([HEAD, A, chunk(text_event("b") + text_event("c"))], 200, "exact"),
        ([HEAD], None, None),
    ],
)
def test_first_token(pieces: list[bytes], first_token_ns: int | None, bound: str | None) -> None:
    response = respond(*pieces)
    assert (response.first_token_ns, response.ttft_bound) == (first_token_ns, bound)


def test_reasoning_is_the_first_token_and_content_comes_later() -> None:
    pieces = [chunk(delta_event(reasoning_content="hm")), chunk(delta_event(content="a")), chunk(FINISH)]
    response = respond(HEAD, *pieces, LAST_CHUNK)
    assert (response.first_token_ns, response.first_content_ns, response.last_token_ns) == (200, 300, 300)
    assert response.text == "a"


def test_user_clock_where_the_kernel_gave_no_stamp() -> None:
    answer = Answer()
    answer.feed(Read(HEAD + A, 0, 55), HEAD + A)
    response = answer.respond(request(), 1, 2)
    assert (response.first_token_ns, response.receive_lag_s) == (55, None)


def test_receive_lag_is_user_clock_minus_stamp() -> None:
    assert respond(HEAD, A).receive_lag_s == pytest.approx(7e-9)


def test_whole_answer() -> None:
    response = respond(NORMAL)
    assert (response.status, response.error, response.http_status) == ("ok", None, 200)
    assert (response.isl, response.osl, response.cached_tokens) == (5, 2, 3)
    assert (response.text, response.finish_reason, response.model) == ("Hello world", "stop", "m")
    assert response.server == {"overrun_s": 0.5}
    assert (response.request_id, response.scheduled_ns, response.sent_ns) == ("r0", 1, 2)


def test_boundaries_at_every_byte() -> None:
    whole = respond(NORMAL)
    by_byte = respond(*(NORMAL[i : i + 1] for i in range(len(NORMAL))))
    assert (by_byte.status, by_byte.text, by_byte.osl, by_byte.server) == ("ok", whole.text, whole.osl, whole.server)
    assert by_byte.ttft_bound == "exact"
    for cut in range(1, len(NORMAL)):
        response = respond(NORMAL[:cut], NORMAL[cut:])
        assert (response.status, response.text) == ("ok", "Hello world")


def test_multibyte_character_over_two_reads() -> None:
    answer = stream(event('{"choices": [{"text": "é", "finish_reason": "stop"}]}'))
    cut = answer.index("é".encode()) + 1
    assert respond(answer[:cut], answer[cut:]).text == "é"


@pytest.mark.parametrize(
    ("pieces", "status", "error"),
    [
        ([stream(text_event("a"), FINISH, DONE)], "ok", None),  # no usage, and none was asked for
        ([stream(text_event("a"), FINISH)], "cut", "the stream ended without [DONE]"),
        ([HEAD, A, chunk(FINISH), chunk(DONE)], "ok", None),  # the last chunk was lost after [DONE]
        ([stream(text_event("a"), DONE)], "cut", "the stream ended without a finish reason"),
        ([HEAD, A, chunk(FINISH)], "cut", "the connection ended before the answer was complete (closed by the server)"),
        ([HEAD, A], "cut", "the connection ended before the answer was complete (closed by the server)"),
        ([], "cut", "the connection ended before the answer was complete (closed by the server)"),
        ([plain("500 No", b'{"error": {"message": "boom"}}')], "http_error", "HTTP 500: boom"),
        ([plain("429 Slow down", b"")], "http_error", "HTTP 429"),
        ([plain("307 Elsewhere", b"", "Location: /x")], "http_error", "HTTP 307"),
        ([plain("503 No", b"x" * 50)[:-40]], "http_error", "HTTP 503: xxxxxxxxxx"),
        ([plain("200 OK", b'{"choices": []}')], "stream_error", "answered without streaming"),
        ([stream(text_event("a"), event({"error": {"message": "boom"}}), FINISH, DONE)], "stream_error", "boom"),
        ([stream(b"event: error\n" + event("dead"))], "stream_error", "dead"),
        ([stream(text_event("a", "abort"), DONE)], "stream_error", "the server gave up: finish reason 'abort'"),
        ([stream(event("{no"))], "stream_error", "malformed JSON in the stream: {no"),
    ],
)
def test_outcomes(pieces: list[bytes], status: str, error: str | None) -> None:
    response = respond(*pieces, lose=True)
    assert (response.status, response.error) == (status, error)


def test_not_http() -> None:
    response = respond(b"SSH-2.0-OpenSSH_9.6\r\n")
    assert response.status == "stream_error"
    assert response.error is not None
    assert response.error.startswith("the answer is not HTTP")


def test_partial_ttft_is_kept() -> None:
    for last, lose in ((b"", True), (chunk(event({"error": "x"})), False)):
        assert respond(HEAD, A, last, lose=lose).first_token_ns == 200


@pytest.mark.parametrize("ending", ["timeout", "cancelled"])
def test_client_gives_up(ending: str) -> None:
    for pieces, progress in (
        ([], "no byte"),
        ([HEAD[:9]], "the headers"),
        ([HEAD], "no token"),
        ([HEAD, A], "the stream"),
    ):
        answer = feed(*pieces)
        assert answer.progress.startswith(progress)
        answer.stop("timeout" if ending == "timeout" else "cancelled", "why")
        response = answer.respond(request(), 1, 2)
        assert (response.status, response.error) == (ending, "why")


def test_what_was_not_reported_is_none() -> None:
    response = respond(stream(text_event("a"), FINISH, event({"choices": [], "usage": {"prompt_tokens": 5}}), DONE))
    assert (response.isl, response.osl, response.cached_tokens) == (5, None, None)


def test_length_left_open_ends_with_the_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    assert respond(head + text_event("a") + FINISH + DONE, lose=True).status == "ok"
    assert respond(head + text_event("a"), lose=True).status == "cut"


def test_interim_answer_is_read_over() -> None:
    assert respond(b"HTTP/1.1 100 Continue\r\n\r\n" + NORMAL).status == "ok"


def test_reuse() -> None:
    assert feed(NORMAL).is_reusable
    assert feed(plain("500 No", b"x")).is_reusable
    assert not feed(NORMAL + b"HTTP/1.1 200 OK\r\n").is_reusable
    assert not feed(NORMAL[:-5]).is_reusable
    assert not feed(stream(event({"error": "x"}))).is_reusable
    assert not feed(NORMAL.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)).is_reusable


def test_later_chunks_do_not_overwrite_with_nothing() -> None:
    response = respond(stream(text_event("a", "length"), usage_event(usage=None), usage_event(), DONE))
    assert (response.finish_reason, response.osl) == ("length", 2)
