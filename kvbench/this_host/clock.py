"""Reads the wall clock and the monotonic clock at one moment."""

from __future__ import annotations

import time

_CLOCK_TRIES = 5


def both_clocks_ns() -> tuple[int, int]:
    """Read the wall clock and the monotonic clock at one moment.

    A process that loses its processor between two readings would see a step that no clock made, so the closest of a few
    pairs is taken.
    """
    tries = []
    for _ in range(_CLOCK_TRIES):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after_ns - before_ns, wall_ns, (before_ns + after_ns) // 2))
    return min(tries)[1:]
