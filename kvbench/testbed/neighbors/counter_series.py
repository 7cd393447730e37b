"""Cumulative counters of one side client over time, and the amount that falls into a window.

Bytes between two samples are interpolated; there are no bins, whose edges would alias with a window's. Times are on the
controller's clock.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.testbed.neighbors.agent_event import AgentEvent

_SLIDE_S = 1.0
_STEPS = 200


@dataclass
class Cumulative:
    """A counter that never falls: points of (time in ns, value)."""

    times_ns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, t_ns: int, value: float) -> None:
        """Add a point; one that is not later, or that falls, says nothing new."""
        if not self.times_ns or (t_ns > self.times_ns[-1] and value >= self.values[-1]):
            self.values.append(value)
            self.times_ns.append(t_ns)

    @property
    def last(self) -> float:
        """The last value, 0 before the first."""
        return self.values[-1] if self.values else 0.0

    def at(self, t_ns: float) -> float:
        """Return the value at a time, flat before the first point and after the last."""
        times = self.times_ns[:]  # another thread may add
        if not times:
            return 0.0
        right = bisect.bisect_right(times, t_ns)
        if right == 0:
            return self.values[0]
        if right == len(times):
            return self.values[right - 1]
        before, after = self.values[right - 1], self.values[right]
        return before + (after - before) * (t_ns - times[right - 1]) / (times[right] - times[right - 1])

    def rate(self, start_ns: float, end_ns: float) -> float:
        """Return the growth per second between two times, 0 where no time lies between them."""
        if end_ns <= start_ns:
            return 0.0
        return (self.at(end_ns) - self.at(start_ns)) / (end_ns - start_ns) * 1e9

    def coverage(self, start_ns: int, end_ns: int, least_per_s: float) -> float:
        """Return the share of a window during which a sliding second, kept inside it, grows at least so fast."""
        slide_ns = min(_SLIDE_S * 1e9, end_ns - start_ns)
        room_ns = end_ns - start_ns - slide_ns
        starts = [start_ns + room_ns * step / _STEPS for step in range(_STEPS + 1)]
        rates = [self.rate(start, start + slide_ns) for start in starts]
        return sum(rate > 0 and rate >= least_per_s for rate in rates) / len(rates)


@dataclass
class Series:
    """All that one side client has sent: what its generator moved, and its host's own counters."""

    moved: Cumulative = field(default_factory=Cumulative)
    disk: Cumulative = field(default_factory=Cumulative)
    nic: Cumulative = field(default_factory=Cumulative)
    rows: list[tuple[int, AgentEvent]] = field(default_factory=list)
    _base: float = 0.0

    def begin(self, t_ns: int) -> None:
        """A generator starts: it counts from zero again, our sum goes on; nothing was moved until now."""
        self._base = self.moved.last
        self.moved.add(t_ns, self._base)

    def restart_host(self) -> None:
        """Forget the host's own counters: it may have been started anew, and then they count from zero."""
        self.disk, self.nic, self.rows = Cumulative(), Cumulative(), []

    def sample(self, t_ns: int, event: AgentEvent, moved_ns: int | None) -> None:
        """Take a sample event; `moved_ns` is when the generator had moved what it says."""
        if moved_ns is not None and (moved := event["moved"]) is not None:
            self.moved.add(moved_ns, self._base + moved[1])
        self.nic.add(t_ns, sum(event["nic"]))
        if event["disk"] is not None:
            self.disk.add(t_ns, sum(event["disk"]))
        self.rows.append((t_ns, {"cpu": event["cpu"], "psi": event["psi"]}))

    def finish(self, event: AgentEvent, moved_ns: int | None) -> None:
        """Take a final event: the last that the generator moved."""
        if moved_ns is not None and (moved := event["moved"]) is not None:
            self.moved.add(moved_ns, self._base + moved[1])

    def host_load(self, start_ns: int, end_ns: int) -> dict[str, float | None]:
        """Return shares of a window: processor busy and stolen, and some task waiting for processor, I/O or memory."""
        inside = [row for t_ns, row in self.rows if start_ns <= t_ns <= end_ns]
        times = [t_ns for t_ns, _ in self.rows if start_ns <= t_ns <= end_ns]
        if len(inside) < 2:
            return {}
        first, last, span_us = inside[0], inside[-1], (times[-1] - times[0]) / 1e3
        found: dict[str, float | None] = {}
        if first["cpu"] and last["cpu"] and last["cpu"]["all"] > first["cpu"]["all"]:
            ticks = last["cpu"]["all"] - first["cpu"]["all"]
            found["cpu_busy"] = (last["cpu"]["busy"] - first["cpu"]["busy"]) / ticks
            found["cpu_steal"] = (last["cpu"]["steal"] - first["cpu"]["steal"]) / ticks
        for what in first["psi"].keys() & last["psi"].keys():
            found[f"psi_{what}"] = (last["psi"][what] - first["psi"][what]) / span_us
        return found


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one side client put on the storage or the fabric in a window.

    `coverage` is the share of the window at 90 % of its target or more, `moving` at any rate at all (without a target
    both are the same); `device_bytes_per_s` is what the disk or the interface counted, None where it cannot be counted.
    """

    bytes_per_s: float
    target_bytes_per_s: float | None
    coverage: float
    moving: float
    device_bytes_per_s: float | None
    host: dict[str, float | None]


def delivered(series: Series, window: tuple[int, int], target_bytes_per_s: float | None, *, by_disk: bool) -> Delivered:
    """Return what a series says about a window, given as (start, end) in ns of the controller's clock."""
    device = series.disk if by_disk else series.nic
    return Delivered(
        bytes_per_s=series.moved.rate(*window),
        target_bytes_per_s=target_bytes_per_s,
        coverage=series.moved.coverage(*window, 0.9 * (target_bytes_per_s or 0.0)),
        moving=series.moved.coverage(*window, 0.0),
        device_bytes_per_s=device.rate(*window) if device.times_ns else None,
        host=series.host_load(*window),
    )
