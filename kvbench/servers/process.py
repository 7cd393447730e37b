"""A server process of ours: in its own process group, tied to our life, with its log kept; never stopped by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CHILDREN_S = 3.0
_POLL_S = 0.02
_LEASH = Path(__file__).with_name("leash.py")


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, *, stop_s: float, env: Mapping[str, str] | None = None, piped: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the context is open; what it says goes to `log`.

    With `piped` its stdout is a pipe that the caller reads. A pipe that nobody reads stops a server once it is full.

    On leaving, the group gets SIGTERM, and SIGKILL if the server is left after `stop_s` seconds, or a child of it
    after some more.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else errors,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        _stop(process, stop_s)


def _await_group(group: int, bound_s: float) -> None:
    """Let the children of a server that has ended end as well: the one that removes its shared memory is among them."""
    deadline = time.monotonic() + bound_s
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(_POLL_S)


def last_line(log: Path) -> str:
    """Return what a server said last: its last line that tells an error, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return (errors or lines or ["it said nothing"])[-1]


def _stop(process: subprocess.Popen[bytes], stop_s: float) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(stop_s)
    _await_group(process.pid, _CHILDREN_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived their parent
    if process.stdout is not None:
        process.stdout.close()
