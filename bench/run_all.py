"""Run every benchmark of the instrument and print one table of figures against goals; `make bench`.

Each is a script of its own with its method and goals in its docstring; what it prints comes first, the table last.
Results are kept under bench/results/ as JSON, with the facts of the host. Exit code 1 if a goal was missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from kvbench.this_host import facts

SCRIPTS = (
    "prompt_making",
    "run_start",
    "tier_read",
    "coverage",
    "driver_capacity",
    "client_error",
    "neighbor_course",
    "large_result",
)


def main() -> int:
    """Run the scripts one after another, never side by side."""
    here = Path(os.path.relpath(Path(__file__).parent))
    folder = here / "results" / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder.mkdir(parents=True)
    gathered = facts.gather({"bench": folder}, here)
    (folder / "facts.json").write_text(json.dumps(gathered, indent=1) + "\n")
    figures = []
    for name in SCRIPTS:
        print(f"\n== {name}", flush=True)
        kept = folder / f"{name}.json"
        done = subprocess.run([sys.executable, here / f"{name}.py", "--json", kept], check=False)
        figures += read_figures(name, kept, done.returncode)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print()
    Console(width=130).print(table(figures))
    missed = [figure for figure in figures if figure["met"] is False]
    load = gathered["host"]["load_1min"]
    print(f"load of the machine before (1 min) {load}, after {os.getloadavg()[0]:.2f}; results: {folder}")
    print(f"{len(missed)} goals missed" if missed else "all goals met")
    return 1 if missed else 0


def read_figures(name: str, kept: Path, code: int) -> list[dict[str, Any]]:
    """Return a script's lines of the table; one line where it left none, or failed with every goal met."""
    figures: list[dict[str, Any]] = json.loads(kept.read_text()).get("figures", []) if kept.exists() else []
    if not figures or (code and all(figure["met"] is not False for figure in figures)):
        told = f"ended with exit code {code}" if code else "see above"
        figures = [*figures, {"figure": name, "measured": told, "goal": "its own", "met": code == 0}]
    return figures


def table(figures: list[dict[str, Any]]) -> Table:
    """Lay out the figures: those with a goal first."""
    laid = Table(title="The instrument's own figures", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("figure", "measured", "goal", "met"):
        laid.add_column(heading, no_wrap=heading != "measured")
    words = {True: "yes", False: "NO", None: ""}
    for figure in sorted(figures, key=lambda one: one["goal"] is None):
        laid.add_row(figure["figure"], figure["measured"], figure["goal"] or "", words[figure["met"]])
    return laid


if __name__ == "__main__":
    sys.exit(main())
