"""How wrong is the native driver's TTFT? Held against a server that writes down when its first chunk left.

error = the driver's first_token_ns - the server's first_chunk_sent_ns, both of one host's CLOCK_REALTIME. Every row
counts. Cells: short and long prompts, on a quiet machine and beside processes that keep every core busy; the cells are
interleaved in rounds, so that slow drift meets all of them. The error of the driver's own user clock stands beside it.

    python bench/ttft_error.py                      against the emulator
    python bench/ttft_error.py --server reference   against the smallest server that can stamp: the floor of the method
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.load.native import NativeDriver
from kvbench.load.target import Target
from kvbench.records import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.records import Response

CONCURRENCY = 28
FIRST_TOKEN_S = 0.1
TOKEN_GAP_S = 0.02
OUTPUT_TOKENS = 8
GOAL_P99_US = 500
GOAL_UPPER_SHARE = 0.01

EMULATOR = [
    *("-m", "kvbench.emulator", "--profile", "gpt-oss-120b_rtx-pro-6000", "--cache", "off", "--port", "0"),
    *("--fixed-latency-ms", f"{FIRST_TOKEN_S * 1e3:g}", "--token-gap-ms", f"{TOKEN_GAP_S * 1e3:g}"),
]


@dataclass(frozen=True)
class Cell:
    """All rows of one prompt length under one load; errors in microseconds.

    `sending_us` is the server's arrival of the whole body minus the driver's send time: no error, but a part of TTFT
    in which the client has a hand.
    """

    isl: int
    machine: str
    n: int
    failed: int
    kernel_us: dict[str, float]
    user_us: dict[str, float]
    sending_us: dict[str, float]
    upper_share: float

    @property
    def meets_goals(self) -> bool:
        """Whether this cell keeps what the driver promises."""
        return not self.failed and self.kernel_us["p99"] <= GOAL_P99_US and self.upper_share <= GOAL_UPPER_SHARE


def main() -> int:
    """Run the rounds, print the table, and return 0 if every cell meets the goals."""
    options = parse_arguments()
    if options.serve:
        asyncio.run(serve())
        return 0
    rows: dict[tuple[int, str], list[Response]] = {}
    with started_server(options.server) as url, NativeDriver(Target(url), timeout_s=120) as driver:
        driver.drive(requests(500, CONCURRENCY), CONCURRENCY, lambda _: None)  # opens the connections
        for _ in range(options.rounds):
            for machine in ("idle", "busy"):
                with busy_cores(options.spinners if machine == "busy" else 0):
                    for isl, count in ((500, options.short), (130_000, options.long)):
                        responses = driver.drive(requests(isl, count), CONCURRENCY, lambda _: None)
                        rows.setdefault((isl, machine), []).extend(responses)
        health = driver.health()
    cells = [summarise(isl, machine, responses) for (isl, machine), responses in rows.items()]
    print_table(cells, health)
    if options.json:
        write_json(options, cells, health)
    return 0 if all(cell.meets_goals for cell in cells) else 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["emulator", "reference"], default="emulator")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", type=int, default=280, help="requests of 500 tokens per cell and round")
    parser.add_argument("--long", type=int, default=84, help="requests of 130,000 tokens per cell and round")
    parser.add_argument("--spinners", type=int, default=os.cpu_count(), help="processes that make the machine busy")
    parser.add_argument("--json", type=Path, help="write the cells there as well")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def requests(isl: int, count: int) -> list[Request]:
    """Return `count` requests of `isl` fixed-width words, one token each."""
    body = {
        "model": "gpt-oss-120b",
        "prompt": "token " * isl,
        "max_tokens": OUTPUT_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    encoded = json.dumps(body).encode()
    return [Request(f"{isl}-{number}", str(isl), "measure", isl, encoded) for number in range(count)]


@contextlib.contextmanager
def started_server(kind: str) -> Iterator[str]:
    """Start the server in a process of its own and yield its URL; stop it by its own pid."""
    arguments = EMULATOR if kind == "emulator" else [__file__, "--serve"]
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                sys.exit(f"the {kind} server did not start")
            yield json.loads(line)["url"]
        finally:
            process.terminate()


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep `count` cores busy with processes that only spin; end them by their own pids."""
    spinners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3 if spinners else 0)
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def summarise(isl: int, machine: str, responses: list[Response]) -> Cell:
    """Reduce the rows of one cell; only failed requests are left out, and they are counted."""
    good = [r for r in responses if r.status == "ok" and r.first_token_ns is not None]
    kernel_us = [((r.first_token_ns or 0) - int(r.server["first_chunk_sent_ns"])) / 1e3 for r in good]
    user_us = [error + (r.receive_lag_s or 0) * 1e6 for error, r in zip(kernel_us, good, strict=True)]
    sending_us = [(int(r.server["arrived_ns"]) - (r.sent_ns or 0)) / 1e3 for r in good]
    upper = sum(r.ttft_bound == "upper" for r in good)
    failed = len(responses) - len(good)
    share = upper / max(1, len(good))
    return Cell(isl, machine, len(good), failed, spread(kernel_us), spread(user_us), spread(sending_us), share)


