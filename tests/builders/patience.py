"""How long a test waits for something else: far longer than any machine needs, so that only what hangs fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 600.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; `what` names it for the message of a test that waited in vain."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain: {what}"
        time.sleep(0.01)
