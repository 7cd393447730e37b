"""The driver against servers that speak TLS, speak it badly, or are not who they say."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
import warnings
from typing import IO, TYPE_CHECKING, Any

import pytest
import trustme

from kvbench.drivers import native
from kvbench.drivers.native import NativeDriver
from kvbench.drivers.target import Target
from kvbench.errors import EndpointError
from tests.builders.fault_server import (
    DONE,
    FINISH,
    HEAD,
    NORMAL,
    Call,
    FaultServer,
    answer,
    chunk,
    event,
    request,
    text_event,
)
from tests.builders.patience import PATIENCE_S, wait_until
from tests.builders.tls_peer import authority, ca_file, expired_context, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kvbench.result.records import Response


def drive_one(
    script: Callable[[Call], Any], context: ssl.SSLContext | None = None, url: str = "", **options: Any
) -> Response:
    with FaultServer(script, context or server_context()) as server:
        target = Target(url.replace("PORT", server.url.split(":")[2].split("/")[0]) or server.url, ca_file=ca_file())
        with NativeDriver(target, **options) as driver:
            return driver.drive([request()], 1, lambda _: None)[0]


def test_normal_stream() -> None:
    response = drive_one(answer(NORMAL))
    assert (response.status, response.text, response.isl, response.osl) == ("ok", "Hello world", 5, 2)
    assert response.scheduled_ns <= (response.sent_ns or 0) <= (response.first_token_ns or 0)
    assert response.ttft_bound == "exact"  # one record holds the whole answer


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps")
def test_kernel_stamps_are_kept() -> None:
    with FaultServer(answer(NORMAL), server_context()) as server:
        with NativeDriver(Target(server.url, ca_file=ca_file())) as driver:
            responses = driver.drive([request(n) for n in range(20)], 2, lambda _: None)
            health = driver.health()
        assert server.connections == 2
    assert all(r.status == "ok" and r.receive_lag_s is not None and r.receive_lag_s >= 0 for r in responses)
    assert (health.stamps, health.user_stamps, health.first_tokens) == ("kernel", 0, 20)


def test_the_handshake_is_over_before_the_send_is_stamped() -> None:
    """The server takes its time over the handshake; TTFT does not see it, the send lag does."""

    class Slow(FaultServer):
        def _secured(self, sock: socket.socket) -> socket.socket:
            time.sleep(0.2)
            return super()._secured(sock)

    with (
        Slow(answer(NORMAL), server_context()) as server,
        NativeDriver(Target(server.url, ca_file=ca_file())) as driver,
    ):
        (response,) = driver.drive([request()], 1, lambda _: None)
    assert (response.send_lag_s or 0) > 0.19
    assert (response.sent_ns or 0) - response.scheduled_ns > 190_000_000


def test_many_connections_with_large_bodies() -> None:
    with FaultServer(answer(NORMAL), server_context()) as server:
        with NativeDriver(Target(server.url, ca_file=ca_file())) as driver:
            responses = driver.drive([request(n, 800_000) for n in range(56)], 28, lambda _: None)
        assert {r.status for r in responses} == {"ok"}
        assert all(len(call.body) > 800_000 for call in server.calls)
        assert server.connections == 28


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_names_and_addresses_are_verified(host: str) -> None:
    assert drive_one(answer(NORMAL), server_context(host), f"https://{host}:PORT/v1").status == "ok"


def not_trusted() -> ssl.SSLContext:
    return server_context(authority_of=trustme.CA())


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (expired_context, "its certificate is not accepted: certificate has expired"),
        (not_trusted, "its certificate is not accepted: "),
        (lambda: server_context("elsewhere.test"), "its certificate is not accepted: IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_accepted(context: Callable[[], ssl.SSLContext], why: str) -> None:
    response = drive_one(answer(NORMAL), context())
    assert (response.status, response.sent_ns, response.http_status) == ("refused", None, None)
    assert response.error is not None
    assert response.error.startswith("cannot connect to 127.0.0.1:")
    assert why.lower() in response.error.lower()


def test_the_wrong_host_is_named_though_another_address_of_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed, FaultServer(answer(NORMAL), server_context("elsewhere.test")) as server:
        closed.bind(("127.0.0.1", 0))

        async def resolve(target: Target) -> list[Any]:
            return [
                (socket.AF_INET, ("127.0.0.1", target.port)),
                (socket.AF_INET, ("127.0.0.1", closed.getsockname()[1])),
            ]

        monkeypatch.setattr(native, "_addresses_of", resolve)
        target = Target(server.url.replace("127.0.0.1", "localhost"), ca_file=ca_file())
        with NativeDriver(target) as driver:
            (response,) = driver.drive([request()], 1, lambda _: None)
    assert "hostname mismatch, certificate is not valid for 'localhost'" in (response.error or "")


def test_a_server_without_tls_is_refused() -> None:
    with (
        accepting(lambda sock: sock.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as url,
        NativeDriver(Target(url, ca_file=ca_file()), timeout_s=PATIENCE_S) as driver,
    ):
        (response,) = driver.drive([request()], 1, lambda _: None)
    assert response.status == "refused"
    assert "TLS failed: wrong version number" in (response.error or "")


def test_an_old_version_is_refused() -> None:
    context = server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    response = drive_one(answer(NORMAL), context)
    assert response.status == "refused"
    assert "TLS failed: " in (response.error or "")


@contextlib.contextmanager
def accepting(and_then: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that accepts one connection and then does as told; gives its https URL."""
    done = threading.Event()

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1)
            and_then(sock)
            done.wait(PATIENCE_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            done.set()
            thread.join(PATIENCE_S)


def test_silence_in_the_handshake_falls_under_the_deadline() -> None:
    with accepting(lambda _: None) as url, NativeDriver(Target(url, ca_file=ca_file()), timeout_s=0.2) as driver:
        (response,) = driver.drive([request()], 1, lambda _: None)
    assert (response.status, response.sent_ns) == ("timeout", None)
    assert response.error == "no complete answer within 0.2 s: no connection was made"


@pytest.mark.parametrize(
    ("and_then", "why"),
    [
        (lambda sock: sock.shutdown(socket.SHUT_RDWR), "TLS failed: closed by the server"),
        (lambda sock: sock.sendall(b"\x15\x03\x03\x00\x02\x02\x50"), "alert internal error"),
    ],
)
def test_an_end_within_the_handshake_is_refused(and_then: Callable[[socket.socket], None], why: str) -> None:
    with accepting(and_then) as url, NativeDriver(Target(url, ca_file=ca_file()), timeout_s=PATIENCE_S) as driver:
        (response,) = driver.drive([request()], 1, lambda _: None)
    assert response.status == "refused"
    assert why in (response.error or "")


def test_a_stream_cut_off_is_not_a_short_answer() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

    def ended(call: Call) -> bool:
        call.send(head + text_event("a") + FINISH + DONE)
        with contextlib.suppress(OSError):
            call.sock.unwrap()  # type: ignore[attr-defined]  # an SSLSocket here
        return True

    assert drive_one(answer(head + text_event("a") + FINISH, close=True)).status == "cut"
    assert drive_one(ended).status == "ok"
    response = drive_one(answer(HEAD, chunk(text_event("a")), close=True))
    assert (response.status, response.ttft_s is not None) == ("cut", True)
    assert "without the end of TLS" in (response.error or "")


def test_kept_connection_that_ends_in_good_order_is_retried_once() -> None:
    def script(call: Call) -> bool:
        call.send(NORMAL)
        call.sock.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError):
            call.sock.unwrap()  # type: ignore[attr-defined]  # an SSLSocket here
        return True

    with (
        FaultServer(script, server_context()) as server,
        NativeDriver(Target(server.url, ca_file=ca_file())) as driver,
    ):
        responses = driver.drive([request(n) for n in range(5)], 1, lambda _: None)
    assert [r.status for r in responses] == ["ok"] * 5


