"""A raw-socket HTTP or HTTPS server whose every answer is a script, so that a test can break it at any byte."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from kvbench.result.records import Request
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}


def event(value: dict[str, Any] | str) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"data: {text}\n\n".encode()


def chunk(payload: bytes) -> bytes:
    return f"{len(payload):x}\r\n".encode() + payload + b"\r\n"


def text_event(text: str, finish_reason: str | None = None) -> bytes:
    return event({"model": "m", "choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]})


def delta_event(**delta: Any) -> bytes:
    return event({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def usage_event(**more: Any) -> bytes:
    return event({"model": "m", "choices": [], "usage": USAGE, **more})


DONE = event("[DONE]")
FINISH = text_event("", "stop")


def stream(*events: bytes) -> bytes:
    """A whole chunked answer with one HTTP chunk per event."""
    return HEAD + b"".join(chunk(e) for e in events) + LAST_CHUNK


NORMAL = stream(text_event("Hello"), text_event(" world"), FINISH, usage_event(kvbench={"overrun_s": 0.5}), DONE)


def plain(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def request(number: int = 0, size: int = 10) -> Request:
    body = json.dumps({"model": "m", "prompt": "x" * size, "stream": True}).encode()
    return Request(request_id=f"r{number}", prompt_id="p", phase="measure", isl_target=5, body=body)


@dataclass
class Call:
    """One request as the server sees it."""

    sock: socket.socket
    number: int
    connection: int
    head: bytes
    body: bytes

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def wait_for_close(self) -> None:
        """Hang until the client gives up."""
        with contextlib.suppress(OSError):
            self.sock.recv(1)


def answer(*pieces: bytes, close: bool = False) -> Callable[[Call], bool]:
    """Make a script that sends these pieces to every call, and closes the connection after them if told to."""

    def script(call: Call) -> bool:
        call.send(*pieces)
        return close

    return script


@dataclass
class FaultServer:
    """Runs `script` for each request; a script that returns True closes the connection.

    With a `context` it speaks TLS, and closes without the end of TLS unless the script sends it.
    """

    script: Callable[[Call], bool | None]
    context: ssl.SSLContext | None = None
    calls: list[Call] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    @property
    def url(self) -> str:
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __exit__(self, *_: object) -> None:
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def stop_listening(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._sockets.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock, self.connections))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        with sock, contextlib.suppress(OSError), self._secured(sock) as secured:
            self._sockets.append(secured)
            while True:
                found = read_request(secured)
                if found is None:
                    return
                with self._lock:
                    call = Call(secured, len(self.calls), connection, *found)
                    self.calls.append(call)
                if self.script(call):
                    return

    def _secured(self, sock: socket.socket) -> socket.socket:
        return sock if self.context is None else self.context.wrap_socket(sock, server_side=True)


def read_request(sock: socket.socket) -> tuple[bytes, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    body = bytearray(rest)
    while len(body) < length:
        more = sock.recv(1 << 20)
        if not more:
            return None
        body += more
    return head, bytes(body)
