"""How wrong is each driver's TTFT? kvbench's two and two plain loops, in one run against one server.

The method is that of `kvbench calibrate` (docs/calibration.md): error = the driver's first token - the server's stamp
as its first chunk left, every answered request in. 28 connections, short and long prompts, on an idle machine and
beside processes that keep every core busy; all cells take turns. Goals, for the native driver in each cell: p99 at most
0.5 ms, upper bounds at most 1 %. AIPerf takes part where it is installed; its start is measured on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plain_loops
from rich.console import Console

from kvbench.errors import DriverError
from kvbench.experiment import calibrate
from kvbench.experiment.calibrate import CANDIDATES, Candidate, Runner, Settings
from kvbench.report.terminal import print_calibration
from kvbench.typed_json import to_json
from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvbench.result.calibration_record import CalibrationCell

CONNECTIONS = 28
PROMPT_TOKENS = (500, 130_000)
GOAL_P99_S = 0.0005
GOAL_UPPER_SHARE = 0.01


def main() -> int:
    """Print the tables, and JSON if asked; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=150, help="of each cell and round, at least")
    parser.add_argument("--spinners", type=int, default=os.cpu_count(), help="processes that make the machine busy")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = Settings((CONNECTIONS,), PROMPT_TOKENS, options.rounds, options.requests)
    started = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=Path()) as folder, calibrate.timed_server(Path(folder) / "log") as server:
        runner = Runner(server, settings, candidates(), Path(folder) / "rows.jsonl", Path(folder), tell)
        cells = runner.run({"idle": contextlib.nullcontext, "busy": lambda: busy_cores(options.spinners)})
    print_calibration(cells, Console(width=100))
    figures = [*map(error_figure, cells), upper_figure(cells), *start_figure(cells)]
    missed = [figure for figure in figures if figure["met"] is False]
    print(f"goals of the native driver: {'missed' if missed else 'met'}")
    if options.json:
        options.json.write_text(
            json.dumps({"figures": figures, "cells": [to_json(cell) for cell in cells]}, indent=1) + "\n"
        )
    return 1 if missed else 0


def candidates() -> dict[str, Candidate]:
    """Return the drivers: AIPerf only where it is installed."""
    found = {
        "native": CANDIDATES["native"],
        "aiohttp": Candidate(lambda target, _: plain_loops.AiohttpLoop(target)),
        "httpx": Candidate(lambda target, _: plain_loops.HttpxLoop(target)),
    }
    try:
        CANDIDATES["aiperf"].check()
    except DriverError as error:
        print(f"without AIPerf: {error.message}")
        return found
    return {**found, "aiperf": CANDIDATES["aiperf"]}


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep `count` cores busy with processes that only spin; end them by their own pids."""
    spinners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def microseconds(value_s: float | None) -> str:
    """Write an order statistic in whole microseconds, or that n does not support it."""
    return "n/a" if value_s is None else f"{value_s * 1e6:,.0f}"


def error_figure(cell: CalibrationCell) -> dict[str, Any]:
    """Return a cell's line of the bench table; only the native driver has a goal."""
    errors, failed = cell.error_s, cell.failed
    told = " / ".join(microseconds(value_s) for value_s in (errors.p50, errors.p99, errors.max))
    lost = f", {failed} failed" if failed else ""
    name = f"TTFT error p50/p99/max: {cell.driver}, {format_count(cell.prompt_tokens)}, {cell.machine}"
    measured = f"{told} us (n = {cell.n}{lost})"
    if cell.driver != "native":
        return figure(name, measured, None, None)
    return figure(name, measured, "p99 <= 500 us", errors.p99 is not None and errors.p99 <= GOAL_P99_S and not failed)


def upper_figure(cells: Sequence[CalibrationCell]) -> dict[str, Any]:
    """Return the line for the native driver's upper bounds: the sum over its cells, and the worst of them."""
    own = [cell for cell in cells if cell.driver == "native"]
    worst = max((cell.upper_share or 0.0 for cell in own), default=0.0)
    told = f"{sum(cell.upper_bounds for cell in own)} of {sum(cell.n for cell in own):,}"
    name = "upper bounds among native's first tokens"
    return figure(name, f"{told}, at most {worst:.1%} of a cell", "<= 1 %", worst <= GOAL_UPPER_SHARE)


def start_figure(cells: Sequence[CalibrationCell]) -> list[dict[str, Any]]:
    """Return the line for AIPerf's start where it took part; each cell gives the median of its calls."""
    starts = sorted(cell.start_s for cell in cells if cell.driver == "aiperf" and cell.start_s is not None)
    if not starts:
        return []
    told = f"{statistics.median(starts):.1f} s [{starts[0]:.1f}-{starts[-1]:.1f}], {len(starts)} cells"
    return [figure("AIPerf's start: call to first measured request", told, None, None)]


def figure(name: str, measured: str, goal: str | None, met: bool | None) -> dict[str, Any]:  # noqa: FBT001
    """Return one line of the bench table."""
    return {"figure": name, "measured": measured, "goal": goal, "met": met}


if __name__ == "__main__":
    sys.exit(main())