def test_a_client_certificate_that_is_asked_for_is_named() -> None:
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file())
    response = drive_one(answer(NORMAL), context)
    assert response.status in ("cut", "refused")
    assert "certificate required" in (response.error or "")


def test_the_key_goes_through_tls_and_is_never_repeated() -> None:
    def script(call: Call) -> bool:
        call.send(HEAD.replace(b"200 OK", b"401 sk-secret"))
        return True

    with FaultServer(script, server_context()) as server:
        target = Target(server.url, api_key="sk-secret", ca_file=ca_file())
        with NativeDriver(target) as driver:
            (response,) = driver.drive([request()], 1, lambda _: None)
        assert b"\r\nAuthorization: Bearer sk-secret\r\n" in server.calls[0].head + b"\r\n"
    assert response.http_status == 401
    assert "sk-secret" not in repr((response, target))


def test_a_file_without_certificates_is_refused_before_anything_starts(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("no certificate")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(EndpointError, match="is not a file of certificates"):
            Target("https://host/v1", ca_file=path)


def test_without_a_file_the_systems_authorities_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def status() -> str:
        with FaultServer(answer(NORMAL), server_context()) as server, NativeDriver(Target(server.url)) as driver:
            return driver.drive([request()], 1, lambda _: None)[0].status

    assert status() == "refused"
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file()))
    assert status() == "ok"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize(
    ("version", "command", "outcomes"),
    [
        ("-tls1_2", "r", {"ok", "cut"}),  # renegotiation, which is declined: the server may go on or give up
        ("-tls1_2", "R", {"ok", "cut"}),  # the same, and a certificate of the client's
        ("-tls1_3", "k", {"ok"}),  # new keys for what the server says
        ("-tls1_3", "K", {"ok"}),  # and for what the client says, who must answer
    ],
)
def test_a_server_that_wants_other_keys_in_mid_answer(
    version: str, command: str, outcomes: set[str], tmp_path: Path
) -> None:
    with (
        speaking_openssl(version, command, tmp_path / "server.pem") as url,
        NativeDriver(Target(url, ca_file=ca_file()), timeout_s=PATIENCE_S) as driver,
    ):
        (response,) = driver.drive([request()], 1, lambda _: None)
    assert response.status in outcomes
    assert response.text.startswith("a")


