"""One run over time: when its neighbours ramped, loaded and stopped, and the rate that they delivered meanwhile.

Read from `runs/<run id>/neighbors/<host>.jsonl`: cumulative bytes, interpolated and summed over the side clients.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvbench.run_time import load_window_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.sealed import SealedResult, SealedRun

SLICE_S = 0.5
_ROOM_S = 1.0  # shown before the start and after the end


@dataclass(frozen=True, slots=True)
class Course:
    """One run; times are seconds after its first send. A quiet run has no start, no stop and no rates.

    `ready_s` ends the ramp, `ended_s` is when the last generator was gone. `requests` are (sent, TTFT).
    """

    treatment: str
    run_id: str
    load: str | None
    end_s: float
    start_s: float | None
    ready_s: float | None
    stop_s: float | None
    ended_s: float | None
    requests: tuple[tuple[float, float], ...]
    rates: tuple[tuple[float, float], ...]


def courses(result: SealedResult, found: dict[str, Any] | None) -> list[Course]:
    """Return the course of each treatment's typical run, quiet ones first; none without neighbours."""
    if found is None:
        return []
    runs = {run.run_id: run for run in result.runs}
    names = [one["typical_run"] for one in (*found["quiet"].values(), *found["levels"])]
    return [_course(result, runs[name]) for name in names if name is not None]


def _course(result: SealedResult, run: SealedRun) -> Course:
    told = run.record.get("neighbors") or {}
    window = load_window_ns(run.measured)
    assert window is not None  # noqa: S101 - a run in which nothing was sent is invalid, and no typical one
    zero_ns, end_ns = window
    trial = told.get("trial") or {}
    start_s = _seconds(trial.get("at_ns"), zero_ns)
    stop_s = _seconds(trial.get("stop_asked_ns"), zero_ns)
    last_s = max((end_ns - zero_ns) / 1e9, stop_s or 0.0) + _ROOM_S
    span = (min(start_s or 0.0, 0.0) - _ROOM_S, last_s)
    logs = [result.folder / "runs" / run.run_id / "neighbors" / f"{host}.jsonl" for host in told.get("hosts") or {}]
    return Course(
        treatment=run.treatment,
        run_id=run.run_id,
        load=told.get("load"),
        end_s=(end_ns - zero_ns) / 1e9,
        start_s=start_s,
        ready_s=None if start_s is None else start_s + trial["ramp_s"],
        stop_s=stop_s,
        ended_s=None if stop_s is None else stop_s + (trial.get("stop_s") or 0.0),
        requests=tuple(
            ((row.sent_ns - zero_ns) / 1e9, row.ttft_s)
            for row in run.answered
            if row.sent_ns is not None and row.ttft_s is not None
        ),
        rates=tuple(_rates(logs, zero_ns, span)) if trial else (),
    )


def _seconds(t_ns: int | None, zero_ns: int) -> float | None:
    return None if t_ns is None else (t_ns - zero_ns) / 1e9


def _rates(logs: list[Path], zero_ns: int, span: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield the middle of each slice of the span and the bytes per second of all side clients in it."""
    edges = np.arange(span[0], span[1] + SLICE_S, SLICE_S)
    total = np.zeros(len(edges))
    for log in logs:
        points = list(moved(log))
        if points:
            times, values = zip(*points, strict=True)
            total += np.interp(edges, [(t_ns - zero_ns) / 1e9 for t_ns in times], values)
    for left, grown in zip(edges[:-1], np.diff(total), strict=True):
        yield float(left) + SLICE_S / 2, float(grown) / SLICE_S


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
