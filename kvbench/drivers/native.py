"""The native driver: sends requests and takes their times from the kernel's time stamps.

The clock of a client that parses, sends and waits for its turn on a busy machine is late by tens of milliseconds; the
kernel's stamp of the arriving segment is not. So a process of its own does nothing but read (`receiver`), and this one
writes, parses and decides. Send times and stamps are of one clock, CLOCK_REALTIME; `health` tells whether it stepped,
and how busy the client was.

    target -> native -> connection -> answer -> chunks, sse
                             ├> tls
                             └> link => receiver (process)
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import itertools
import os
import socket
import time
from typing import TYPE_CHECKING, Literal, Self

from kvbench.drivers.answer import Answer
from kvbench.drivers.connection import Connection, connect
from kvbench.drivers.receiver_link import ReceiverLink, stamp_reads
from kvbench.drivers.tls import Tls, TlsError
from kvbench.errors import DriverError
from kvbench.result.records import Response, alone
from kvbench.result.run_record import DriverRecord
from kvbench.this_host.clock import both_clocks_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from kvbench.drivers.target import Address, Target
    from kvbench.result.records import Conversation, Request

_TIMER_NS = 1_200_000  # epoll wakes up to 1 ms late: the rest of the wait is spent looking at the clock


class NativeDriver:
    """Drives one endpoint; connections are kept between calls of `drive`.

    Every request must ask for a stream (`"stream": true` in its body); an answer that is none fails the request.
    `timeout_s` is the deadline of one request from the moment its slot takes it up: connecting, silence and a slow
    stream all fall under it. No failed request is sent again, with one exception: on a kept connection that the server
    closed before the first byte of an answer, which servers do when they have waited long enough.
    Proxy settings of the environment are ignored, because a proxy would be measured too.
    """

    name = "native"
    own_requests: tuple[Response, ...] = ()  # it sends nothing that it was not asked for

    def __init__(self, target: Target, *, timeout_s: float = 600.0, kernel_stamps: bool = True) -> None:
        """Start the receiver at once, so that it is ready when the first answer comes."""
        if timeout_s <= 0:
            raise DriverError(f"a timeout of {timeout_s:g} s lets no request end", "Give a timeout above zero.")
        self._target = target
        self._timeout_s = timeout_s
        self._stamp_holder = socket.socket()  # the kernel stamps nothing until one socket asks, and then not at once
        self._kernel_stamps = kernel_stamps and stamp_reads(self._stamp_holder)
        self._started_ns, self._started_monotonic_ns = both_clocks_ns()
        self._started_cpu_s = time.process_time()
        self._link = ReceiverLink()
        self._runner = asyncio.Runner()
        self._addresses: list[Address] = []
        self._idle: list[Connection] = []
        self._counts = {"connections_opened": 0, "retries": 0, "first_tokens": 0, "upper_bounds": 0, "user_stamps": 0}

    def __enter__(self) -> Self:
        """Return the driver itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections and end the receiver."""
        self.close()

    def close(self) -> None:
        """Close the connections and end the receiver; the driver cannot be used again, `health` can."""
        while self._idle:
            self._idle.pop().close()
        self._link.close()
        self._runner.close()
        self._stamp_holder.close()

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> list[Response]:
        """Send the requests in their order, at most `concurrency` at a time; return the responses in that order.

        Closed loop: a request starts when a slot is free, and is scheduled for that moment: the last byte of the answer
        before it, or the start of this call. Open loop: a request is scheduled for the moment at which it is due, and
        starts then or when a slot is free. The iterable is drawn from only then. Each response goes to `on_response` as
        soon as it ended. On Ctrl-C the requests that are out end as `cancelled`, go to `on_response` too, and
        KeyboardInterrupt is raised; the same where `on_response` raises.

        Raises:
            DriverError: the receiver died, no more files can be opened, or `concurrency` is below one.

        """
        responses: dict[int, Response] = {}

        def keep(number: int, response: Response) -> None:
            responses[number] = response
            on_response(response)

        self._hold(map(alone, requests), concurrency, keep)
        return [responses[number] for number in sorted(responses)]

    def converse(
        self, conversations: Iterable[Conversation], concurrency: int, on_response: Callable[[Response], None]
    ) -> None:
        """Hold the conversations, at most `concurrency` at a time, each turn by turn.

        Like `drive` in all else, but that nothing is kept: there may be a million requests. A conversation ends with
        the first request that fails.
        """
        self._hold(conversations, concurrency, lambda _, response: on_response(response))

    def _hold(
        self, conversations: Iterable[Conversation], concurrency: int, on_response: Callable[[int, Response], None]
    ) -> None:
        if concurrency < 1:
            raise DriverError(f"a concurrency of {concurrency} sends nothing", "Give a concurrency of at least 1.")
        self._runner.run(self._converse(iter(conversations), concurrency, on_response))

    async def _converse(
        self, conversations: Iterator[Conversation], concurrency: int, on_response: Callable[[int, Response], None]
    ) -> None:
        self._link.attach(asyncio.get_running_loop())
        numbers = itertools.count()
        start_ns = time.time_ns()

        async def ask(request: Request, free_ns: int) -> tuple[Response, int]:
            number = next(numbers)
            exchange = Exchange(request, await _scheduled(request, start_ns, free_ns))
            try:
                await self._perform(exchange)
            finally:
                if exchange.is_over:
                    response = self._respond(exchange)
                    on_response(number, response)
            return response, exchange.answer.complete_ns or time.time_ns()

        async def run_slot() -> None:
            free_ns = start_ns
            for conversation in conversations:
                response, request = None, next(conversation, None)
                while request is not None:
                    response, free_ns = await ask(request, free_ns)
                    request = _next_turn(conversation, response)

        slots = [asyncio.create_task(run_slot()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*slots)
        finally:
            for slot in slots:
                slot.cancel()
            await asyncio.gather(*slots, return_exceptions=True)

    async def _perform(self, exchange: Exchange) -> None:
        """Bring one exchange to an end within its deadline."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(exchange)
        except TimeoutError:
            exchange.stop("timeout", f"no complete answer within {self._timeout_s:g} s")
        except asyncio.CancelledError:
            exchange.stop("cancelled", "cancelled by the client")
            raise
        finally:
            exchange.is_over = self._link.failure is None
        if self._link.failure is not None:
            raise self._link.failure

    async def _exchange(self, exchange: Exchange) -> None:
        message = self._target.head(len(exchange.request.body)) + exchange.request.body
        kept = self._take_idle()
        if kept is not None:
            await self._send(exchange, kept, message)
            if exchange.answer.ending != "lost" or exchange.answer.received_bytes:
                return
            self._counts["retries"] += 1
            exchange.restart()
        try:
            connection = await self._connect()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            exchange.refusal = f"cannot connect to {self._target.host}:{self._target.port}: {reason}"
            return
        await self._send(exchange, connection, message)

    async def _send(self, exchange: Exchange, connection: Connection, message: bytes) -> None:
        try:
            exchange.begin(connection, message)
            await connection.wait()
        finally:
            if connection.is_reusable:
                self._idle.append(connection)
            else:
                connection.close()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        """Open a connection to the first address that accepts, and remember that address.

        A server with which TLS cannot begin has accepted: another address of the same name must not hide that.
        """
        self._addresses = self._addresses or await _addresses_of(self._target)
        refusal = OSError("the host has no address")
        for address in list(self._addresses):
            tls = Tls(self._target.tls, self._target.host) if self._target.tls is not None else None
            try:
                connection = await connect(address, self._link, kernel_stamps=self._kernel_stamps, tls=tls)
            except TlsError:
                raise
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    raise DriverError(
                        "no further connection can be opened: the limit of open files is reached",
                        "Raise the limit of open files (ulimit -n) or lower the concurrency.",
                    ) from error
                refusal = error
            else:
                self._addresses = [address]
                self._counts["connections_opened"] += 1
                return connection
        raise refusal

    def _respond(self, exchange: Exchange) -> Response:
        response = exchange.respond()
        if response.first_token_ns is not None:
            self._counts["first_tokens"] += 1
            self._counts["upper_bounds"] += response.ttft_bound == "upper"
            self._counts["user_stamps"] += response.receive_lag_s is None
        if response.error is None:
            return response
        return dataclasses.replace(response, error=self._target.redact(response.error))

    def health(self) -> DriverRecord:
        """Return how well the client itself did, since it was started.

        `stamps` is `user` where the kernel has no stamps, or as soon as one first token had none. `client_cpu_s` is
        the processor time of this process and the receiver. `clock_step_s` is by how much the wall clock moved against
        the monotonic one. `upper_bounds` counts the first tokens whose time is only an upper bound.
        """
        self._link.drain()
        now_ns, monotonic_ns = both_clocks_ns()
        wall_ns = monotonic_ns - self._started_monotonic_ns
        receiver_cpu_s = self._link.cpu_s()
        return DriverRecord(
            name=self.name,
            stamps="kernel" if self._kernel_stamps and not self._counts["user_stamps"] else "user",
            receiver_priority=self._link.priority,
            client_cpu_s=time.process_time() - self._started_cpu_s + receiver_cpu_s,
            receiver_cpu_s=receiver_cpu_s,
            wall_s=wall_ns / 1e9,
            clock_step_s=(now_ns - self._started_ns - wall_ns) / 1e9,
            retries=self._counts["retries"],
            first_tokens=self._counts["first_tokens"],
            upper_bounds=self._counts["upper_bounds"],
            user_stamps=self._counts["user_stamps"],
            connections_opened=self._counts["connections_opened"],
        )


