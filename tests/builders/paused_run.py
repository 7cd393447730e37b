"""A `kvbench run` that stops itself in mid-run, so that a test acts there however slow or fast the machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

# It acts once, when the first measured request of a run is in the journal; then nothing but the test lets it go on.
_PROGRAM = """
import os, signal, sys
from kvbench.cli import app
from kvbench.result import rows
run, action = sys.argv[1:3]
append, acted = rows.Journal.append, []
def append_and_act(self, row, *rest):
    append(self, row, *rest)
    if row.phase == "measure" and row.run_id.startswith(run) and not acted:
        acted.append(row)
        exec(action)
rows.Journal.append = append_and_act
sys.argv[:] = ["kvbench", *sys.argv[3:]]
app.main()
"""
_STOP_ITSELF = "os.kill(os.getpid(), signal.SIGSTOP)"


def command_acting_in(run: str, action: str, *arguments: str | Path) -> list[str]:
    """Return a command line of `kvbench` that executes `action` at the first measured request of a run."""
    return [sys.executable, "-c", _PROGRAM, run, action, *map(str, arguments)]


def start_paused_in(run: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start `kvbench`; return when it has stopped itself at the first measured request of a run whose id begins so."""
    process = subprocess.Popen(
        command_acting_in(run, _STOP_ITSELF, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    if state.si_code != os.CLD_STOPPED:
        raise AssertionError(f"it ended before it measured anything in {run}: {process.communicate()}")
    return process


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a paused run go on."""
    process.send_signal(signal.SIGCONT)


def ignores_ctrl_c(process: subprocess.Popen[str]) -> bool:
    """Tell whether a run no longer listens to Ctrl-C, or is over."""
    if process.poll() is not None:
        return True
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:  # noqa: PTH123
        ignored = next((line.split()[1] for line in file if line.startswith("SigIgn:")), "0")
    return bool(int(ignored, 16) & 1 << (signal.SIGINT - 1))


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]
