"""The neighbours of a run: what was delivered in its window, and whether the bottleneck was the one that was meant.

What they delivered was judged where it was measured (`neighbors.verdict`); its reasons are taken over as they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.checks.verdict import Reason
from kvbench.run_time import total_time_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.records import Row

LEAST_DRAW = 0.95  # of the bottleneck, by a quiet warm run: docs/protocol.md
PAYLOAD_SHARE = {"disk": 1.0, "link": 8948 / 9014}  # of a frame of 9,000 bytes on the lab's link; the rest is headers


def check_neighbors(run: dict[str, Any], measured: list[Row], *, is_open_loop: bool = False) -> Iterator[Reason]:
    """Judge what `run.json` says of neighbours and of the bottleneck; runs without them have nothing to judge.

    An open loop draws what is due, so its quiet runs are not held to a share of the bottleneck.
    """
    told, made = run.get("neighbors"), run.get("bottleneck")
    if told is not None:
        yield from map(Reason.of_json, told["verdict"]["reasons"])
        if told.get("attempts"):
            text = f"tried {len(told['attempts']) + 1} times: {told['attempts'][-1]['why']}"
            yield Reason("note", "neighbour retry", text, "Look at attempt-N in the run's folder.")
    if made is not None and made["how"] is None and told is not None and told["load"] is not None:
        text = f"on the bare disk the levels of neighbours cannot be told apart: {made['reason']}"
        yield Reason("suspect", "no bottleneck", text, "Start it as root, where control groups may be made.")
    elif made is not None and made["how"] is not None and not is_open_loop:
        yield from _check_draw(run, measured, made["bytes_per_s"] * PAYLOAD_SHARE[made["kind"]])


def _check_draw(run: dict[str, Any], measured: list[Row], limit_bytes_per_s: float) -> Iterator[Reason]:
    """Hold a quiet warm run to being bound by storage: else a share of the bottleneck says nothing."""
    told, taken_s = run.get("neighbors"), total_time_s(run, measured)
    from_disk = run["cache"]["state"] in ("warm(g3)", "warm(g4)")
    if told is None or told["load"] is not None or not from_disk or taken_s is None:
        return
    drawn = sum(run["ledger"]["read_bytes"].values()) / taken_s
    if drawn < LEAST_DRAW * limit_bytes_per_s:
        text = f"the quiet run drew only {drawn / limit_bytes_per_s:.0%} of the bottleneck, so storage did not bind it"
        remedy = "Lower the bottleneck's rate, or raise load.concurrency and io_threads."
        yield Reason("suspect", "not storage-bound", text, remedy)
