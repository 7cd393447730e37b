"""How long from the command to the first request on the wire, with the endpoint already up.

An emulator is started once. Then `kvbench run --endpoint URL` is started again and again; its start is the instant
before the process is made, the first request's send is `sent_ns` of the first row in the journal, both on one clock.
Goal: median at most 0.7 s. The same seven lengths as scenarios/ttft_sweep.yaml, so the prompts are made meanwhile too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GOAL_S = 0.7
REPEATS = 7


def main() -> int:
    """Print the table, and JSON if asked; return 1 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulator() as url:
        times = [first_request_s(url, Path(folder) / str(number)) for number in range(options.repeats)]
    median = statistics.median(times)
    print(f"command to first request: median {median:.3f} s [{min(times):.3f}-{max(times):.3f}], n = {len(times)}")
    print(f"goal: at most {GOAL_S} s: {'met' if median <= GOAL_S else 'missed'}")
    if options.json:
        figure = {
            "figure": "command to first request, endpoint already up",
            "measured": f"{median:.2f} s [{min(times):.2f}-{max(times):.2f}], n = {len(times)}",
            "goal": f"<= {GOAL_S} s",
            "met": median <= GOAL_S,
        }
        options.json.write_text(json.dumps({"figures": [figure], "first_request_s": times}) + "\n")
    return 0 if median <= GOAL_S else 1


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """Run an emulator that answers at once; give its URL."""
    command = [sys.executable, "-m", "kvbench.emulator", "--fixed-latency-ms", "1", "--cache", "off", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - it was given a pipe
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait()


def first_request_s(url: str, results: Path) -> float:
    """Start a run, wait for its first row, and stop it."""
    command = [sys.executable, "-m", "kvbench", "run", "scenarios/ttft_sweep.yaml", "--endpoint", url]
    started_ns = time.time_ns()
    process = subprocess.Popen(
        [*command, "--results", str(results)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for journal in results.glob("*/*/runs/*/requests.jsonl"):
                line = journal.read_bytes().split(b"\n", 1)
                if len(line) == 2:
                    return float(json.loads(line[0])["sent_ns"] - started_ns) / 1e9
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise SystemExit("the run sent no request within 30 s")


if __name__ == "__main__":
    sys.exit(main())
