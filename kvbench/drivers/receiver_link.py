"""The driver's side of the receiver process: starts it, hands sockets over, and reads its records.

One Unix socket carries sockets one way and records the other. Records are dispatched to the connection they name; a
record for a connection that was closed meanwhile is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvbench.drivers.receiver import HANDOVER, HEADER, PRIORITY_RECORD, SO_TIMESTAMPNS
from kvbench.errors import DriverError

_READ_BYTES = 1 << 20
_SCRIPT = Path(__file__).with_name("receiver.py")


@dataclass(frozen=True, slots=True)
class Read:
    """Bytes that the receiver took in one read; `stamp_ns` is 0 where the kernel gave none."""

    data: bytes
    stamp_ns: int
    user_ns: int

    @property
    def arrived_ns(self) -> int:
        """The kernel's stamp, or the receiver's own clock where there is none."""
        return self.stamp_ns or self.user_ns


class Reader(Protocol):
    """What a connection does with the receiver's records."""

    def receive(self, read: Read) -> None:
        """Take bytes."""

    def lose(self, reason: str | None) -> None:
        """Take the end of the connection: None for an orderly one, else the system's reason."""


class ReceiverLink:
    """A running receiver; the process ends when this is closed, or when the driver dies."""

    def __init__(self) -> None:
        """Start the process without waiting for it; sockets can be handed over at once."""
        self._socket, remote = socket.socketpair()
        self._socket.settimeout(0)
        command = [sys.executable, "-I", "-S", str(_SCRIPT), str(remote.fileno())]
        with remote:
            self._process = subprocess.Popen(
                command, pass_fds=[remote.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._buffer = bytearray()
        self._readers: dict[int, Reader] = {}
        self._last_connection = PRIORITY_RECORD
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cpu_s = 0.0
        self.priority: str | None = None
        self.failure: DriverError | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take records whenever `loop` runs, beginning with those that wait already."""
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._socket, self.drain)
        self.drain()

    async def adopt(self, sock: socket.socket, reader: Reader) -> int:
        """Hand `sock` over for reading and return the number of the connection."""
        self._last_connection += 1
        number = self._last_connection
        while True:
            try:
                socket.send_fds(self._socket, [HANDOVER.pack(number)], [sock.fileno()])
            except BlockingIOError:  # the receiver has not started yet and many sockets wait for it
                await asyncio.sleep(0.001)
            except OSError:
                self._fail()
                raise receiver_lost() from None
            else:
                self._readers[number] = reader
                return number

    def forget(self, number: int) -> None:
        """Drop what still comes for a connection."""
        self._readers.pop(number, None)

    def drain(self) -> None:
        """Dispatch every record that is there now."""
        while self.failure is None and self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._fail()
                return
            self._buffer += data
            self._dispatch()

    def _dispatch(self) -> None:
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            number, stamp_ns, user_ns, size = HEADER.unpack_from(self._buffer, start)
            stop = start + HEADER.size + max(size, 0)
            if stop > len(self._buffer):
                break
            data = bytes(self._buffer[start + HEADER.size : stop])
            start = stop
            if number == PRIORITY_RECORD:
                self.priority = data.decode()
            elif reader := self._readers.get(number):
                if size > 0:
                    reader.receive(Read(data, stamp_ns, user_ns))
                else:
                    reader.lose(os.strerror(-size).lower() if size else None)
        del self._buffer[:start]

    def _fail(self) -> None:
        """Tell every waiting connection that the receiver is gone."""
        self.failure = receiver_lost()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        for reader in list(self._readers.values()):
            reader.lose("the receiver process ended")

    def cpu_s(self) -> float:
        """Return the processor time that the receiver has used; after its end, what was seen last."""
        if sys.platform == "linux" and self._process.poll() is None:
            # The clock of another process, as clock_getcpuclockid(3) computes its number; some sandboxes have none.
            with contextlib.suppress(OSError):
                self._cpu_s = time.clock_gettime((~self._process.pid << 3) | 2)
        return self._cpu_s

    def close(self) -> None:
        """Close the link, which ends the receiver, and wait for it."""
        self.cpu_s()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def receiver_lost() -> DriverError:
    """Return the error for a receiver that ended before the driver did."""
    return DriverError(
        "the receiver process ended while connections were open",
        "Look for its message above, or for the out-of-memory killer in the system log, and run again.",
    )


def stamp_reads(sock: socket.socket) -> bool:
    """Ask the kernel for receive stamps on `sock`; False where it has none."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True
