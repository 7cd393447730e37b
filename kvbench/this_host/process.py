"""Starts a server process in its own process group, keeps its log, and stops it; never by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.errors import DriverError, EndpointError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CHILDREN_S = 3.0
_DYING_S = 2.0  # a server closes its connections, and answers with errors, before it has ended
_POLL_S = 0.02
_LEASH = Path(__file__).with_name("die_with_parent.py")


@dataclass(frozen=True)
class Started:
    """A server of ours that was ready once: what it is called, its process, and where what it says is kept."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def death(self, when: str, wait_s: float = 0.0) -> ServerError | None:
        """Return the error that says, in the server's own last words, that it has died; None while it lives."""
        try:
            status = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None
        log = self._log_now()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return ServerError(
            f"{self.name} died {when} ({how}): {last_line(log)}",
            f"Its whole log is {log}; once the cause is mended the same command goes on and keeps sealed runs.",
        )

    def _log_now(self) -> Path:
        """Find the log, which goes with a run's broken try where a kept server was started in one."""
        moved = self.log.parent.parent.glob(f"attempt-*/{self.log.parent.name}/{self.log.name}")
        return self.log if self.log.exists() else max(moved, key=lambda path: path.stat().st_mtime, default=self.log)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Tell of its death what would else be told as a server that does not answer, or a driver that failed."""
        try:
            yield
        except (EndpointError, DriverError) as fault:
            if (error := self.death("in mid-run", _DYING_S)) is not None:
                raise error from fault
            raise


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
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
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


def process_read_bytes(pid: int) -> int | None:
    """Return what a process and its descendants have read from block devices, None where that cannot be seen.

    Engines read their tiers in processes of their own (vLLM: the engine core, a child of the API server).
    """
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        tasks = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return None
    own = next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)
    return own + sum(process_read_bytes(int(child)) or 0 for children in tasks for child in children)
