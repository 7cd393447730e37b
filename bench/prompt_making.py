"""Making 100 prompts of 130k tokens and writing them compressed, as a run does: seconds and peak memory.

Each repeat is a process of its own, so that its peak is its own; the import of the interpreter and numpy is inside.
Goals: at most 5 s and 200 MiB. (AIPerf 0.13 took 52.7 s and 546 MiB for the same prompts.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

GOAL_S, GOAL_MIB = 5.0, 200.0
PROMPTS, TOKENS, REPEATS = 100, 130_000, 5

MAKE = """
import resource, sys, time
started = time.perf_counter()
from pathlib import Path
from kvbench.result.folder import ResultFolder
from kvbench.scenario import prompts
folder = ResultFolder(Path(sys.argv[1]), resumed=False)
count, tokens = int(sys.argv[2]), int(sys.argv[3])
folder.write_prompts((f"p{i}", prompts.words_text(1, f"p{i}", tokens)) for i in range(count))
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> int:
    """Print the figures, and JSON if asked; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured = [make() for _ in range(options.repeats)]
    seconds, mib = (statistics.median(values) for values in zip(*((s, m) for s, m, _ in measured), strict=True))
    spread = f"[{min(s for s, _, _ in measured):.2f}-{max(s for s, _, _ in measured):.2f}]"
    size = measured[0][2]
    print(f"{PROMPTS} prompts of {TOKENS:,} tokens, n = {len(measured)}:")
    print(f"  median {seconds:.2f} s {spread}, peak {mib:.0f} MiB")
    print(f"  written: {size / 1e6:.1f} MB compressed, {PROMPTS * TOKENS * 6 / 1e6:.0f} MB of text")
    met = seconds <= GOAL_S and mib <= GOAL_MIB
    print(f"goal: at most {GOAL_S:g} s and {GOAL_MIB:g} MiB: {'met' if met else 'missed'}")
    if options.json:
        figure = {
            "figure": f"{PROMPTS} prompts of {TOKENS:,} tokens, compressed",
            "measured": f"{seconds:.2f} s {spread}, {mib:.0f} MiB, n = {len(measured)}",
            "goal": f"<= {GOAL_S:g} s, <= {GOAL_MIB:g} MiB",
            "met": met,
        }
        value = {"figures": [figure], "seconds": [s for s, _, _ in measured], "peak_mib": [m for _, m, _ in measured]}
        options.json.write_text(json.dumps(value) + "\n")
    return 0 if met else 1


def make() -> tuple[float, float, int]:
    """Make the prompts once; return seconds, peak MiB and the bytes on disk."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MAKE, folder, str(PROMPTS), str(TOKENS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, mib = map(float, done.stdout.split())
        return seconds, mib, (Path(folder) / "prompts.jsonl.zst").stat().st_size


if __name__ == "__main__":
    sys.exit(main())
