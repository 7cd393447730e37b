"""A fake host: its agent answers orders from a table, moves bytes by arithmetic, and can be lost."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from kvbench.errors import HostError
from kvbench.testbed.neighbors import agent_host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.testbed.hosts.file import Reach
    from kvbench.testbed.hosts.protocol import Process

HELLO = {
    "protocol": agent_host.PROTOCOL,
    "python": "3.8.18",
    "kernel": "6.1",
    "host": "fake",
    "cores": 8,
    "pid": 4242,
    "network": "net:[1]",
    "congestion_control": "cubic",
    "fio": "fio-3.33",
    "iperf3": "iperf 3.12 (cJSON 1.7.15)",
}


class FakeProcess:
    """An agent that only talks; `skew_ns` is how far its clock is ahead."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._running: tuple[int, float] | None = None  # since when, and how fast
        self.silent = False
        self.cut = False
        host.process = self

    def clock_ns(self) -> int:
        return time.time_ns() + self._host.skew_ns

    def say(self, event: str, **fields: Any) -> None:
        if not self.silent and not self.cut:
            line = json.dumps({"clock_ns": self.clock_ns(), **fields, "event": event})
            self._lines.put_nowait(line.encode() + b"\n")

    def lose(self) -> None:
        """End as a broken connection does."""
        self.cut = True
        self._lines.put_nowait(b"")

    def end_generator(self, **final: Any) -> None:
        self.say("final", moved=self._moved(), why="itself", code=1, stop_s=None, document=None, output="boom", **final)
        self._running = None

    async def send(self, data: bytes) -> None:
        if data[:8].isdigit():
            self._host.log.append(f"{self._host.name}: piped")
            self.say("hello", **{**HELLO, "boot_id": self._host.name, **self._host.hello})
            self._tasks.append(asyncio.create_task(self._sample()))
            return
        for line in data.splitlines():
            self._obey(json.loads(line))

    async def line(self) -> bytes:
        return await self._lines.get()

    async def end(self, within_s: float) -> str:  # noqa: ARG002 - the protocol's
        for task in self._tasks:
            task.cancel()
        self._host.log.append(f"{self._host.name}: let go")
        return "Connection lost" if self.cut else ""

    def _obey(self, order: dict[str, Any]) -> None:
        name = order["order"]
        if name == "ping":
            self.say("pong", number=order["number"])
            return
        self._host.orders.append(order)
        self._host.log.append(f"{self._host.name}: {name}")
        if name in self._host.refuses:
            self.say("error", message=self._host.refuses[name], remedy="Mend it.")
        elif name == "prepare":
            self.say("ready", disk=self._host.disk, file_system="ext4", direct="enforced", queue={})
        elif name == "go":
            self._go(order)
        elif name == "stop":
            self.say("final", moved=self._moved(), why="stop", code=128, stop_s=0.05, document=None, output="")
            self._running = None
        elif name == "sweep":
            self.say("swept", removed=[f"{order['directory']}/.kvbench/old"], kept=[])
        elif name == "bye":
            self.say("gone", left=[], why="bye")

    def _go(self, order: dict[str, Any]) -> None:
        rates = [int(word.split("=")[1]) for word in order["command"] if word.startswith("--rate=")]
        jobs = [int(word.split("=")[1]) for word in order["command"] if word.startswith("--numjobs=")]
        asked = rates[0] * jobs[0] if rates else self._host.reaches
        began_ns = max(order["at_ns"], self.clock_ns())
        self._running = (began_ns, min(asked, self._host.reaches))
        self.say("started", pid=99, at_ns=began_ns)

    def _moved(self) -> list[int] | None:
        if self._running is None:
            return None
        began_ns, rate = self._running
        return [self.clock_ns(), max(0, int((self.clock_ns() - began_ns) / 1e9 * rate))]

    async def _sample(self) -> None:
        total, last_ns = 0.0, self.clock_ns()
        while True:
            await asyncio.sleep(0.1)
            now_ns = self.clock_ns()
            rate = self._running[1] if self._running and now_ns > self._running[0] else 0.0
            total, last_ns = total + rate * 1.05 * (now_ns - last_ns) / 1e9, now_ns
            disk = [int(total), 0] if self._host.disk else None
            cpu = {"busy": 1, "all": 2, "steal": 0}
            self.say("sample", moved=self._moved(), disk=disk, nic=[int(total), 0], cpu=cpu, psi={})


class FakeHost:
    """A host whose agent is `FakeProcess`; `log` is shared, so that the order over all hosts can be read."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.orders: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self.refuses: dict[str, str] = {}
        self.unreachable: str | None = None
        self.reaches = 100e6
        self.skew_ns = 0
        self.disk: str | None = "sda"
        self.process: FakeProcess | None = None

    def describe(self, command: Sequence[str]) -> str:
        return f"on {self.name}: {command[0]}"

    async def connect(self) -> None:
        self.log.append(f"{self.name}: connect")
        if self.unreachable is not None:
            raise HostError(f"{self.name}: {self.unreachable}", "Mend it.")

    async def run(self, command: Sequence[str]) -> Process:  # noqa: ARG002 - the protocol's
        return FakeProcess(self)

    async def close(self) -> None:
        self.log.append(f"{self.name}: close")


class FakeSite:
    """Fake hosts by name, made when they are asked for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.hosts: dict[str, FakeHost] = {}

    def __getitem__(self, name: str) -> FakeHost:
        return self.hosts.setdefault(name, FakeHost(name, self.log))

    @property
    def reach(self) -> Callable[[str, Reach], FakeHost]:
        return lambda name, _: self[name]
