"""Rules on the neighbours of a run: what they delivered, and whether the intended bottleneck was the limit.

What they delivered was judged where it was measured (`testbed.neighbors.delivery`); its reasons are taken over as they
stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.analysis.measured import total_time_s
from kvbench.result.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from kvbench.result.run_record import RunRecord

LEAST_DRAW = 0.95  # of the bottleneck, by a quiet warm run: docs/protocol.md
PAYLOAD_SHARE = {"disk": 1.0, "link": 8948 / 9014}  # of a frame of 9,000 bytes on the lab's link; the rest is headers


def check_neighbors(record: RunRecord, measured: pd.DataFrame, *, is_open_loop: bool = False) -> Iterator[Reason]:
    """Judge what `run.json` says of neighbours and of the bottleneck; runs without them have nothing to judge.

    An open loop draws what is due, so its quiet runs are not held to a share of the bottleneck.
    """
    neighbors, bottleneck = record.neighbors, record.bottleneck
    if neighbors is None:
        return
    yield from neighbors.verdict.reasons
    if neighbors.attempts:
        text = f"tried {len(neighbors.attempts) + 1} times: {neighbors.attempts[-1].why}"
        yield Reason("note", "neighbour retry", text, "Look at attempt-N in the run's folder.")
    if bottleneck is None:
        return
    if bottleneck.how is None and neighbors.load is not None:
        text = f"on the bare disk the levels of neighbours cannot be told apart: {bottleneck.reason}"
        yield Reason("suspect", "no bottleneck", text, "Start it as root, where control groups may be made.")
    elif bottleneck.how is not None and bottleneck.bytes_per_s is not None and neighbors.load is None:
        limit_bytes_per_s = bottleneck.bytes_per_s * PAYLOAD_SHARE[bottleneck.kind]
        if not is_open_loop:
            yield from _check_draw(record, measured, limit_bytes_per_s)


def _check_draw(record: RunRecord, measured: pd.DataFrame, limit_bytes_per_s: float) -> Iterator[Reason]:
    """Hold a quiet warm run to being bound by storage: else a share of the bottleneck says nothing."""
    taken_s = total_time_s(record, measured)
    if record.cache.state not in ("warm(g3)", "warm(g4)") or taken_s is None:
        return
    remedy = "Lower the bottleneck's rate, or raise load.concurrency and io_threads."
    read_bytes = record.ledger.counted_or_kernel_bytes
    if read_bytes is None:
        text = "nobody counted what the quiet run read, so it is not shown that storage bound it"
        remedy = "Give kvbench the metrics URL or the pid of the server."
        yield Reason("suspect", "not storage-bound", text, remedy)
    elif (share := read_bytes / taken_s / limit_bytes_per_s) < LEAST_DRAW:
        text = f"the quiet run drew only {share:.0%} of the bottleneck, so storage did not bind it"
        yield Reason("suspect", "not storage-bound", text, remedy)