@contextlib.contextmanager
def speaking_openssl(version: str, command: str, pem: Path) -> Iterator[str]:
    """The openssl command as a server, with one of its commands in the middle of its answer; gives its URL."""
    authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    options = [version, "-crlf", "-naccept", "1", "-accept", address, "-cert", str(pem), "-key", str(pem)]
    with subprocess.Popen(
        ["openssl", "s_server", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        assert any(b"ACCEPT" in line for line in process.stdout)
        thread = threading.Thread(target=converse, args=(process, command))
        thread.start()
        try:
            yield f"https://{address}/v1"
        finally:
            process.terminate()
            thread.join(PATIENCE_S)


def converse(process: subprocess.Popen[bytes], command: str) -> None:
    """Say an answer line by line once the request has been printed."""
    keyboard = process.stdin
    assert keyboard is not None
    assert process.stdout is not None
    assert any(b"Content-Length" in line for line in process.stdout)
    head = b"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n"
    with contextlib.suppress(BrokenPipeError):
        for part in (head + text_event("a"), command.encode() + b"\n", text_event("b", "stop") + event("[DONE]")):
            keyboard.write(part)
            keyboard.flush()
            # A command is one only at the beginning of what is read from the keyboard.
            wait_until(lambda: process.poll() is not None or not unread_bytes(keyboard), "openssl has read it")
    with contextlib.suppress(BrokenPipeError):
        keyboard.close()


def unread_bytes(pipe: IO[bytes]) -> int:
    """What lies in a pipe that its reader has not taken yet."""
    (size_bytes,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(size_bytes)
