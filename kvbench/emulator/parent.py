"""An emulator that a run started must not outlive that run, not even one that was killed with SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal

from kvbench.errors import ServerError

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when our parent process, which must be `parent`, is gone.

    Source: prctl(2). The signal belongs to the thread that started us; kvbench starts servers from its main thread.

    Raises:
        ServerError: the parent is gone already.

    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        raise ServerError(f"process {parent}, which this server belongs to, is not its parent", "start it again")
