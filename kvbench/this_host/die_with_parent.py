"""Starts a server so that it ends with kvbench, even when kvbench is killed with SIGKILL.

    python die_with_parent.py PARENT_PID PROGRAM [ARGUMENT...]

Asks the kernel for SIGTERM on the death of the parent (prctl(2), PR_SET_PDEATHSIG), which survives exec, and then
becomes the program. Imports nothing of ours, so that it starts in some milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the process that started this server is gone")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - becoming the server, without a shell, is the point
