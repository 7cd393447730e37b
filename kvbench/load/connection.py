"""One connection to the server under test: this process writes, the receiver reads, at most one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from kvbench.load.answer import Answer
from kvbench.load.link import stamp_reads

if TYPE_CHECKING:
    from kvbench.load.link import Read, ReceiverLink
    from kvbench.load.target import Address


class Connection:
    """A connected socket whose reads arrive from the receiver."""

    def __init__(self, sock: socket.socket, link: ReceiverLink, *, kernel_stamps: bool) -> None:
        """Take a connected, non-blocking socket; `adopt` makes it readable."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kernel_stamps:
            stamp_reads(sock)
        self.is_open = True
        self.answer = Answer()
        self.sent_ns: int | None = None
        self._socket = sock
        self._link = link
        self._number: int | None = None
        self._rest = memoryview(b"")
        self._ended = asyncio.Event()

    async def adopt(self) -> None:
        """Hand the reading side to the receiver."""
        self._number = await self._link.adopt(self._socket, self)

    @property
    def is_reusable(self) -> bool:
        """Whether another request can follow: the last one was sent and answered in full."""
        return self.is_open and not self._rest and self.answer.is_reusable

    def send(self, message: bytes) -> None:
        """Begin to send; what the kernel does not take at once follows when it has room, beside other connections."""
        self.answer = Answer()
        self._ended.clear()
        self._rest = memoryview(message)
        self.sent_ns = time.time_ns()
        self._push()

    async def wait(self) -> None:
        """Wait until the answer ended, however it ended."""
        try:
            await self._ended.wait()
        finally:
            asyncio.get_running_loop().remove_writer(self._socket)

    def _push(self) -> None:
        """Give the kernel what it takes now."""
        loop = asyncio.get_running_loop()
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # the receiver reports how the connection ended, after any answer that came before
            loop.remove_writer(self._socket)
            return
        if self._rest:
            loop.add_writer(self._socket, self._push)
        else:
            loop.remove_writer(self._socket)

    def receive(self, read: Read) -> None:
        """Take the bytes of one read."""
        self.answer.feed(read, self._decode(read.data))
        if self.answer.ending is not None:
            self._ended.set()

    @staticmethod
    def _decode(data: bytes) -> bytes:
        """Return plain bytes: the one place where TLS would take its records apart, after they were stamped."""
        return data

    def lose(self, reason: str | None) -> None:
        """Take the end of the connection."""
        self.is_open = False
        self.answer.lose(reason)
        self._ended.set()

    def close(self) -> None:
        """Close both sides; the receiver sees the end and lets go of the socket too."""
        self.is_open = False
        if self._number is not None:
            self._link.forget(self._number)
        with contextlib.suppress(OSError):  # the server was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


async def connect(address: Address, link: ReceiverLink, *, kernel_stamps: bool) -> Connection:
    """Open a connection.

    Raises:
        OSError: refused or unreachable.

    """
    family, sockaddr = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)  # non-blocking, as asyncio asks
        await asyncio.get_running_loop().sock_connect(sock, sockaddr)
        connection = Connection(sock, link, kernel_stamps=kernel_stamps)
        await connection.adopt()
    except BaseException:
        sock.close()
        raise
    return connection
