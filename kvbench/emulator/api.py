"""The HTTP surface: routes, the event loop that wakes in time, start and stop.

`serve` prints one JSON line on stdout when it really serves, or one that says why it does not; all else is on stderr.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from aiohttp import web

from kvbench.emulator.blocks import token_ids
from kvbench.emulator.bodies import ApiError, read_json, read_messages, read_prompt
from kvbench.emulator.generate import check_model, generate, hash_politely
from kvbench.emulator.machine import Machine, assemble
from kvbench.emulator.metrics import another_worker, render
from kvbench.errors import KvbenchError, ServerError
from kvbench.lenient_json import text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvbench.emulator.settings import EmulatorSettings
    from kvbench.typed_json import JsonObject

LOGGER = logging.getLogger("kvbench.emulator")
MAX_BODY_BYTES = 64 * 1024 * 1024
SELECT_LIMIT = 1024
STOP_S = 0.5


class Api:
    """The routes of one machine."""

    def __init__(self, machine: Machine, api_key: str | None) -> None:
        """Remember the counters as they are now, for the faults that show nothing else."""
        self._machine = machine
        self._api_key = api_key
        self._started_s = int(time.time())
        self._first_metrics = render(machine.engine, machine.model)

    def application(self) -> web.Application:
        """Return the application with all routes."""
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        application.add_routes(
            [
                web.post("/v1/completions", self._complete),
                web.post("/v1/chat/completions", self._chat),
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/reset_prefix_cache", self._reset),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/kvbench/info", self._info),
                web.post("/kvbench/learn", self._learn),
            ]
        )
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask for the key on /v1, and write errors in OpenAI's form."""
        allowed = request.headers.get("Authorization") == f"Bearer {self._api_key}"
        if self._api_key is not None and not allowed and request.path.startswith("/v1/"):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except ApiError as error:
            return web.json_response(error.body, status=error.status)
        except web.HTTPRequestEntityTooLarge:
            return web.json_response(ApiError(413, f"the body is above {MAX_BODY_BYTES} bytes").body, status=413)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await generate(self._machine, request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await generate(self._machine, request, chat=True)

    async def _models(self, _request: web.Request) -> web.Response:
        machine = self._machine
        card: JsonObject = {"id": machine.model, "object": "model", "created": self._started_s}
        card |= {"owned_by": "kvbench", "root": machine.model, "max_model_len": machine.max_model_len}
        return web.json_response({"object": "list", "data": [card]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        value = read_json(await request.read())
        check_model(self._machine, text(value.get("model")))
        source = read_messages(value) if "messages" in value else read_prompt(value)
        prompt = await hash_politely(self._machine, source)
        body = {"count": prompt.tokens, "max_model_len": self._machine.max_model_len, "tokens": token_ids(source)}
        return web.json_response(body)

    async def _learn(self, request: web.Request) -> web.Response:
        """Hash a text beforehand, so that the processor time which that takes here falls into no measured request."""
        prompt = await hash_politely(self._machine, read_prompt(read_json(await request.read())))
        return web.json_response({"count": prompt.tokens})

    async def _reset(self, request: web.Request) -> web.Response:
        external = request.query.get("reset_external", "").lower() in ("true", "1")
        return web.json_response({"success": await self._machine.reset(external=external)})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.Response:
        machine = self._machine
        if "counters_frozen" in machine.faults:
            text = self._first_metrics
        elif "counters_other_worker" in machine.faults:
            text = another_worker(self._first_metrics, time.time() - self._started_s)
        else:
            text = render(machine.engine, machine.model, lookups_as_hits="lookups_as_hits" in machine.faults)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response(self._machine.info())


def serve(settings: EmulatorSettings) -> int:
    """Serve until SIGTERM or SIGINT; return 0, 1 if the start failed, or 2 if a setting cannot be meant."""
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG if settings.debug else logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            runner.run(_serve(settings))
    except KvbenchError as error:
        if settings.debug:
            LOGGER.exception("start failed")
        _say({"event": "failed", "message": error.message, "remedy": error.remedy})
        sys.stderr.write(f"kvbench: {error.message}\n  {error.remedy}\n")
        return error.exit_code
    return 0


def precise_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are good to some 0.1 ms.

    epoll takes its timeout in whole milliseconds and asyncio rounds up, so a token would leave up to 1 ms late; select
    takes microseconds. It cannot watch descriptors above 1,023, so the process is not allowed to open more: a client
    too many is then refused, where it would otherwise break the loop.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > SELECT_LIMIT:
        resource.setrlimit(resource.RLIMIT_NOFILE, (SELECT_LIMIT, hard))
    sys.setswitchinterval(0.0005)  # threads of the tiers must not keep the loop from a token for the usual 5 ms
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _serve(settings: EmulatorSettings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    api_key = _read_key(settings.api_key_env)
    listener = _bind(settings)
    try:
        machine = assemble(settings, loop)
        runner = web.AppRunner(
            Api(machine, api_key).application(),
            access_log=LOGGER if settings.debug else None,
            handler_cancellation=True,  # a client that leaves must free its place in the batch
            handle_signals=False,
            shutdown_timeout=STOP_S,
            read_bufsize=MAX_BODY_BYTES // 8,  # a long prompt is read without pausing the socket
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
    except BaseException:
        listener.close()
        raise
    gc.freeze()  # what lives for ever need not be looked at while tokens are due
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _say({"event": "ready", "url": f"http://{shown}:{port}/v1", "pid": os.getpid()})
    await stop.wait()
    await runner.cleanup()
    await _finish(machine)


def _read_key(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise ServerError(f"the environment variable {name} holds no key", f"Set {name}, or leave out --api-key-env.")
    return os.environ[name]


def _bind(settings: EmulatorSettings) -> socket.socket:
    """Listen before anything else is built, so that a taken port is told at once.

    Raises:
        ServerError: the address cannot be used.

    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is in use" if taken else f"cannot be used: {error}"
        raise ServerError(f"{settings.host}:{settings.port} {reason}", "Choose another --port, 0 for any.") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what it accepts
    return listener


async def _finish(machine: Machine) -> None:
    """Finish pending tier writes, within the bound that `drain` has."""
    if not await machine.drain():
        LOGGER.warning("some tier files were not written in time")
        os._exit(0)  # a thread that hangs in the disk would keep the interpreter from ending
    machine.close()


def _say(event: JsonObject) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
