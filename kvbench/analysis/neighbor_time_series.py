"""Time series of one run's neighbours: when they ramped, loaded and stopped, and what rate they delivered.

Read from `runs/<run id>/neighbors/<host>.jsonl`: cumulative bytes, interpolated and summed over the side clients.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvbench.analysis.measured import as_floats, load_window_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kvbench.analysis.measured_result import Dataset, SealedRun
    from kvbench.analysis.neighbor_types import NeighborImpact

    Array = NDArray[np.float64]

SLICE_S = 0.5
_ROOM_S = 1.0  # shown before the start and after the end


@dataclass(frozen=True, slots=True)
class NeighborTimeSeries:
    """One run; times are seconds after its first send. A quiet run has no start, no stop and no rates.

    `ready_s` ends the ramp, `ended_s` is when the last generator was gone. `sent_s` and `ttft_s` are of the answered
    requests, `rate_at_s` and `bytes_per_s` are what the neighbours delivered, by slices of `SLICE_S`.
    """

    treatment: str
    run_id: str
    load: str | None
    end_s: float
    start_s: float | None
    ready_s: float | None
    stop_s: float | None
    ended_s: float | None
    sent_s: Array
    ttft_s: Array
    rate_at_s: Array
    bytes_per_s: Array


def neighbor_time_series(dataset: Dataset, impact: NeighborImpact | None) -> list[NeighborTimeSeries]:
    """Return the typical run of each treatment over time, quiet ones first; none without neighbours."""
    if impact is None:
        return []
    runs = {run.run_id: run for run in dataset.runs}
    loads = [*(arm.load for arm in impact.quiet.values()), *(level.load for level in impact.levels)]
    return [_of_run(dataset, runs[load.typical_run]) for load in loads if load.typical_run is not None]


def _of_run(dataset: Dataset, run: SealedRun) -> NeighborTimeSeries:
    neighbors = run.record.neighbors
    trial = neighbors.trial if neighbors is not None else None
    window = load_window_ns(run.measured)
    assert window is not None  # noqa: S101 - a run in which nothing was sent is invalid, and no typical one
    zero_ns, end_ns = window
    start_s = _seconds(trial.at_ns if trial is not None else None, zero_ns)
    stop_s = _seconds(trial.stop_asked_ns if trial is not None else None, zero_ns)
    last_s = max((end_ns - zero_ns) / 1e9, stop_s or 0.0) + _ROOM_S
    span = (min(start_s or 0.0, 0.0) - _ROOM_S, last_s)
    hosts = neighbors.hosts if neighbors is not None and trial is not None else {}
    logs = [dataset.folder / "runs" / run.run_id / "neighbors" / f"{host}.jsonl" for host in hosts]
    answered = run.answered[["sent_ns", "ttft_s"]].dropna()
    rate_at_s, bytes_per_s = _rates(logs, zero_ns, span) if trial is not None else (np.empty(0), np.empty(0))
    return NeighborTimeSeries(
        treatment=run.treatment,
        run_id=run.run_id,
        load=neighbors.load if neighbors is not None else None,
        end_s=(end_ns - zero_ns) / 1e9,
        start_s=start_s,
        ready_s=None if start_s is None or trial is None else start_s + trial.ramp_s,
        stop_s=stop_s,
        ended_s=None if stop_s is None or trial is None else stop_s + (trial.stop_s or 0.0),
        sent_s=as_floats(answered["sent_ns"] - zero_ns) / 1e9,
        ttft_s=as_floats(answered["ttft_s"]),
        rate_at_s=rate_at_s,
        bytes_per_s=bytes_per_s,
    )


def _seconds(t_ns: int | None, zero_ns: int) -> float | None:
    return None if t_ns is None else (t_ns - zero_ns) / 1e9


def _rates(logs: list[Path], zero_ns: int, span: tuple[float, float]) -> tuple[Array, Array]:
    """Return the middle of each slice of the span and the bytes per second of all side clients in it."""
    edges = np.arange(span[0], span[1] + SLICE_S, SLICE_S)
    total = np.zeros(len(edges))
    for log in logs:
        points = list(moved(log))
        if points:
            times, values = zip(*points, strict=True)
            total += np.interp(edges, [(t_ns - zero_ns) / 1e9 for t_ns in times], values)
    return edges[:-1] + SLICE_S / 2, np.diff(total) / SLICE_S


def moved(log: Path) -> Iterator[tuple[int, float]]:
    """Yield (ns on our clock, bytes) of one side client; a generator that starts again goes on where it ended."""
    base = last = 0.0
    latest_ns = -1
    for event in _events(log):
        offset_ns = event["clock_ns"] - event["t_ns"]  # the agent's clock minus ours
        if event["event"] == "started":
            base, point = last, (event["at_ns"] - offset_ns, last)
        elif event["event"] in ("sample", "final") and event.get("moved"):
            point = (event["moved"][0] - offset_ns, base + event["moved"][1])
        else:
            continue
        if point[0] > latest_ns and point[1] >= last:
            latest_ns, last = point
            yield point


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log; a last line that a crash cut in half is left out, and so is a file that is missing."""
    with contextlib.suppress(FileNotFoundError):
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)