async def _scheduled(request: Request, start_ns: int, free_ns: int) -> int:
    """Return the moment that a request is scheduled for; in an open loop wait for it."""
    if request.due_s is None:
        return free_ns
    due_ns = start_ns + round(request.due_s * 1e9)
    await asyncio.sleep(max(0, due_ns - _TIMER_NS - time.time_ns()) / 1e9)
    while time.time_ns() < due_ns:  # noqa: ASYNC110 - nobody can set an event at that moment
        await asyncio.sleep(0)
    return due_ns


def _next_turn(conversation: Conversation, response: Response) -> Request | None:
    if response.status != "ok":
        return None
    try:
        return conversation.send(response)
    except StopIteration:
        return None


class Exchange:
    """One request on its way: what was scheduled, when it was sent, and the answer so far."""

    def __init__(self, request: Request, scheduled_ns: int) -> None:
        """Nothing was sent yet."""
        self.request = request
        self.scheduled_ns = scheduled_ns
        self.sent_ns: int | None = None
        self.answer = Answer()
        self.refusal: str | None = None
        self.is_over = False

    def restart(self) -> None:
        """Forget what was sent in vain."""
        self.sent_ns, self.answer = None, Answer()

    def begin(self, connection: Connection, message: bytes) -> None:
        """Send on `connection`."""
        connection.send(message)
        self.sent_ns, self.answer = connection.sent_ns, connection.answer

    def stop(self, ending: Literal["timeout", "cancelled"], why: str) -> None:
        """Wait no longer, and say what was waited for."""
        progress = "no connection was made" if self.sent_ns is None else self.answer.progress
        self.answer.stop(ending, f"{why}: {progress}")

    def respond(self) -> Response:
        """Return what was seen."""
        if self.refusal is not None:
            return Response(self.request.request_id, "refused", self.scheduled_ns, error=self.refusal)
        return self.answer.respond(self.request, self.scheduled_ns, self.sent_ns)


async def _addresses_of(target: Target) -> list[Address]:
    """Look the host of an endpoint up.

    Raises:
        OSError: the name is unknown.

    """
    try:  # a number needs no thread
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]