def spread(values: list[float]) -> dict[str, float]:
    """Return order statistics; pXX is the smallest value that at least XX % of all values do not exceed."""
    ordered = sorted(values) or [float("nan")]
    ranks = {name: -(-len(ordered) * percent // 100) - 1 for name, percent in (("p50", 50), ("p90", 90), ("p99", 99))}
    return {
        "min": ordered[0],
        **{name: ordered[rank] for name, rank in ranks.items()},
        "max": ordered[-1],
        "mean": statistics.fmean(ordered),
    }


def print_table(cells: list[Cell], health: dict[str, Any]) -> None:
    """Print one line per cell, then how the client fared."""
    names = ("p50", "p90", "p99", "max")
    print(f"TTFT error in microseconds, {CONCURRENCY} connections; kernel stamp | user clock")
    heads = "".join(f"{name:>9}" for name in names)
    print(
        f"{'ISL':>7} {'machine':8}{'n':>6}{'failed':>7} |{heads} |{heads} | upper bounds  goals   sending p50      p99"
    )
    for cell in cells:
        figures = [
            " ".join(f"{spread_us[name]:8.0f}" for name in names) for spread_us in (cell.kernel_us, cell.user_us)
        ]
        goals = "met" if cell.meets_goals else "missed"
        print(
            f"{cell.isl:>7} {cell.machine:8}{cell.n:>6}{cell.failed:>7} | {figures[0]} | {figures[1]} |"
            f" {cell.upper_share:11.2%}  {goals:7} {cell.sending_us['p50']:8.0f} {cell.sending_us['p99']:8.0f}"
        )
    print("client:", json.dumps(health))


def write_json(options: argparse.Namespace, cells: list[Cell], health: dict[str, Any]) -> None:
    """Write the cells, the client's health and the world they were measured in."""
    world = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    settings = {
        "server": options.server,
        "rounds": options.rounds,
        "spinners": options.spinners,
        "concurrency": CONCURRENCY,
    }
    value = {**settings, "world": world, "health": health, "cells": [asdict(cell) for cell in cells]}
    options.json.write_text(json.dumps(value, indent=1) + "\n")


async def serve() -> None:
    """Run the reference server: fixed delays, and a stamp taken just before the first chunk is written."""
    server = await asyncio.start_server(answer_requests, "127.0.0.1", 0, limit=1 << 21)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"event": "ready", "url": f"http://127.0.0.1:{port}/v1", "pid": os.getpid()}), flush=True)
    async with server:
        await server.serve_forever()


async def answer_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until it closes."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
            await reader.readexactly(size)
            await stream_answer(writer, time.time_ns())


async def stream_answer(writer: asyncio.StreamWriter, arrived_ns: int) -> None:
    """Write the tokens at their times, then the usage with the stamp."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    first = http_chunk({"choices": [{"text": "a"}]})
    last = http_chunk({"choices": [{"text": "a", "finish_reason": "length"}]})
    writer.write(head)
    await asyncio.sleep(FIRST_TOKEN_S)
    sent_ns = time.time_ns()
    writer.write(first)
    for number in range(1, OUTPUT_TOKENS):
        await asyncio.sleep(TOKEN_GAP_S)
        writer.write(first if number < OUTPUT_TOKENS - 1 else last)
    server = {"arrived_ns": arrived_ns, "first_chunk_sent_ns": sent_ns}
    usage = {"prompt_tokens": 1, "completion_tokens": OUTPUT_TOKENS}
    writer.write(http_chunk({"choices": [], "usage": usage, "kvbench": server}))
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def http_chunk(value: dict[str, Any]) -> bytes:
    """Return one HTTP chunk that holds one event."""
    payload = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(payload), payload)


if __name__ == "__main__":
    sys.exit(main())
