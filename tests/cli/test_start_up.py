"""What a command loads, and when: imports in a process of its own, in their order with what is written; no times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.builders.patience import PATIENCE_S
from tests.cli.test_cli import SCENARIO

if TYPE_CHECKING:
    from pathlib import Path

# What only a summary or a report needs; each takes between a tenth of a second and a whole one.
HEAVY = ("pandas", "scipy", "matplotlib", "pyarrow.compute", "pyarrow._compute")
_RECORDER = """
import atexit, json, sys
from pathlib import Path
events, log = [], Path(sys.argv[1])
class Recorder:
    def find_spec(self, name, path=None, target=None):
        events.append("import " + name)
sys.meta_path.insert(0, Recorder())
replace = Path.replace
def record_and_replace(self, target):
    events.append("write " + Path(target).name)
    return replace(self, target)
Path.replace = record_and_replace
atexit.register(lambda: log.write_text(json.dumps(events)))
sys.argv[:] = ["kvbench", *sys.argv[2:]]
from kvbench.cli.app import main
main()
"""


def events_of(log: Path, *arguments: str | Path) -> list[str]:
    """Run a command; return what it imported and which files it wrote, in that order."""
    command = [sys.executable, "-c", _RECORDER, str(log), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env={**os.environ})
    assert done.returncode in (0, 3), done.stderr
    events: list[str] = json.loads(log.read_text())
    assert "import kvbench.cli.app" in events
    return events


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")))
    return path


def test_a_run_loads_what_only_its_summary_needs_after_the_last_seal(scenario: Path, tmp_path: Path) -> None:
    changes = ("--set", "repeats=1", "--set", "prompts.lengths=[1k]", "--results", tmp_path / "results")
    events = events_of(tmp_path / "log", "run", scenario, *changes)
    assert events.count("write run.json") == 2
    last_seal = max(number for number, event in enumerate(events) if event == "write run.json")
    before, after = events[:last_seal], events[last_seal:]
    assert [name for name in HEAVY if f"import {name}" in before] == []
    assert "import scipy" in after, "else this test would see nothing"


def test_help_and_check_load_nothing_that_only_a_run_or_a_report_needs(scenario: Path, tmp_path: Path) -> None:
    unneeded = (*HEAVY, "pyarrow", "numpy", "jinja2", "weasyprint", "httpx", "prometheus_client", "asyncio")
    ours = (
        "kvbench.drivers.native",
        "kvbench.testbed.lab",
        "kvbench.testbed.hosts",
        "kvbench.publications.claims_file",
    )
    for arguments in (["--help"], ["check", scenario]):
        events = events_of(tmp_path / "log", *arguments)
        assert [name for name in (*unneeded, *ours) if f"import {name}" in events] == []
        assert ("import kvbench.cli.check" in events) == (arguments[0] == "check")


def test_help_imports_no_command(tmp_path: Path) -> None:
    imported = {event for event in events_of(tmp_path / "log", "--help") if event.startswith("import kvbench.")}
    assert imported == {"import kvbench.cli", "import kvbench.cli.app", "import kvbench.errors"}
