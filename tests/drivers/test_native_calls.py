"""Whole calls of the native driver: broken off, refused, conversations, open loops, and its own health."""

from __future__ import annotations

import errno
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.drivers import native
from kvbench.drivers.native import NativeDriver
from kvbench.drivers.target import Target
from kvbench.errors import DriverError
from kvbench.result.records import Conversation, Request
from tests.builders.fault_server import (
    NORMAL,
    Call,
    FaultServer,
    answer,
    plain,
    request,
)
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from kvbench.result.records import Response

INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.builders.fault_server import request
from kvbench.drivers.native import NativeDriver
from kvbench.drivers.target import Target
seen = []
def note(response):
    seen.append(response)
    if response.status == "ok": print("first", flush=True)
with NativeDriver(Target(sys.argv[1])) as driver:
    try:
        driver.drive([request(n) for n in range(10)], 2, note)
    except KeyboardInterrupt:
        print(*(f"{r.request_id}:{r.status}" for r in seen), flush=True)
"""


def test_ctrl_c_delivers_what_was_out_as_cancelled() -> None:
    def script(call: Call) -> None:
        if call.body == request(0).body and call.number == 0:
            call.send(NORMAL)
        else:
            waiting.release()
            call.wait_for_close()

    waiting = threading.Semaphore(0)
    with FaultServer(script) as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url, str(Path(__file__).parents[2])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "first\n"
            assert waiting.acquire(timeout=PATIENCE_S)
            assert waiting.acquire(timeout=PATIENCE_S)
            process.send_signal(signal.SIGINT)
            ids = process.stdout.readline().split()
        assert process.returncode == 0
    assert len(ids) == 3
    assert ids[0].endswith(":ok")
    assert all(name.endswith(":cancelled") for name in ids[1:])


def test_a_failing_callback_ends_the_call_and_closes_nothing_else() -> None:
    def fail(_: Response) -> None:
        raise ValueError("no room")

    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url)) as driver:
        with pytest.raises(ValueError, match="no room"):
            driver.drive([request(n) for n in range(4)], 2, fail)
        assert driver.drive([request()], 1, lambda _: None)[0].status == "ok"


def test_dead_receiver_is_an_error_not_a_hang() -> None:
    def script(call: Call) -> None:
        driver._link._process.kill()
        call.wait_for_close()

    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        with pytest.raises(DriverError, match="receiver process ended"):
            driver.drive([request(n) for n in range(3)], 2, lambda _: None)
        with pytest.raises(DriverError, match="receiver process ended"):
            driver.drive([request()], 1, lambda _: None)


def test_health() -> None:
    with FaultServer(answer(NORMAL)) as server, NativeDriver(Target(server.url)) as driver:
        driver.drive([request(n) for n in range(10)], 2, lambda _: None)
        health = driver.health()
    assert health.receiver_priority in {"round-robin 1", "nice -10", "normal"}
    assert 0 < (health.receiver_cpu_s or 0) < (health.client_cpu_s or 0)
    assert (health.wall_s or 0) > 0
    assert abs(health.clock_step_s or 0) < 1
    assert (driver.health().receiver_cpu_s or 0) >= (health.receiver_cpu_s or 0)  # after the end too


def test_bad_arguments() -> None:
    with pytest.raises(DriverError, match="timeout"):
        NativeDriver(Target("http://host"), timeout_s=0)
    with NativeDriver(Target("http://host")) as driver, pytest.raises(DriverError, match="concurrency"):
        driver.drive([], 0, lambda _: None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems queue connections differently")
def test_timeout_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.settimeout(0)
            sock.connect_ex(address)
        with NativeDriver(Target(f"http://127.0.0.1:{address[1]}"), timeout_s=0.2) as driver:
            (response,) = driver.drive([request()], 1, lambda _: None)
        for sock in waiting:
            sock.close()
    assert (response.status, response.sent_ns) == ("timeout", None)
    assert response.error == "no complete answer within 0.2 s: no connection was made"


def test_no_more_files_is_the_client_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("kvbench.drivers.native.connect", fail)
    with NativeDriver(Target("http://127.0.0.1:9")) as driver, pytest.raises(DriverError, match="limit of open files"):
        driver.drive([request()], 1, lambda _: None)


def test_unknown_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Target) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(native, "_addresses_of", fail)
    with NativeDriver(Target("http://nowhere:1/v1")) as driver:
        (response,) = driver.drive([request()], 1, lambda _: None)
    assert (response.status, response.error) == ("refused", "cannot connect to nowhere:1: Name or service not known")


def test_nothing_to_send() -> None:
    with NativeDriver(Target("http://127.0.0.1:9")) as driver:
        assert driver.drive([], 3, lambda _: None) == []


def turns(name: str, count: int, answers: list[str]) -> Conversation:
    """A conversation whose next question repeats the answer before it."""
    said = "begin"
    for turn in range(count):
        body = json.dumps({"prompt": f"{name} {turn} {said}", "stream": True}).encode()
        response = yield Request(f"{name}.{turn}", name, "measure", 5, body, name, turn)
        assert response is not None
        said = response.text
        answers.append(f"{name}.{turn}")


def test_conversations_go_turn_by_turn_and_side_by_side() -> None:
    together = threading.Barrier(2, timeout=PATIENCE_S)

    def script(call: Call) -> None:
        if b"begin" in call.body:
            together.wait()  # the first turns of both conversations are out at once
        call.send(NORMAL)

    answers: list[str] = []
    responses: list[Response] = []
    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        driver.converse([turns("a", 3, answers), turns("b", 3, answers)], 2, responses.append)
    assert sorted(one.request_id for one in responses) == [f"{name}.{turn}" for name in "ab" for turn in range(3)]
    for name in "ab":
        assert [one.request_id for one in responses if one.request_id[0] == name] == [f"{name}.{n}" for n in range(3)]
    later = [json.loads(call.body)["prompt"] for call in server.calls if b"begin" not in call.body]
    assert all(prompt.endswith("Hello world") for prompt in later)


def test_a_conversation_ends_with_its_first_failure() -> None:
    def script(call: Call) -> None:
        call.send(plain("500 No", b"") if b"a 1" in call.body else NORMAL)

    responses: list[Response] = []
    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        driver.converse([turns("a", 3, []), turns("b", 2, [])], 1, responses.append)
    assert [(one.request_id, one.status) for one in responses] == [
        ("a.0", "ok"),
        ("a.1", "http_error"),
        ("b.0", "ok"),
        ("b.1", "ok"),
    ]


def test_an_open_loop_schedules_by_the_clock_and_not_by_the_answers() -> None:
    def script(call: Call) -> None:
        if call.number == 0:
            second_is_here.wait(PATIENCE_S)  # a driver that waited for the first answer would hang here
        elif call.number == 1:
            second_is_here.set()
        time.sleep(0.15)
        call.send(NORMAL)

    second_is_here = threading.Event()
    asked = [replace(request(number), due_s=number * 0.05) for number in range(4)]
    with FaultServer(script) as server, NativeDriver(Target(server.url)) as driver:
        responses = driver.drive(asked, 4, lambda _: None)
        gaps = [later.scheduled_ns - one.scheduled_ns for one, later in itertools.pairwise(responses)]
        assert gaps == [50_000_000] * 3
        assert all((one.sent_ns or 0) >= one.scheduled_ns for one in responses)
        assert (responses[1].sent_ns or 0) < (responses[0].last_token_ns or 0)  # nobody waited for an answer
        capped = driver.drive(asked, 1, lambda _: None)
        assert (capped[1].sent_ns or 0) > (capped[0].last_token_ns or 0)  # one at a time: the lag shows the wait
        assert (capped[3].send_lag_s or 0) > 0.2
