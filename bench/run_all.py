"""Run every benchmark of the instrument and print what each printed; `make bench`.

Each is a script of its own with its method and goals in its docstring. Results are kept under bench/results/ as JSON,
with the facts of the host. Exit code 1 if any goal was missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from kvbench import facts

SCRIPTS = ("prompt_making", "run_start", "tier_read", "ttft_error")


def main() -> int:
    """Run the scripts one after another, never side by side."""
    here = Path(os.path.relpath(Path(__file__).parent))
    folder = here / "results" / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder.mkdir(parents=True)
    gathered = facts.gather({"bench": folder}, here)
    (folder / "facts.json").write_text(json.dumps(gathered, indent=1) + "\n")
    missed = []
    for name in SCRIPTS:
        print(f"\n== {name}", flush=True)
        done = subprocess.run([sys.executable, here / f"{name}.py", "--json", folder / f"{name}.json"], check=False)
        if done.returncode:
            missed.append(name)
    print(f"\nresults: {folder}")
    print(f"missed or failed: {', '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
