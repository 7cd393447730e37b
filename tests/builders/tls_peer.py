"""A server's end of TLS in memory, so that a test decides which bytes come in which read; and certificates for it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import socket
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trustme

from kvbench.drivers.connection import Connection
from kvbench.drivers.receiver_link import Read
from kvbench.drivers.tls import Tls
from kvbench.this_host import tls_trust
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from kvbench.drivers.receiver_link import Reader

_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def ca_file() -> Path:
    """A file with the authority's certificate, for the life of the process."""
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    path = Path(folder.name) / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


def server_context(*names: str, authority_of: trustme.CA | None = None, **options: Any) -> ssl.SSLContext:
    """A context for a server at 127.0.0.1, localhost, or the names given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (authority_of or authority()).issue_cert(*(names or ("127.0.0.1", "localhost")), **options).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def expired_context() -> ssl.SSLContext:
    return server_context("127.0.0.1", not_after=dt.datetime.now(dt.UTC) - dt.timedelta(days=1))


@dataclass
class Peer:
    """A client's connection whose server is an `SSLObject` here; reads are handed to it one by one."""

    context: ssl.SSLContext = field(default_factory=server_context)
    host: str = "127.0.0.1"

    async def __aenter__(self) -> Self:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            self.far, _ = listener.accept()
        near.settimeout(0)
        self.far.settimeout(PATIENCE_S)
        client = Tls(tls_trust.context_for(ca_file()), self.host)
        self.connection = Connection(near, SilentLink(), kernel_stamps=False, tls=client)  # type: ignore[arg-type]
        self._reads = 0
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.close()
        self.far.close()

    async def shake_hands(self) -> bytes:
        """Go through the handshake; return what the server says after it, its session tickets."""
        adopting = asyncio.create_task(self.connection.adopt())
        while True:
            for _ in range(5):  # the client's turn
                await asyncio.sleep(0)
            self.hear()
            is_done = False
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                is_done = True
            said = self._outgoing.read()
            if is_done and self.tls.version() == "TLSv1.3":
                break
            self.give(said)
            if is_done:
                said = b""
                break
        await adopting
        return said

    def hear(self) -> None:
        """Take what the client has sent."""
        self._incoming.write(self.far.recv(1 << 20))

    def seal(self, content: bytes) -> bytes:
        """One record that holds `content`, and whatever the server has to say before it."""
        assert self.tls.write(content) == len(content)
        return self._outgoing.read()

    def end(self) -> bytes:
        """The record that ends the stream."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def alert(self) -> bytes:
        """The alert by which the server answers bytes that are no record."""
        self._incoming.write(b"this is not a record of TLS")
        with contextlib.suppress(ssl.SSLError):
            self.tls.read(1)
        return self._outgoing.read()

    def give(self, *reads: bytes) -> None:
        """Hand over one read each, stamped 100, 200, ... and seen 7 ns later."""
        for data in reads:
            if data:
                self._reads += 1
                self.connection.receive(Read(data, 100 * self._reads, 100 * self._reads + 7))

    def ask(self, message: bytes) -> bytes:
        """Let the client send `message`, and return it as the server understands it."""
        self._reads = 0
        self.connection.send(message)
        self.hear()
        return self.tls.read(1 << 14)


class SilentLink:
    """A link whose reads come from the test."""

    async def adopt(self, _sock: socket.socket, _reader: Reader) -> int:
        return 1

    def forget(self, number: int) -> None:
        """Nothing is kept."""
