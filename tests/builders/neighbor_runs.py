"""Runs of a noisy-neighbour experiment over time, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RunOverTime:
    """One run; a quiet one has neither a load nor rates."""

    treatment: str = "noisy"
    load: str | None = "readers"
    end_s: float = 10.0
    start_s: float | None = -2.0
    ready_s: float | None = -0.5
    ended_s: float | None = 10.5
    sent_s: NDArray[np.float64] = field(default_factory=lambda: np.linspace(0.0, 9.0, 40))
    ttft_s: NDArray[np.float64] = field(default_factory=lambda: np.linspace(0.5, 1.0, 40))
    rate_at_s: NDArray[np.float64] = field(default_factory=lambda: np.linspace(-2.0, 10.0, 25))
    bytes_per_s: NDArray[np.float64] = field(default_factory=lambda: np.full(25, 1.0e9))

    @property
    def run_id(self) -> str:
        return f"r1-{self.treatment}"


def quiet_run() -> RunOverTime:
    """Return a run without neighbours."""
    nothing = np.empty(0)
    return RunOverTime("warm", None, 10.0, None, None, None, rate_at_s=nothing, bytes_per_s=nothing)


def run_of(requests: int, treatment: str = "noisy") -> RunOverTime:
    """Return a run of so many requests with one slow request among them."""
    sent, ttft = np.linspace(0.0, 9.0, requests), np.full(requests, 0.5)
    ttft[requests // 3] = 7.0
    return RunOverTime(treatment, sent_s=sent, ttft_s=ttft)
