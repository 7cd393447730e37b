"""The driver against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.drivers.answer import Answer
from kvbench.drivers.native import NativeDriver
from kvbench.drivers.target import Target
from tests.builders.fault_server import (
    DONE,
    FINISH,
    HEAD,
    NORMAL,
    Call,
    FaultServer,
    answer,
    chunk,
    delta_event,
    event,
    plain,
    request,
    stream,
    text_event,
)
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.drivers.receiver_link import Read
    from kvbench.result.records import Response


def drive_one(script: Callable[[Call], Any], **options: Any) -> Response:
    with FaultServer(script) as server, NativeDriver(Target(server.url), **options) as driver:
        return driver.drive([request()], 1, lambda _: None)[0]


def test_normal_stream() -> None:
    response = drive_one(answer(NORMAL))
    assert (response.status, response.text, response.isl, response.osl) == ("ok", "Hello world", 5, 2)
    assert response.scheduled_ns <= (response.sent_ns or 0) <= (response.first_token_ns or 0)
    assert (response.first_token_ns or 0) <= (response.last_token_ns or 0)
    assert response.ttft_bound == "upper"  # one segment holds the whole answer


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps")
def test_kernel_stamps_come_before_the_user_clock() -> None:
    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url)) as driver:
        responses = driver.drive([request(n) for n in range(20)], 2, lambda _: None)
        health = driver.health()
    assert all(r.receive_lag_s is not None and r.receive_lag_s >= 0 for r in responses)
    assert (health.stamps, health.user_stamps, health.first_tokens) == ("kernel", 0, 20)
    assert health.upper_bounds == 20


def test_fallback_to_the_user_clock() -> None:
    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url), kernel_stamps=False) as driver:
        (response,) = driver.drive([request()], 1, lambda _: None)
        health = driver.health()
    assert response.receive_lag_s is None
    assert (response.sent_ns or 0) <= (response.first_token_ns or 0)
    assert (health.stamps, health.user_stamps) == ("user", 1)


@pytest.mark.parametrize(
    ("pieces", "status", "error"),
    [
        ([plain("500 No", b'{"error": {"message": "boom"}}')], "http_error", "HTTP 500: boom"),
        ([plain("429 Slow", b"{}", "Retry-After: 1")], "http_error", "HTTP 429: {}"),
        ([stream(text_event("a"), event({"error": {"message": "boom"}}))], "stream_error", "boom"),
        ([plain("200 OK", b'{"choices": []}')], "stream_error", "answered without streaming"),
        ([HEAD, chunk(text_event("a"))], "cut", "the connection ended before the answer was complete"),
        ([], "cut", "the connection ended before the answer was complete"),
    ],
)
def test_failures(pieces: list[bytes], status: str, error: str) -> None:
    response = drive_one(answer(*pieces, close=True))
    assert (response.status, (response.error or "")[: len(error)]) == (status, error)


def test_role_reasoning_and_empty_chunks() -> None:
    response = drive_one(
        answer(stream(delta_event(role="assistant"), delta_event(content=""), delta_event(reasoning="a"), FINISH, DONE))
    )
    assert (response.status, response.first_content_ns, response.text) == ("ok", None, "")
    assert response.first_token_ns is not None


def test_key_is_sent_and_never_repeated() -> None:
    def script(call: Call) -> None:
        call.send(plain("401 No", b'{"error": {"message": "wrong key sk-secret given"}}'))

    target_key = "sk-secret"
    with FaultServer(script) as server:
        target = Target(server.url, "chat", target_key)
        with NativeDriver(target) as driver:
            (response,) = driver.drive([request()], 1, lambda _: None)
        head = server.calls[0].head
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer sk-secret\r\n" in head + b"\r\n"
    assert response.error == "HTTP 401: wrong key *** given"
    assert target_key not in repr(target)


@pytest.mark.parametrize(
    ("pieces", "has_token", "error"),
    [
        ([], False, "no complete answer within 0.2 s: no byte of an answer came"),
        ([HEAD], False, "no complete answer within 0.2 s: no token came"),
        (
            [HEAD, chunk(text_event("a"))],
            True,
            "no complete answer within 0.2 s: the stream stood still or was too slow",
        ),
    ],
)
def test_timeout(
    pieces: list[bytes],
    has_token: bool,  # noqa: FBT001 - a table's column
    error: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(call: Call) -> None:
        call.send(*pieces)
        call.wait_for_close()

    if pieces:
        expire_after(len(b"".join(pieces)), monkeypatch)
    response = drive_one(script, timeout_s=0.2)
    assert (response.status, response.error) == ("timeout", error)
    assert (response.ttft_s is not None) == has_token


def expire_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the deadline of a request pass when so many bytes of its answer were read, and not by the clock."""
    deadlines: list[asyncio.Timeout] = []
    feed, timeout = Answer.feed, asyncio.timeout

    def without_end(_: float | None) -> asyncio.Timeout:
        deadlines.append(timeout(None))
        return deadlines[-1]

    def feed_and_expire(self: Answer, read: Read, data: bytes) -> None:
        feed(self, read, data)
        if self.received_bytes == count:
            deadlines[-1].reschedule(asyncio.get_running_loop().time())

    monkeypatch.setattr(asyncio, "timeout", without_end)
    monkeypatch.setattr(Answer, "feed", feed_and_expire)


