"""The instrument is measured too: was the client, or the emulator's own processor time, what the figures show?

First tokens are timed by the kernel, so a client that reads late costs nothing by itself; a client that sends late, or
loses the order, measures another load than the one that was asked for.
"""

from __future__ import annotations

import heapq
import statistics
from typing import TYPE_CHECKING, Any

from kvbench.checks.verdict import Reason
from kvbench.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvbench.checks.verdict import Asked
    from kvbench.records import Row

MOST_UPPER_BOUNDS = 0.01
MOST_OVERRUN = 0.02
MOST_CLIENT_CPU = 0.8
MOST_RECEIVER_CPU = 0.5
MOST_SEND_LAG = 0.05
MOST_HELD = 0.01  # P99 is the farthest percentile that is given, and must not be that of a request that was held
MOST_RECEIVE_LAG = 0.05
MOST_CLOCK_STEP_S = 0.01
MOST_CLIENT_ERROR = 0.05


def check_client(run: dict[str, Any], measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Judge the driver and, of kvbench's own server, what it took beyond its model."""
    driver = run["driver"]
    yield from _check_stamps(driver, measured)
    yield from _check_order(driver)
    yield from _check_clock_step(run)
    held = _held(measured, asked)
    yield from _check_held(held, measured, asked)
    yield from _check_lags([row for row in measured if row.request_id not in held], measured, asked)
    yield from _check_cpu(driver, asked)
    yield from _check_connections(driver, asked)
    yield from _check_client_error(measured, asked.client_error_s)
    yield from _check_emulator(measured)


def _check_stamps(driver: dict[str, Any], measured: list[Row]) -> Iterator[Reason]:
    timed = [row for row in measured if row.ttft_bound is not None]
    upper = sum(row.ttft_bound == "upper" for row in timed)
    if upper > MOST_UPPER_BOUNDS * max(len(timed), 1):
        text = f"{upper} of {len(timed)} first tokens have only an upper bound"
        remedy = "Give the client more processor time, or a slower stream of tokens."
        yield Reason("suspect", "upper bounds", text, remedy)
    if driver.get("stamps") != "kernel":
        text = "times are from the user clock: no kernel stamps here"
        yield Reason("note", "user clock", text, "Run the client on Linux.")


def _check_order(driver: dict[str, Any]) -> Iterator[Reason]:
    """What was sent must be what was drawn, in its order."""
    if driver.get("out_of_order"):
        text = f"{driver['out_of_order']} requests left in another order than planned"
        yield Reason("suspect", "order", text, "Use --driver native, or report the driver's version.")
    if driver.get("missing"):
        text = f"the driver left no record of {driver['missing']} requests"
        yield Reason("suspect", "no record", text, "Look at the driver's log in aiperf/, or use --driver native.")


def _check_clock_step(run: dict[str, Any]) -> Iterator[Reason]:
    """A driver that does not watch its clock is covered by the host's own."""
    seen = (run["driver"].get("clock_step_s"), ((run.get("world") or {}).get("pressure") or {}).get("clock_step_s"))
    step_s = max((step for step in seen if step is not None), key=abs, default=0.0)
    if abs(step_s) > MOST_CLOCK_STEP_S:
        text = f"the wall clock moved by {step_s:.3f} s against the monotonic clock"
        yield Reason("suspect", "clock step", text, "Stop stepping the clock during a run.")


def _own_core(asked: Asked) -> str:
    """Say how a client that had too little processor time gets more of it; one request at a time cannot be fewer."""
    other = "leave the machine alone meanwhile" if asked.concurrency == 1 else "lower the concurrency"
    return f"Give the client a core of its own, or {'lower load.request_rate' if asked.is_open_loop else other}."


def _held(measured: list[Row], asked: Asked) -> dict[str, float]:
    """Return how long requests of an open loop were held at the cap, if that is worth a mention beside their TTFT.

    A request is held if, when it is due, as many that were due before it are not yet answered as may be out at once.
    What makes it late beyond that is the client.
    """
    if not asked.is_open_loop or asked.concurrency is None:
        return {}
    held: dict[str, float] = {}
    ends: list[int] = []  # of the requests that were due before, and are not answered
    for row in sorted(measured, key=lambda row: row.scheduled_ns or 0):
        due_ns, lag_s = row.scheduled_ns, row.send_lag_s
        if due_ns is None:
            continue
        while ends and ends[0] <= due_ns:
            heapq.heappop(ends)
        if len(ends) >= asked.concurrency and lag_s is not None and lag_s > MOST_SEND_LAG * (row.ttft_s or 0.0):
            held[row.request_id] = lag_s
        heapq.heappush(ends, row.last_token_ns or row.first_token_ns or row.sent_ns or due_ns)
    return held


def _check_held(held: dict[str, float], measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """An open loop that waits for its answers is a closed one: the server never saw the load that was asked for."""
    if len(held) > MOST_HELD * len(measured):
        text = (
            f"{len(held)} of {len(measured)} requests were due while {asked.concurrency} were out, which is the most"
            f" that may be, and waited up to {format_duration(max(held.values()))} to be sent"
        )
        remedy = "Raise load.concurrency, the most that may be out at once, or lower load.request_rate."
        yield Reason("suspect", "held at the cap", text, remedy)


def _check_lags(free: list[Row], measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Judge the client by when it sent the requests that nothing but itself held up, and by when it read them all."""
    sent = sorted(row.send_lag_s / row.ttft_s for row in _timed(free) if row.send_lag_s is not None and row.ttft_s)
    if sent and (lag := sent[len(sent) // 2]) > MOST_SEND_LAG:
        text = f"half of the requests left later than scheduled by more than {lag:.1%} of their TTFT"
        yield Reason("suspect", "send lag", text, _own_core(asked))
    timed = _timed(measured)
    read = sorted(row.receive_lag_s / row.ttft_s for row in timed if row.receive_lag_s is not None and row.ttft_s)
    if read and (lag := read[-max(len(read) // 100, 1)]) > MOST_RECEIVE_LAG:
        text = f"the client read its latest 1 % of first tokens {lag:.1%} of TTFT after the kernel had them, or later"
        yield Reason("note", "receive lag", f"{text}; their times are the kernel's", _own_core(asked))


def _timed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.ttft_bound is not None and row.ttft_s]


def _check_cpu(driver: dict[str, Any], asked: Asked) -> Iterator[Reason]:
    wall_s = max(driver.get("wall_s", 0.0), 1e-9)
    busy = driver.get("worker_cpu_s", driver.get("client_cpu_s", 0.0)) / wall_s
    if busy > MOST_CLIENT_CPU:
        text = f"the client used {busy:.0%} of a core: it may have been the bottleneck"
        yield Reason("suspect", "client CPU", text, _own_core(asked))
    receiver = driver.get("receiver_cpu_s", 0.0) / wall_s
    if receiver > MOST_RECEIVER_CPU:
        text = f"the receiver used {receiver:.0%} of a core: reads of several streams may have fallen together"
        yield Reason("suspect", "receiver CPU", text, _own_core(asked))


def _check_connections(driver: dict[str, Any], asked: Asked) -> Iterator[Reason]:
    """Connecting is over before a request is stamped as sent, so it shows in no TTFT, but it does in the load."""
    retries, opened = driver.get("retries", 0), driver.get("connections_opened", 0)
    if retries:
        text = (
            f"{retries} requests were sent again, because the server had closed the connection that was kept for them"
        )
        yield Reason("note", "retries", text, "Raise the server's keep-alive time.")
    if asked.concurrency is not None and opened > asked.concurrency + retries:
        text = f"{opened} connections were opened for {asked.concurrency} slots while it was measured"
        remedy = "Use a server, or a proxy before it, that keeps connections open."
        yield Reason(
            "note", "reconnects", f"{text}; connecting is in no TTFT, but in the time between requests", remedy
        )


def _check_client_error(measured: list[Row], error_s: float | None) -> Iterator[Reason]:
    """The calibrated error is held against the smallest median TTFT of a prompt length.

    Only a note: the calibration was another load at another time, so it shows what the client can do to a figure, not
    what it did to this one.
    """
    times: dict[int | None, list[float]] = {}
    for row in measured:
        if row.status == "ok" and row.ttft_s is not None:
            times.setdefault(row.isl_target, []).append(row.ttft_s)
    if error_s is None or not times:
        return
    median_s = min(statistics.median(values) for values in times.values())
    if error_s > MOST_CLIENT_ERROR * median_s:
        text = f"the client's calibrated error, {error_s * 1e3:.3g} ms, is {error_s / median_s:.0%} of a median TTFT"
        remedy = "Use the native driver, or give the client a core of its own."
        yield Reason("note", "client error", text, remedy)


def overrun_shares(rows: Iterable[Row]) -> list[float]:
    """Return for each request the emulator's overrun as a share of its TTFT; a run is judged by their mean."""
    return [row.server_overrun_s / row.ttft_s for row in rows if row.server_overrun_s is not None and row.ttft_s]


def _check_emulator(measured: list[Row]) -> Iterator[Reason]:
    """Processor time of the emulator beyond what it models is not the storage's fault.

    The mean of each request's own share: a long recompute must not hide what happened to short requests.
    """
    shares = overrun_shares(measured)
    if shares and (mean := sum(shares) / len(shares)) > MOST_OVERRUN:
        text = f"the emulator ran over by {mean:.1%} of TTFT, mean of {len(shares)} requests, at most {max(shares):.1%}"
        yield Reason("suspect", "overrun", text, "Leave the machine alone meanwhile, or lower scale.time.")
