"""Measures each driver's timing error against a server that writes down when its first chunk leaves.

The server is the emulator on a fixed timetable, in a process of its own on this host, so that its stamps and the
driver's are of one clock (CLOCK_REALTIME). Cells take turns over several rounds, so that slow drift of the machine
meets all of them. What the rows mean is decided in `calibration`; this module only makes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kvbench.drivers import aiperf
from kvbench.drivers.native import NativeDriver
from kvbench.drivers.target import Target
from kvbench.errors import DriverError, OptionError
from kvbench.result.calibration import FILE, FOLDER, CalibrationRow, CellKey, Effort, in_turns, make_row, summarise_cell
from kvbench.result.files import storage_faults, write_json
from kvbench.result.records import Request
from kvbench.testbed.servers import emulator
from kvbench.this_host import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from kvbench.result.calibration_record import CalibrationCell
    from kvbench.result.records import Response
    from kvbench.result.run_record import DriverRecord

MOST_CONNECTIONS = 900  # the emulator watches at most 1,024 descriptors
_TIMEOUT_S = 120.0
_LONG_TOKENS = 10_000
_LATENCY_S = 0.1
_TOKEN_GAP_S = 0.02


class Client(Protocol):
    """What a calibration asks of a driver."""

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> Sequence[Response]:
        """Send the requests in order, at most `concurrency` at a time, and return the responses."""

    def health(self) -> DriverRecord:
        """Say how much processor time it has used, as `client_cpu_s`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A driver to be calibrated: how it is opened, whether it is kept open between calls, and a check that it is there.

    One that is kept sends requests that are thrown away first, as a run's warmup does; one that starts a process for
    each call is opened anew for each, in an empty folder that is deleted after it.
    """

    open: Callable[[Target, Path], AbstractContextManager[Client]]
    is_kept: bool = True
    check: Callable[[], object] = lambda: None


def _open_native(target: Target, _folder: Path) -> AbstractContextManager[Client]:
    return NativeDriver(target, timeout_s=_TIMEOUT_S)


def _open_aiperf(target: Target, folder: Path) -> AbstractContextManager[Client]:
    return aiperf.AiperfDriver(target, folder, timeout_s=_TIMEOUT_S)


def _check_aiperf() -> None:
    aiperf.find()


CANDIDATES: dict[str, Candidate] = {
    "native": Candidate(_open_native),
    "aiperf": Candidate(_open_aiperf, is_kept=False, check=_check_aiperf),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured: every combination of connections and prompt length, so many rounds of each.

    `requests` is the least number of requests that a cell gets in a round; with three rounds, the default of 100 gives
    every cell as many rows as a 99th percentile needs.
    """

    connections: tuple[int, ...] = (1, 28, 100)
    prompt_tokens: tuple[int, ...] = (500, 130_000)
    rounds: int = 3
    requests: int = 100
    output_tokens: int = 8

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            OptionError: a number is out of range.

        """
        if not self.connections or not all(1 <= count <= MOST_CONNECTIONS for count in self.connections):
            raise OptionError(
                f"a calibration drives 1 to {MOST_CONNECTIONS} connections, not {_listed(self.connections)}",
                "Give numbers such as --connections 1,28,100.",
            )
        if not self.prompt_tokens or not all(1 <= tokens <= 131_000 for tokens in self.prompt_tokens):
            raise OptionError(
                f"the emulator takes prompts of 1 to 131000 tokens, not {_listed(self.prompt_tokens)}",
                "Give numbers such as --prompt-tokens 500,130000.",
            )
        for name in ("rounds", "requests", "output_tokens"):
            if (count := getattr(self, name)) < 1:
                words = name.replace("_", " ")
                raise OptionError(f"a calibration cannot have {count} {words}", f"Give at least 1 for {words}.")

    def requests_of(self, key: CellKey) -> int:
        """Return the requests of a cell in one round: whole turns of all connections, fewer where prompts are long."""
        turns = 4 if key.prompt_tokens >= _LONG_TOKENS else 10
        turns = max(turns, -(-self.requests // key.connections))
        return turns * key.connections


@dataclass(frozen=True, slots=True)
class Server:
    """The server that the drivers are held against, and the pid by which its processor time is known."""

    url: str
    pid: int
    token_gap_s: float


def calibrate(drivers: Sequence[str], settings: Settings, results: Path, tell: Callable[[str], None]) -> Path:
    """Calibrate drivers by name on an idle machine; return the folder that holds the calibration.

    Raises:
        DriverError: a driver is not known or not installed.
        OptionError: a setting is out of range.
        ServerError: the emulator did not start.
        StorageError: the folder cannot be written.

    """
    settings.check()
    candidates = _known(drivers)
    folder = new_folder(results / FOLDER)
    gathered = facts.gather({"results": folder}, Path(__file__).parents[1])
    made = datetime.now(UTC).isoformat()
    with timed_server(folder / "logs" / "emulator.log") as server, _scratch(folder) as scratch:
        runner = Runner(server, settings, candidates, folder / "rows.jsonl", scratch, tell)
        cells = runner.run({"idle": contextlib.nullcontext})
    value = {"made": made, "host_identity": facts.host_identity(gathered), "facts": gathered}
    cells_json = [asdict(cell) for cell in cells]
    write_json(folder / FILE, {**value, "settings": asdict(settings), "cells": cells_json})
    return folder


def _known(drivers: Sequence[str]) -> dict[str, Candidate]:
    """Return the candidates in the order given; a driver that cannot be used is told before anything starts."""
    for name in drivers:
        if name not in CANDIDATES:
            raise DriverError(f"there is no driver {name}", f"Use one of {', '.join(CANDIDATES)}.")
        CANDIDATES[name].check()
    return {name: CANDIDATES[name] for name in dict.fromkeys(drivers)}


def new_folder(parent: Path) -> Path:
    """Make a folder that is named by the time.

    Raises:
        StorageError: it cannot be made.

    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder, number = parent / stamp, 1
    with storage_faults(folder):
        while folder.exists():
            number += 1
            folder = parent / f"{stamp}-{number}"
        folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def timed_server(log: Path) -> Iterator[Server]:
    """Run an emulator whose first chunk leaves 100 ms after the request, the others 20 ms apart."""
    with emulator.serve_fixed(log, latency_s=_LATENCY_S, token_gap_s=_TOKEN_GAP_S) as (url, pid):
        yield Server(url, pid, _TOKEN_GAP_S)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a place for a driver's own files, which hold every prompt several times over and are not kept."""
    path = folder / "scratch"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class Runner:
    """Drives every cell in turns and keeps each row."""

    server: Server
    settings: Settings
    candidates: Mapping[str, Candidate]
    rows_file: Path
    scratch: Path
    tell: Callable[[str], None]

    def run(self, machines: Mapping[str, Callable[[], AbstractContextManager[Any]]]) -> list[CalibrationCell]:
        """Measure all cells; `machines` are the conditions by name, each entered around the calls that it is for."""
        keys = [
            CellKey(driver, connections, tokens, machine)
            for machine in machines
            for connections in self.settings.connections
            for tokens in self.settings.prompt_tokens
            for driver in self.candidates
        ]
        rows: dict[CellKey, list[CalibrationRow]] = {key: [] for key in keys}
        efforts: dict[CellKey, list[Effort]] = {key: [] for key in keys}
        turns = in_turns(keys, self.settings.rounds)
        with contextlib.ExitStack() as stack:
            kept = {name: self._open(stack, name) for name, one in self.candidates.items() if one.is_kept}
            for place, (number, key) in enumerate(turns, 1):
                self.tell(f"{place} of {len(turns)}: {describe(key)}, round {number}")
                with machines[key.machine]():
                    responses, effort = self._turn(key, kept.get(key.driver))
                found = [make_row(key, number, response) for response in responses]
                self._keep(found)
                rows[key] += found
                efforts[key].append(effort)
        return [summarise_cell(key, rows[key], efforts[key], self.server.token_gap_s) for key in keys]

    def _open(self, stack: contextlib.ExitStack, name: str) -> Client:
        """Open a driver that is kept, and let it send what is thrown away: connections, code paths."""
        driver = stack.enter_context(self.candidates[name].open(Target(self.server.url), self.scratch))
        most = max(self.settings.connections)
        driver.drive(self._requests(CellKey(name, most, min(self.settings.prompt_tokens)), most), most, _ignore)
        return driver

    def _turn(self, key: CellKey, driver: Client | None) -> tuple[Sequence[Response], Effort]:
        if driver is not None:
            return self._drive(key, driver)
        folder = self.scratch / key.driver
        folder.mkdir()
        try:
            with self.candidates[key.driver].open(Target(self.server.url), folder) as opened:
                return self._drive(key, opened)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _drive(self, key: CellKey, driver: Client) -> tuple[Sequence[Response], Effort]:
        """Make one call, and see what it cost both sides."""
        requests = self._requests(key, self.settings.requests_of(key))
        cpu_before, server_before = driver.health().client_cpu_s or 0.0, cpu_s(self.server.pid)
        called_ns = time.time_ns()
        responses = driver.drive(requests, key.connections, _ignore)
        server_after = cpu_s(self.server.pid)
        sent = [response.sent_ns for response in responses if response.sent_ns is not None]
        return responses, Effort(
            client_cpu_s=(driver.health().client_cpu_s or 0.0) - cpu_before,
            server_cpu_s=None if server_before is None or server_after is None else server_after - server_before,
            start_s=(min(sent) - called_ns) / 1e9 if sent else None,
        )

    def _requests(self, key: CellKey, count: int) -> list[Request]:
        """Make requests of fixed-width words, one token each for the emulator."""
        body = {
            "model": emulator.FIXED_MODEL,
            "prompt": "token " * key.prompt_tokens,
            "max_tokens": self.settings.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            "temperature": 0,
        }
        encoded = json.dumps(body).encode()
        name = f"{key.driver}-{key.connections}-{key.prompt_tokens}"
        return [Request(f"{name}/{number:04d}", name, "measure", key.prompt_tokens, encoded) for number in range(count)]

    def _keep(self, rows: list[CalibrationRow]) -> None:
        """Append rows in one write, between two calls, so that writing takes nothing from the load."""
        with storage_faults(self.rows_file), self.rows_file.open("a") as file:
            file.write("".join(json.dumps(asdict(row), separators=(",", ":")) + "\n" for row in rows))


def describe(key: CellKey) -> str:
    """Name a cell in words."""
    plural = "s" if key.connections > 1 else ""
    busy = "" if key.machine == "idle" else f", {key.machine}"
    return f"{key.driver}, {key.connections} connection{plural}, {key.prompt_tokens} tokens{busy}"


def cpu_s(pid: int) -> float | None:
    """Return the processor time that a process has used, all its threads together; None where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ignore(_response: Response) -> None:
    """Take a response and do nothing: rows are made when the call is over."""


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
