"""Runs of a noisy-neighbour experiment over time, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kvbench.analysis.neighbor_time_series import NeighborTimeSeries


def noisy_run(treatment: str = "noisy", **fields: Any) -> NeighborTimeSeries:
    """Return a run of 40 requests with neighbours that ramp up before it."""
    plain = NeighborTimeSeries(
        treatment=treatment,
        run_id=f"r1-{treatment}",
        load="readers",
        end_s=10.0,
        start_s=-2.0,
        ready_s=-0.5,
        stop_s=10.2,
        ended_s=10.5,
        sent_s=np.linspace(0.0, 9.0, 40),
        ttft_s=np.linspace(0.5, 1.0, 40),
        rate_at_s=np.linspace(-2.0, 10.0, 25),
        bytes_per_s=np.full(25, 1.0e9),
    )
    return replace(plain, **fields)


def quiet_run() -> NeighborTimeSeries:
    """Return a run without neighbours."""
    nothing = np.empty(0)
    absent = dict.fromkeys(("load", "start_s", "ready_s", "stop_s", "ended_s"))
    return noisy_run("warm", **absent, rate_at_s=nothing, bytes_per_s=nothing)


def run_of(requests: int, treatment: str = "noisy") -> NeighborTimeSeries:
    """Return a run of so many requests with one slow request among them."""
    sent, ttft = np.linspace(0.0, 9.0, requests), np.full(requests, 0.5)
    ttft[requests // 3] = 7.0
    return noisy_run(treatment, sent_s=sent, ttft_s=ttft)
