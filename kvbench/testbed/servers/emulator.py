"""Starts kvbench's emulator as a server under test: a fresh process for each run."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING

from kvbench.errors import ServerError
from kvbench.scenario.server_spec import EmulatorSpec
from kvbench.testbed.servers.endpoint import Endpoint, root_of
from kvbench.testbed.servers.external import read_info
from kvbench.testbed.servers.kind import ServerKind
from kvbench.this_host.process import Started, last_line, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.scenario.models import Tiers
    from kvbench.typed_json import JsonObject

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
FIXED_MODEL = "gpt-oss-120b"
_LOG_REMEDY = "See the end of its log: {log}"


@contextlib.contextmanager
def serve(spec: EmulatorSpec, tiers: Tiers, log: Path, *, cache_on: bool, shared: bool = False) -> Iterator[Endpoint]:
    """Run an emulator while the context is open; without `cache_on` it neither reuses nor stores anything.

    With `shared` other emulators may use the directory of g4 meanwhile.

    Raises:
        ServerError: it did not get ready, died while it was waited for, or cannot use its tier path.

    """
    command = _command(spec, tiers, cache_on=cache_on)
    command += ["--g4-shared"] if shared and cache_on and tiers.g4 is not None else []
    with running(command, log, stop_s=_STOP_TIMEOUT_S, piped=True) as process:
        url = _wait_until_ready(process, log)
        yield Endpoint(
            url=url,
            model=spec.model,
            metrics_url=f"{root_of(url)}/metrics",
            pid=process.pid,
            tier_paths={name: tier.path for name, tier in tiers.directories.items()} if cache_on else {},
            info=read_info(url, None),
            started=Started("the emulator", process, log),
        )


@contextlib.contextmanager
def serve_fixed(log: Path, *, latency_s: float, token_gap_s: float) -> Iterator[tuple[str, int]]:
    """Run an emulator without a GPU model: it answers on a timetable and says when its first chunk left.

    Gives its URL and its pid. What a client sees beyond the timetable is the client's own error.

    Raises:
        ServerError: it did not get ready.

    """
    command = [sys.executable, "-m", "kvbench.emulator", "--model", FIXED_MODEL, "--cache", "off"]
    command += ["--fixed-latency-ms", f"{latency_s * 1e3:g}", "--token-gap-ms", f"{token_gap_s * 1e3:g}"]
    with running(command, log, stop_s=_STOP_TIMEOUT_S, piped=True) as process:
        yield _wait_until_ready(process, log), process.pid


def _command(spec: EmulatorSpec, tiers: Tiers, *, cache_on: bool) -> list[str]:
    command = [sys.executable, "-m", "kvbench.emulator", "--profile", spec.profile]
    command += ["--time", str(spec.scale.time), "--bytes", str(spec.scale.bytes)]
    command += ["--instances", str(spec.instances), "--io-threads", str(spec.io_threads)]
    command += ["--g1", str(tiers.g1), "--cache", "on" if cache_on else "off"]
    if cache_on:
        command += ["--g2", str(tiers.g2), "--write-policy", spec.write_policy]
        command += ["--admit-after-hits", str(spec.admit_after_hits), "--write-delay-ms", f"{spec.write_delay * 1e3:g}"]
        for name, tier in tiers.directories.items():
            command += [f"--{name}-path", str(tier.path), f"--{name}-capacity", str(tier.capacity)]
    # kvbench holds these directories for itself, so what an earlier experiment has left in them goes.
    command += ["--replace-others", "--fault-every", str(spec.fault_every)]
    for fault in spec.faults:
        command += ["--fault", fault]
    return command


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """Read the one line that the emulator prints when it serves, or when it cannot."""
    line = _first_line(process.stdout, time.monotonic() + _START_TIMEOUT_S)
    remedy = _LOG_REMEDY.format(log=log)
    try:
        event: JsonObject = json.loads(line)
    except ValueError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)  # its pipe may close a moment before it is gone
        state = "ended at once" if process.poll() is not None else f"was not ready after {_START_TIMEOUT_S:.0f} s"
        raise ServerError(f"the emulator {state}: {last_line(log)}", remedy) from None
    if event.get("event") != "ready":
        raise ServerError(str(event.get("message")), str(event.get("remedy") or remedy))
    return str(event["url"])


def _first_line(stream: IO[bytes] | None, deadline: float) -> bytes:
    assert stream is not None  # noqa: S101 - Popen was given a pipe
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(stream.fileno(), 65536)
            if not piece:
                break
            line += piece
    return line


KIND = ServerKind("emulator", EmulatorSpec, serve=serve, fresh_for_each_run=True)
