"""How many requests can a driver make with one core? Each driver in turn against a server that answers at once.

The server is as small as asyncio allows: it waits for the end of a body and writes one canned answer of eight events,
so that the client is what is measured. Requests per core = requests / the client's processor time from the first send
to the last token, AIPerf's own start left out. The rate that was reached stands beside it with the server's share of a
core: where that is near 100 %, the rate is the server's and only the requests per core are the client's.
Goal: native at least 5 times AIPerf's requests per core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_error import CONNECTIONS, candidates, figure

from kvbench.experiment.calibrate import Runner, Server, Settings
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.result.calibration_record import CalibrationCell

GOAL_RATIO = 5.0
PROMPT_TOKENS = 500
OUTPUT_TOKENS = 8


def main() -> int:
    """Print the table, and JSON if asked; return 1 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=2_800, help="of each driver and round, at least")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return 0
    settings = Settings((CONNECTIONS,), (PROMPT_TOKENS,), options.rounds, options.requests)
    with tempfile.TemporaryDirectory(dir=Path()) as folder, instant_server() as server:
        runner = Runner(server, settings, candidates(), Path(folder) / "rows.jsonl", Path(folder), say)
        cells = runner.run({"idle": contextlib.nullcontext})
    rates = {cell.driver: cell.n / cell.client_cpu_s for cell in cells}
    figures = [
        figure(f"requests per core: {name}", measured(cell, rates[name]), None, None)
        for name, cell in zip(rates, cells, strict=True)
    ]
    if "aiperf" in rates:
        ratio = rates["native"] / rates["aiperf"]
        goal = f">= {GOAL_RATIO:g}x"
        figures.append(figure("requests per core, native over AIPerf", f"{ratio:.1f}x", goal, ratio >= GOAL_RATIO))
    for line in figures:
        print(f"{line['figure']}: {line['measured']}")
    missed = [line for line in figures if line["met"] is False] or any(cell.failed for cell in cells)
    if options.json:
        options.json.write_text(
            json.dumps({"figures": figures, "cells": [to_json(cell) for cell in cells]}, indent=1) + "\n"
        )
    return 1 if missed else 0


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def measured(cell: CalibrationCell, per_core: float) -> str:
    """Write what a driver reached, and what the server did meanwhile."""
    cpu_s, measured_s = cell.server_cpu_s, cell.measured_s
    server = cpu_s / measured_s if cpu_s is not None and measured_s else None
    beside = "" if server is None else f", server {server:.0%} busy"
    failed = f", {cell.failed} failed" if cell.failed else ""
    return f"{per_core:,.0f}/s ({cell.achieved_rps or 0:,.0f}/s reached{beside}; n = {cell.n:,}{failed})"


@contextlib.contextmanager
def instant_server() -> Iterator[Server]:
    """Run the instant server in a process of its own."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                sys.exit("the instant server did not start")
            yield Server(json.loads(line)["url"], process.pid, 0.0)
        finally:
            process.terminate()


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}/v1", "pid": os.getpid()}), flush=True)
    async with server:
        await server.serve_forever()


class Instant(asyncio.Protocol):
    """One connection: whatever comes with a body gets the same answer as soon as the body is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server gives
        self._transport = transport
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._buffer) < end + 4 + size:
                return
            del self._buffer[: end + 4 + size]
            self._transport.write(ANSWER_HEAD + http_chunk(answer(time.time_ns())) + b"0\r\n\r\n")


def answer(now_ns: int) -> bytes:
    """Return the events of one answer; both stamps are the instant of its writing."""
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
    stamps = {"arrived_ns": now_ns, "first_chunk_sent_ns": now_ns}
    return TOKENS + event({"choices": [], "usage": usage, "kvbench": stamps}) + b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def http_chunk(payload: bytes) -> bytes:
    """Return one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


ANSWER_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKENS = b"".join(
    event({"choices": [{"index": 0, "text": " word", "finish_reason": "length" if last else None}]})
    for last in (*[False] * (OUTPUT_TOKENS - 1), True)
)


if __name__ == "__main__":
    sys.exit(main())
