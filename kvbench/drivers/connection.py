"""One connection to the server under test: this process writes, the receiver reads, at most one request at a time.

With TLS the same holds: the receiver reads and stamps records, and here they are opened. The handshake is over before
the request is stamped as sent, as the connection is, and so is the encryption of the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from kvbench.drivers.answer import Answer
from kvbench.drivers.receiver_link import Read, stamp_reads
from kvbench.drivers.tls import Tls, TlsError

if TYPE_CHECKING:
    from kvbench.drivers.receiver_link import ReceiverLink
    from kvbench.drivers.target import Address


class Connection:
    """A connected socket whose reads arrive from the receiver."""

    def __init__(self, sock: socket.socket, link: ReceiverLink, *, kernel_stamps: bool, tls: Tls | None = None) -> None:
        """Take a connected, non-blocking socket; `adopt` makes it readable."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kernel_stamps:
            stamp_reads(sock)
        self.is_open = True
        self.answer = Answer()
        self.sent_ns: int | None = None
        self._socket = sock
        self._link = link
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._number: int | None = None
        self._rest = memoryview(b"")
        self._ended = asyncio.Event()
        self._heard = asyncio.Event()
        self._why_lost: str | None = None

    async def adopt(self) -> None:
        """Hand the reading side to the receiver, and begin TLS where it is asked for.

        Raises:
            TlsError: the server does not speak TLS, has no valid certificate, or went away.

        """
        self._number = await self._link.adopt(self._socket, self)
        if self._tls is not None:
            await self._secure(self._tls)

    async def _secure(self, tls: Tls) -> None:
        """Shake hands; what the server says comes as reads."""
        try:
            while self.is_open and not tls.shake_hands():
                self._queue(tls.outgoing())
                self._heard.clear()
                await self._heard.wait()
            self._open(tls, Read(b"", 0, 0))  # what came with the end of the handshake
        finally:
            self._queue(tls.outgoing())  # the end of the handshake, or the alert that tells the server why
        if not self.is_open:
            raise TlsError(f"TLS failed: {self._why_lost or 'closed by the server'}")

    @property
    def is_reusable(self) -> bool:
        """Whether another request can follow: the last one was sent and answered in full."""
        return self.is_open and not self._rest and self.answer.is_reusable

    def send(self, message: bytes) -> None:
        """Begin to send; what the kernel does not take at once follows when it has room, beside other connections."""
        self.answer = Answer()
        self._ended.clear()
        self._rest = memoryview(message if self._tls is None else bytes(self._rest) + self._tls.seal(message))
        self.sent_ns = time.time_ns()
        self._push()

    def _queue(self, data: bytes) -> None:
        """Send what TLS itself has to say, behind what is on its way already."""
        if data:
            self._rest = memoryview(bytes(self._rest) + data)
            self._push()

    async def wait(self) -> None:
        """Wait until the answer ended, however it ended."""
        try:
            await self._ended.wait()
        finally:
            self._loop.remove_writer(self._socket)

    def _push(self) -> None:
        """Give the kernel what it takes now."""
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # the receiver reports how the connection ended, after any answer that came before
            self._loop.remove_writer(self._socket)
            return
        if self._rest:
            self._loop.add_writer(self._socket, self._push)
        else:
            self._loop.remove_writer(self._socket)

    def receive(self, read: Read) -> None:
        """Take the bytes of one read."""
        if self._tls is None:
            self.answer.feed(read, read.data)
        elif self._tls.is_ready:
            self._receive_records(self._tls, read)
        else:
            self._tls.take(read.data)
            self._heard.set()
        if self.answer.ending is not None:
            self._ended.set()

    def _receive_records(self, tls: Tls, read: Read) -> None:
        """Open the records of a read; what TLS has to answer is sent at once, because the server may wait for it."""
        try:
            self._open(tls, read)
        except TlsError as error:
            self.lose(str(error))
        if tls.unread_bytes:
            self.answer.feed_unread(read)
        self._queue(tls.outgoing())

    def _open(self, tls: Tls, read: Read) -> None:
        for content in tls.open(read.data):
            self.answer.feed_record(read, content)
        if tls.is_over:
            self.lose(None)

    def lose(self, reason: str | None) -> None:
        """Take the end of the connection; under TLS an end that TLS does not confirm may be a cut."""
        if reason is None and self._tls is not None and self._tls.is_ready and not self._tls.is_over:
            reason = "closed by the server without the end of TLS"
        self.is_open = False
        self._why_lost = reason
        self.answer.lose(reason)
        self._ended.set()
        self._heard.set()

    def close(self) -> None:
        """Close both sides; the receiver sees the end and lets go of the socket too."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_writer(self._socket)
        if self._number is not None:
            self._link.forget(self._number)
        with contextlib.suppress(OSError):  # the server was faster
            if self._tls is not None and self._tls.is_ready and self.is_open and not self._rest:
                self._socket.send(self._tls.farewell())
            self._socket.shutdown(socket.SHUT_RDWR)
        self.is_open = False
        self._socket.close()


async def connect(address: Address, link: ReceiverLink, *, kernel_stamps: bool, tls: Tls | None = None) -> Connection:
    """Open a connection, ready for a request.

    Raises:
        OSError: refused or unreachable; TlsError where the address accepted and TLS could not begin.

    """
    family, sockaddr = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)  # non-blocking, as asyncio asks
        await asyncio.get_running_loop().sock_connect(sock, sockaddr)
        connection = Connection(sock, link, kernel_stamps=kernel_stamps, tls=tls)
    except BaseException:
        sock.close()
        raise
    try:
        await connection.adopt()
    except BaseException:
        connection.close()
        raise
    return connection
