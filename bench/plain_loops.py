"""Plain closed loops on aiohttp and httpx, as a user would write them: what a driver has to be better than.

Both take the time of the process's own clock when the line with the first text has been read, and send as soon as a
slot is free. They are driven as kvbench's own drivers are, so that a calibration can hold all against one server.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import httpx

from kvbench.result.records import Response
from kvbench.result.run_record import DriverRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from kvbench.drivers.target import Target
    from kvbench.result.records import Request

_HEADERS = {"Content-Type": "application/json"}


class Seen:
    """What a loop saw of one answer, line by line."""

    def __init__(self) -> None:
        """Nothing yet: the request leaves now."""
        self.sent_ns = time.time_ns()
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.usage: dict[str, Any] = {}
        self.server: dict[str, Any] = {}
        self.finish_reason: str | None = None

    def read(self, line: str) -> None:
        """Take one line of the stream."""
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        now_ns, value = time.time_ns(), json.loads(line[6:])
        for choice in value.get("choices", []):
            if choice.get("text"):
                self.first_ns = self.first_ns or now_ns
                self.last_ns = now_ns
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self.usage = value.get("usage") or self.usage
        self.server = value.get("kvbench") or self.server

    def response(self, request: Request, http_status: int) -> Response:
        """Return what was seen."""
        done = http_status == 200 and self.finish_reason is not None
        return Response(
            request_id=request.request_id,
            status="ok" if done else "cut",
            scheduled_ns=self.sent_ns,
            sent_ns=self.sent_ns,
            first_token_ns=self.first_ns,
            last_token_ns=self.last_ns,
            ttft_bound="exact" if self.first_ns else None,
            isl=self.usage.get("prompt_tokens"),
            osl=self.usage.get("completion_tokens"),
            http_status=http_status,
            finish_reason=self.finish_reason,
            server=self.server,
        )


class PlainLoop:
    """A closed loop; `send` is all that differs between the clients."""

    def __init__(self, target: Target) -> None:
        """Nothing is open yet."""
        self.url = f"{target.url.rstrip('/')}/completions"
        self._runner = asyncio.Runner()
        self._started_cpu_s = time.process_time()

    def __enter__(self) -> Self:
        """Open the client's session."""
        self._runner.run(self.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self._runner.run(self.close())
        self._runner.close()

    async def open(self) -> None:
        """Open the client's session."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close it."""
        raise NotImplementedError

    async def send(self, request: Request) -> Response:
        """Send one request and read its answer."""
        raise NotImplementedError

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> list[Response]:
        """Send the requests, at most `concurrency` at a time."""
        return self._runner.run(_closed_loop(requests, concurrency, self.send, on_response))

    def health(self) -> DriverRecord:
        """Say how much processor time this process has used."""
        return DriverRecord(type(self).__name__, stamps="user", client_cpu_s=time.process_time() - self._started_cpu_s)


async def _closed_loop(
    requests: Iterable[Request],
    concurrency: int,
    send: Callable[[Request], Awaitable[Response]],
    on_response: Callable[[Response], None],
) -> list[Response]:
    waiting, responses = iter(requests), []

    async def slot() -> None:
        for request in waiting:
            responses.append(await send(request))
            on_response(responses[-1])

    await asyncio.gather(*(slot() for _ in range(concurrency)))
    return responses


class AiohttpLoop(PlainLoop):
    """The loop on aiohttp."""

    async def open(self) -> None:
        """Open a session without a limit on connections."""
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def send(self, request: Request) -> Response:
        """Send one request and read its answer."""
        seen = Seen()
        async with self._session.post(self.url, data=request.body, headers=_HEADERS) as answer:
            async for line in answer.content:
                seen.read(line.decode().rstrip())
            return seen.response(request, answer.status)


class HttpxLoop(PlainLoop):
    """The loop on httpx."""

    async def open(self) -> None:
        """Open a client without a limit on connections."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113 - the server is ours

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def send(self, request: Request) -> Response:
        """Send one request and read its answer."""
        seen = Seen()
        async with self._client.stream("POST", self.url, content=request.body, headers=_HEADERS) as answer:
            async for line in answer.aiter_lines():
                seen.read(line)
            return seen.response(request, answer.status_code)
