"""Talks to the agent of one side client, and notices when it falls silent.

Lives in the event loop of `HostThread`. Clocks: the controller's is wall time carried on by the monotonic clock; the
agent's is compared with it by pings, of which the one with the shortest round trip counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kvbench.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.testbed.hosts.protocol import Host, Process
    from kvbench.testbed.neighbors.agent_event import AgentEvent
    from kvbench.typed_json import JsonObject

LOST_AFTER_S = 3.0  # without a word, though an agent speaks several times a second
_PING_S = 1.0
_PINGS = 10
_HERE = Path(__file__).parent
_READ_ALL = "import sys;f=sys.stdin.buffer;exec(compile(f.read(int(f.read(8))),'kvbench-agent','exec'))"
BOOTSTRAP = ("python3", "-I", "-S", "-c", _READ_ALL)
_ANCHOR_NS = time.time_ns() - time.monotonic_ns()


def clock_ns() -> int:
    """Return the controller's clock: wall time that never steps."""
    return _ANCHOR_NS + time.monotonic_ns()


def agent_source() -> bytes:
    """Return the agent as one text: what it knows of its machine, then itself without its import of that."""
    surroundings, agent = ((_HERE / name).read_text() for name in ("agent_host.py", "agent.py"))
    start = agent.index("from __future__ import annotations\n")
    before, _, after = agent[start:].partition("from kvbench.testbed.neighbors.agent_host import (")
    imports = before.partition("\n")[2]  # what comes from the future comes first, and there already is
    return f"{surroundings}\n{imports}{after.partition(')')[2]}".encode()


