"""The receiver on its own: it keeps reading when nobody listens, and ends with the driver."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from kvbench.drivers.receiver import SO_TIMESTAMPNS, read_stamp
from kvbench.drivers.receiver_link import ReceiverLink
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from kvbench.drivers.receiver_link import Read


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()
        self.reads: list[Read] = []
        self.end: list[str | None] = []
        self.over = asyncio.Event()

    def receive(self, read: Read) -> None:
        self.data += read.data
        self.reads.append(read)

    def lose(self, reason: str | None) -> None:
        self.end.append(reason)
        self.over.set()


async def read_until_end(link: ReceiverLink, sinks: list[Sink]) -> None:
    link.attach(asyncio.get_running_loop())
    async with asyncio.timeout(PATIENCE_S):
        for sink in sinks:
            await sink.over.wait()


def test_backlog_grows_while_the_driver_is_away() -> None:
    """All bytes are accepted before the driver reads a single record, and none is lost."""
    link = ReceiverLink()
    near, far = socket.socketpair()
    sink = Sink()
    payload = bytes(range(256)) * 16384

    async def hand_over() -> None:
        await link.adopt(near, sink)

    with near, far:
        asyncio.run(hand_over())
        far.settimeout(PATIENCE_S)
        far.sendall(payload)
        far.shutdown(socket.SHUT_WR)
        asyncio.run(read_until_end(link, [sink]))
    link.close()
    assert bytes(sink.data) == payload
    assert sink.end == [None]


def test_reset_is_reported_with_its_reason() -> None:
    link = ReceiverLink()
    sink = Sink()

    async def reset() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as sock,
        ):
            sock.settimeout(0)
            await link.adopt(sock, sink)
            peer, _ = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            peer.close()
            await read_until_end(link, [sink])

    asyncio.run(reset())
    link.close()
    assert sink.end == ["connection reset by peer"]


def test_ends_when_the_driver_dies() -> None:
    script = (
        "import os, signal; from kvbench.drivers.receiver_link import ReceiverLink; link = ReceiverLink();"
        "print(link._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        assert driver.stdout.readline()
        assert driver.stderr.read() == b""  # returns only when the receiver, too, has let go of it


def test_records_for_a_forgotten_connection_are_dropped() -> None:
    link = ReceiverLink()
    kept, forgotten = Sink(), Sink()

    async def run() -> None:
        pairs = [socket.socketpair(), socket.socketpair()]
        link.forget(await link.adopt(pairs[0][0], forgotten))
        await link.adopt(pairs[1][0], kept)
        for near, far in pairs:
            far.send(b"x")
            far.close()
            near.close()
        await read_until_end(link, [kept])

    asyncio.run(run())
    link.close()
    assert (bytes(kept.data), bytes(forgotten.data)) == (b"x", b"")


def test_stamps_in_ancillary_data() -> None:
    stamp = (5).to_bytes(8, sys.byteorder) + (7).to_bytes(8, sys.byteorder)
    assert read_stamp([(socket.SOL_SOCKET, SO_TIMESTAMPNS, stamp)]) == 5_000_000_007
    assert read_stamp([]) == 0
    assert read_stamp([(socket.SOL_SOCKET, SO_TIMESTAMPNS, stamp[:8])]) == 0