def test_a_slot_is_busy_until_the_deadline() -> None:
    def script(call: Call) -> None:
        call.send(HEAD, chunk(text_event("a")))
        call.wait_for_close()

    with FaultServer(script) as server, NativeDriver(Target(server.url), timeout_s=0.2) as driver:
        first, second = driver.drive([request(0), request(1)], 1, lambda _: None)
    assert second.scheduled_ns - first.scheduled_ns > 190_000_000


def test_refused() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # held, so that nobody else gets the port, but not listening
        port = closed.getsockname()[1]
        with NativeDriver(Target(f"http://127.0.0.1:{port}/v1")) as driver:
            first, second = driver.drive([request(0), request(1)], 1, lambda _: None)
    assert (first.status, second.status) == ("refused", "refused")
    assert first.error == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert (first.sent_ns, first.http_status) == (None, None)


def test_kept_connection_closed_between_requests_is_retried_once() -> None:
    with FaultServer(answer(NORMAL, close=True)) as server, NativeDriver(Target(server.url)) as driver:
        responses = driver.drive([request(n) for n in range(5)], 1, lambda _: None)
        assert [r.status for r in responses] == ["ok"] * 5
        assert len(server.calls) == 5
        assert driver.health().connections_opened == 5


def test_kept_connection_closed_on_arrival_is_retried_once() -> None:
    """The server closes the kept connection only when the next request has come."""
    heard: list[int] = []

    def script(call: Call) -> bool:
        heard.append(call.connection)
        if len(heard) == 2:
            return True
        call.send(NORMAL)
        return False

    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        seen: list[Response] = []
        responses = driver.drive([request(0), request(1)], 1, seen.append)
        assert driver.health().retries == 1
    assert [r.status for r in responses] == ["ok", "ok"]
    assert [r.request_id for r in seen] == ["r0", "r1"]
    assert heard == [1, 1, 2]


def test_retry_that_finds_no_server_is_refused() -> None:
    """The server closes the kept connection and its port when the second request has come."""

    def script(call: Call) -> bool:
        if call.number == 0:
            call.send(NORMAL)
        else:
            server.stop_listening()
        return bool(call.number)

    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        first, second = driver.drive([request(0), request(1)], 1, lambda _: None)
    assert (first.status, second.status, second.sent_ns) == ("ok", "refused", None)


def test_new_connection_closed_on_arrival_is_not_retried() -> None:
    with FaultServer(lambda _: True) as server, NativeDriver(Target(server.url)) as driver:
        (response,) = driver.drive([request()], 1, lambda _: None)
        assert (response.status, len(server.calls), driver.health().retries) == ("cut", 1, 0)


def test_connections_are_kept_across_calls() -> None:
    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url)) as driver:
        for _ in range(3):
            driver.drive([request(n) for n in range(6)], 2, lambda _: None)
        assert server.connections == 2


def test_closed_loop_never_exceeds_concurrency_and_delivers_as_requests_end() -> None:
    lock, all_in = threading.Lock(), threading.Barrier(4, timeout=PATIENCE_S)
    inside: list[int] = []
    most: list[int] = []

    def script(call: Call) -> None:
        with lock:
            inside.append(call.number)
            most.append(len(inside))
        if call.number < 4:
            all_in.wait()  # so many are really inside at once
        time.sleep(0.01 if call.number % 3 else 0.03)
        with lock:
            inside.remove(call.number)
        call.send(NORMAL)

    seen: list[Response] = []
    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        responses = driver.drive((request(n) for n in range(30)), 4, seen.append)
    assert max(most) == 4
    assert [r.request_id for r in responses] == [f"r{n}" for n in range(30)]
    assert sorted(r.request_id for r in seen) == sorted(r.request_id for r in responses)
    ends = sorted(r.last_token_ns or 0 for r in responses)
    started = sorted(r.scheduled_ns for r in responses)
    assert all(start >= end for start, end in zip(started[4:], ends, strict=False))


def test_a_slot_is_free_at_the_stamp_of_the_last_byte() -> None:
    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url)) as driver:
        first, second = driver.drive([request(0), request(1)], 1, lambda _: None)
    assert second.scheduled_ns == first.last_token_ns  # the whole answer is one segment
    assert (second.send_lag_s or 0) > 0


def test_many_connections_with_large_bodies() -> None:
    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url)) as driver:
        responses = driver.drive([request(n, 800_000) for n in range(56)], 28, lambda _: None)
        assert {r.status for r in responses} == {"ok"}
        assert all(len(call.body) > 800_000 for call in server.calls)
        assert server.connections == 28


def test_answer_before_the_body_was_sent() -> None:
    """A server that refuses by the headers and reads no further must not block the driver."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(plain("413 Too large", b"", "Connection: close"))
            hold.wait(PATIENCE_S)

    hold = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    with listener, NativeDriver(Target(f"http://127.0.0.1:{listener.getsockname()[1]}")) as driver:
        (response,) = driver.drive([request(0, 50_000_000)], 1, lambda _: None)
        hold.set()
        thread.join(PATIENCE_S)
    assert (response.status, response.http_status) == ("http_error", 413)