class SideClient:
    """A conversation with one agent; `heard` gets every event with the controller's time of it."""

    def __init__(self, host: Host, heard: Callable[[SideClient, AgentEvent, int], None]) -> None:
        """Nothing is connected yet."""
        self.host = host
        self.hello: JsonObject = {}
        self.ready: JsonObject = {}
        self.offset_ns = 0  # agent's clock minus ours
        self.offset_error_ns = 0
        self.drift_ns = 0
        self.lost: tuple[str, int] | None = None  # why, and when it was noticed
        self.lost_after_s = LOST_AFTER_S
        self._heard = heard
        self._process: Process | None = None
        self._awaited: dict[str, asyncio.Future[AgentEvent]] = {}
        self._last_ns = 0
        self._leaving = False
        self._tasks: list[asyncio.Task[None]] = []
        self._sent_ns: dict[int, int] = {}
        self._pings: list[tuple[int, int]] = []  # (round trip, offset)

    @property
    def name(self) -> str:
        """The side client's name in the hosts file."""
        return self.host.name

    @property
    def there(self) -> bool:
        """Whether it is connected and prepared."""
        return self.lost is None and bool(self.ready)

    async def connect(self) -> None:
        """Reach the host, pipe the agent over, hear its hello, and compare clocks.

        Raises:
            HostError: the host cannot be reached or trusted, or has no Python that runs the agent.

        """
        await self.host.connect()
        self._process = await self.host.run(BOOTSTRAP)
        source = agent_source()
        await self._process.send(b"%08d" % len(source) + source)
        awaited = self._await("hello")
        self._last_ns = clock_ns()
        self._tasks = [asyncio.create_task(self._listen())]
        self.hello = cast("JsonObject", await self._within(awaited, "hello", 15.0))
        self._tasks.append(asyncio.create_task(self._mind()))
        for number in range(-_PINGS, 0):
            await self._ping(number, wait=True)
        (round_trip_ns, self.offset_ns), self._pings = min(self._pings), []
        self.offset_error_ns = round_trip_ns // 2

    async def ask(self, order: str, answer: str, within_s: float, **fields: Any) -> AgentEvent:
        """Send an order and wait for its answer.

        Raises:
            HostError: it was refused, there was no answer in time, or the host was lost.

        """
        awaited = self._await(answer)
        await self.send(order, **fields)
        return await self._within(awaited, answer, within_s)

    async def send(self, order: str, **fields: Any) -> None:
        """Send an order; whether it arrives shows in the answer."""
        if self._process is not None:
            await self._process.send(json.dumps({"order": order, **fields}).encode() + b"\n")

    async def leave(self) -> list[str]:
        """Say bye, wait until the agent has stopped and removed everything, and let go; return what stayed."""
        left: list[str] = []
        self._leaving = True
        if self._process is not None and self.lost is None and self.hello:
            with contextlib.suppress(HostError):
                left = (await self.ask("bye", "gone", 8.0))["left"]
        await self._let_go()
        return left

    def to_ours(self, agent_ns: int) -> int:
        """Return a reading of the agent's clock as one of ours."""
        return agent_ns - self.offset_ns

    async def _let_go(self) -> str:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        said = ""
        if self._process is not None:
            said = await self._process.end(3.0 if self.lost is None else 0.5)
            self._process = None
        await self.host.close()
        return said

    async def _listen(self) -> None:
        """Read events until the end; an end that nobody asked for is a loss."""
        assert self._process is not None  # noqa: S101 - connect has started it
        while line := await self._process.line():
            now_ns = clock_ns()
            with contextlib.suppress(ValueError):  # a login banner
                self._take(json.loads(line), now_ns)
        if not self._leaving and self.lost is None:
            # What it said last explains the end best, and comes with it.
            process, self._process = self._process, None
            said = await process.end(0.3)
            self._lose(said.splitlines()[-1] if said else "its agent ended")

    def _take(self, event: AgentEvent, now_ns: int) -> None:
        self._last_ns = now_ns
        name = event["event"]
        if name == "pong" and event["number"] in self._sent_ns:
            sent_ns = self._sent_ns.pop(event["number"])
            self._pings.append((now_ns - sent_ns, event["clock_ns"] - (sent_ns + now_ns) // 2))
            self.drift_ns = min(self._pings[-_PINGS:])[1] - self.offset_ns
        if name == "ready":
            self.ready = cast("JsonObject", event)
        if name == "gone" and not self._leaving:
            self._lose(f"its agent left: {event['why']}")
        if name == "final" and "started" in self._awaited:
            said = (event["output"].strip().splitlines() or [f"exit code {event['code']}"])[-1]
            self._fail(HostError(f"{self.name}: its generator ended at once: {said}", "Mend what it complains about."))
        if name == "error":
            self._fail(HostError(f"{self.name}: {event['message']}", event["remedy"]))
        awaited = self._awaited.pop(name, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(event)
        self._heard(self, event, now_ns)

    async def _mind(self) -> None:
        """Ping each second, so that the agent knows that we live, and miss it when it says nothing."""
        number = 0
        while self.lost is None:
            await self._ping(number)
            number += 1
            for _ in range(4):
                await asyncio.sleep(_PING_S / 4)
                if clock_ns() - self._last_ns > self.lost_after_s * 1e9 and not self._leaving:
                    self._lose(f"no word for {self.lost_after_s:g} s")

    async def _ping(self, number: int, *, wait: bool = False) -> None:
        awaited = self._await("pong") if wait else None
        self._sent_ns[number] = clock_ns()
        await self.send("ping", number=number)
        if awaited is not None:
            await self._within(awaited, "pong", 5.0)

    def _lose(self, why: str) -> None:
        if self.lost is None:
            now_ns = clock_ns()
            self.lost = (why, now_ns)
            self._fail(HostError(f"{self.name}: lost: {why}", "Check that host, its sshd and the way to it."))
            self._heard(self, {"event": "lost", "why": why, "clock_ns": now_ns + self.offset_ns}, now_ns)

    def _await(self, answer: str) -> asyncio.Future[AgentEvent]:
        future = asyncio.get_running_loop().create_future()
        self._awaited[answer] = future
        return future

    def _fail(self, fault: HostError) -> None:
        awaited, self._awaited = self._awaited, {}
        for future in awaited.values():
            if not future.done():
                future.set_exception(fault)
                future.exception()  # it may be that nobody waits any more

    async def _within(self, future: asyncio.Future[AgentEvent], answer: str, within_s: float) -> AgentEvent:
        try:
            return await asyncio.wait_for(future, within_s)
        except TimeoutError:
            text = f"{self.name}: no `{answer}` from its agent within {within_s:g} s"
            raise HostError(text, "Check that host's load, and that python3 starts there.") from None
