"""What every test process needs before its first test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take Ctrl-C again: background jobs of a shell ignore it, and so would the processes that tests send it to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
