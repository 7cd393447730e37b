"""One trial of neighbours: what was asked for, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.result.run_record import Resource
    from kvbench.scenario.neighbors import Target
    from kvbench.testbed.neighbors.agent_event import AgentEvent
    from kvbench.testbed.neighbors.counter_series import Series
    from kvbench.typed_json import JsonObject


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the neighbours reach alone, unlimited, in bytes per second."""

    bytes_per_s: float
    by_client: dict[str, float]


@dataclass(frozen=True, slots=True)
class Lost:
    """A host that was lost: why, and when that was noticed (ns, controller's clock)."""

    name: str
    why: str
    noticed_ns: int


@dataclass
class Trial:
    """One start and stop. Times are ns of the controller's clock; rates are bytes per second, None where unlimited."""

    target: Target
    asked: dict[str, float | None]
    calibration: Calibration | None
    at_ns: int
    started_ns: dict[str, int] = field(default_factory=dict)
    steady: bool = False
    ready_ns: int = 0
    stop_asked_ns: int | None = None
    finals: dict[str, AgentEvent] = field(default_factory=dict)
    ended_ns: dict[str, int] = field(default_factory=dict)

    @property
    def asked_bytes_per_s(self) -> float | None:
        """The aggregate that was asked for."""
        rates = [rate for rate in self.asked.values() if rate is not None]
        return sum(rates) if rates else None

    @property
    def skew_s(self) -> float | None:
        """How far apart the first and the last generator started."""
        times = self.started_ns.values()
        return (max(times) - min(times)) / 1e9 if times else None

    @property
    def stop_s(self) -> float | None:
        """How long after the order the last generator had ended."""
        if self.stop_asked_ns is None or not self.ended_ns:
            return None
        return max(0.0, (max(self.ended_ns.values()) - self.stop_asked_ns) / 1e9)


@dataclass(frozen=True)
class Member:
    """What is known of one side client beside its trial.

    `device` is what its bytes pass, the same text for members that share it; `by_disk`: it is a disk, otherwise an
    interface. `shared`: it is in this machine, so that its counter may hold the server's bytes too.
    """

    series: Series
    device: str
    by_disk: bool
    shared: bool
    clock_error_s: float
    drift_s: float
    facts: JsonObject


@dataclass(frozen=True)
class Evidence:
    """All that a verdict needs: members and outcomes by name, what was lost, and the policy on it.

    `passes` is what the generator's bytes share with the server's reads.
    """

    members: dict[str, Member]
    trial: Trial | None
    outcomes: dict[str, JsonObject]
    lost: tuple[Lost, ...]
    lost_host: str
    generator: str | None
    reference_bytes_per_s: float | None = None
    passes: tuple[Resource, ...] = ()
