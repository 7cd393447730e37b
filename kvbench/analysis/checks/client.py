"""Rules on the client: whether its delays, or the emulator's own processor time, explain the measured times.

First tokens are timed by the kernel, so a client that reads late costs nothing by itself; a client that sends late, or
loses the order, measures another load than the one that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kvbench.analysis.checks.expected import count
from kvbench.analysis.measured import is_true
from kvbench.result.verdict import Reason
from kvbench.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvbench.analysis.checks.expected import Expected, RunToJudge
    from kvbench.analysis.measured import Columns, Mask
    from kvbench.result.run_record import DriverRecord, RunRecord

    Stamps = NDArray[np.int64]

MOST_UPPER_BOUNDS = 0.01
MOST_OVERRUN = 0.02
MOST_CLIENT_CPU = 0.8
MOST_RECEIVER_CPU = 0.5
MOST_SEND_LAG = 0.05
MOST_HELD = 0.01  # P99 is the farthest percentile that is given, and must not be that of a request that was held
MOST_RECEIVE_LAG = 0.05
MOST_CLOCK_STEP_S = 0.01
MOST_CLIENT_ERROR = 0.05


def check_client(run: RunToJudge) -> Iterator[Reason]:
    """Judge the driver and, of kvbench's own server, what it took beyond its model."""
    driver, expected = run.record.driver, run.expected
    yield from _check_stamps(run)
    yield from _check_order(driver)
    yield from _check_clock_step(run.record)
    is_held = _is_held(run)
    yield from _check_held(run, is_held)
    yield from _check_send_lag(run, ~is_held)
    yield from _check_receive_lag(run)
    yield from _check_cpu(driver, expected)
    yield from _check_connections(driver, expected)
    yield from _check_client_error(run)
    yield from _check_emulator(run.measured)


def _check_stamps(run: RunToJudge) -> Iterator[Reason]:
    timed, upper = count(run.is_known("ttft_bound")), count(is_true(run.measured["ttft_bound"] == "upper"))
    if upper > MOST_UPPER_BOUNDS * max(timed, 1):
        text = f"{upper} of {timed} first tokens have only an upper bound"
        remedy = "Give the client more processor time, or a slower stream of tokens."
        yield Reason("suspect", "upper bounds", text, remedy)
    if run.record.driver.stamps != "kernel":
        text = "times are from the user clock: no kernel stamps here"
        yield Reason("note", "user clock", text, "Run the client on Linux.")


def _check_order(driver: DriverRecord) -> Iterator[Reason]:
    """What was sent must be what was drawn, in its order."""
    if driver.out_of_order:
        text = f"{driver.out_of_order} requests left in another order than planned"
        yield Reason("suspect", "order", text, "Use --driver native, or report the driver's version.")
    if driver.missing:
        text = f"the driver left no record of {driver.missing} requests"
        yield Reason("suspect", "no record", text, "Look at the driver's log in aiperf/, or use --driver native.")


def _check_clock_step(record: RunRecord) -> Iterator[Reason]:
    """A driver that does not watch its clock is covered by the host's own."""
    of_host = record.host.pressure.clock_step_s if record.host is not None else None
    step_s = max((step for step in (record.driver.clock_step_s, of_host) if step is not None), key=abs, default=0.0)
    if abs(step_s) > MOST_CLOCK_STEP_S:
        text = f"the wall clock moved by {step_s:.3f} s against the monotonic clock"
        yield Reason("suspect", "clock step", text, "Stop stepping the clock during a run.")


def _more_processor_time(expected: Expected) -> str:
    """Say how a client that had too little processor time gets more of it; one request at a time cannot be fewer."""
    other = "leave the machine alone meanwhile" if expected.concurrency == 1 else "lower the concurrency"
    return f"Give the client a core of its own, or {'lower load.request_rate' if expected.is_open_loop else other}."


# -- late sends and late reads -----------------------------------------------------------------------------------------


def _is_held(run: RunToJudge) -> Mask:
    """Tell which requests of an open loop were held at the cap for a time worth a mention beside their TTFT.

    A request is held if, when it is due, as many that were due before it are not yet answered as may be out at once.
    What makes it late beyond that is the client.
    """
    is_held = np.zeros(len(run.measured), dtype=bool)
    if not run.expected.is_open_loop or run.expected.concurrency is None:
        return is_held
    due_ns = _stamps(run, "scheduled_ns")
    end_ns = np.zeros_like(due_ns)
    for name in ("last_token_ns", "first_token_ns", "sent_ns"):
        end_ns = np.where(end_ns != 0, end_ns, _stamps(run, name))
    numbers = np.flatnonzero(run.is_known("scheduled_ns"))
    numbers = numbers[np.argsort(due_ns[numbers], kind="stable")]
    is_full = _out_at_once(due_ns[numbers], end_ns[numbers]) >= run.expected.concurrency
    is_held[numbers] = is_full
    return is_held & (run.floats("send_lag_s") > MOST_SEND_LAG * np.nan_to_num(run.ttft_s))


def _out_at_once(due_ns: Stamps, end_ns: Stamps) -> NDArray[np.intp]:
    """Return for each request how many that stand before it are not yet answered when it is due; `due_ns` is sorted.

    A request that was never sent has no end (0): it is out for no time.
    """
    end_ns = np.maximum(end_ns, due_ns)
    ended = np.searchsorted(np.sort(end_ns), due_ns, side="right")
    # Requests that end in the moment at which they are due are among those, though they may stand later in the list
    is_instant = np.concatenate([[0], np.cumsum(end_ns == due_ns)])
    standing_later = is_instant[np.searchsorted(due_ns, due_ns, side="right")] - is_instant[:-1]
    out: NDArray[np.intp] = np.arange(len(due_ns)) - (ended - standing_later)
    return out


def _stamps(run: RunToJudge, name: str) -> Stamps:
    """Return a column of times, 0 where one is not known."""
    times_ns: Stamps = run.measured[name].to_numpy(dtype=np.int64, na_value=0)
    return times_ns


def _check_held(run: RunToJudge, is_held: Mask) -> Iterator[Reason]:
    """An open loop that waits for its answers is a closed one: the server never saw the load that was asked for."""
    held, sent = count(is_held), len(run.measured)
    if held > MOST_HELD * sent:
        longest = format_duration(float(run.floats("send_lag_s")[is_held].max()))
        text = (
            f"{held} of {sent} requests were due while {run.expected.concurrency} were out, which is the most that may"
            f" be, and waited up to {longest} to be sent"
        )
        remedy = "Raise load.concurrency, the most that may be out at once, or lower load.request_rate."
        yield Reason("suspect", "held at the cap", text, remedy)


def _check_send_lag(run: RunToJudge, is_free: Mask) -> Iterator[Reason]:
    """Judge the client by when it sent the requests that nothing but itself held up; this needs their TTFT."""
    lag_s = run.floats("send_lag_s")
    is_timed = is_free & run.is_known("ttft_bound") & run.has_ttft & ~np.isnan(lag_s)
    shares = lag_s[is_timed] / run.ttft_s[is_timed]
    middle = len(shares) // 2
    if len(shares) and (lag := float(np.partition(shares, middle)[middle])) > MOST_SEND_LAG:
        text = f"half of the requests left later than scheduled by more than {lag:.1%} of their TTFT"
        yield Reason("suspect", "send lag", text, _more_processor_time(run.expected))


def _check_receive_lag(run: RunToJudge) -> Iterator[Reason]:
    """Judge the client by when it read first tokens; this needs their TTFT."""
    lag_s = run.floats("receive_lag_s")
    is_timed = run.is_known("ttft_bound") & run.has_ttft & ~np.isnan(lag_s)
    shares = lag_s[is_timed] / run.ttft_s[is_timed]
    place = len(shares) - max(len(shares) // 100, 1)
    if len(shares) and (lag := float(np.partition(shares, place)[place])) > MOST_RECEIVE_LAG:
        text = f"the client read its latest 1 % of first tokens {lag:.1%} of TTFT after the kernel had them, or later"
        remedy = _more_processor_time(run.expected)
        yield Reason("note", "receive lag", f"{text}; their times are the kernel's", remedy)


# -- the process -------------------------------------------------------------------------------------------------------


def _check_cpu(driver: DriverRecord, expected: Expected) -> Iterator[Reason]:
    wall_s = max(driver.wall_s or 0.0, 1e-9)
    client_s = driver.client_cpu_s if driver.worker_cpu_s is None else driver.worker_cpu_s
    if (busy := (client_s or 0.0) / wall_s) > MOST_CLIENT_CPU:
        text = f"the client used {busy:.0%} of a core: it may have been the bottleneck"
        yield Reason("suspect", "client CPU", text, _more_processor_time(expected))
    if (receiver := (driver.receiver_cpu_s or 0.0) / wall_s) > MOST_RECEIVER_CPU:
        text = f"the receiver used {receiver:.0%} of a core: reads of several streams may have fallen together"
        yield Reason("suspect", "receiver CPU", text, _more_processor_time(expected))


def _check_connections(driver: DriverRecord, expected: Expected) -> Iterator[Reason]:
    """Connecting is over before a request is stamped as sent, so it shows in no TTFT, but it does in the load."""
    retries, opened = driver.retries or 0, driver.connections_opened or 0
    if retries:
        text = (
            f"{retries} requests were sent again, because the server had closed the connection that was kept for them"
        )
        yield Reason("note", "retries", text, "Raise the server's keep-alive time.")
    if expected.concurrency is not None and opened > expected.concurrency + retries:
        text = f"{opened} connections were opened for {expected.concurrency} slots while it was measured"
        text += "; connecting is in no TTFT, but in the time between requests"
        yield Reason("note", "reconnects", text, "Use a server, or a proxy before it, that keeps connections open.")


def _check_client_error(run: RunToJudge) -> Iterator[Reason]:
    """The calibrated error is held against the smallest median TTFT of a prompt length.

    Only a note: the calibration was another load at another time, so it shows what the client can do to a figure, not
    what it did to this one.
    """
    error_s, is_timed = run.expected.client_error_s, run.is_answered & ~np.isnan(run.ttft_s)
    if error_s is None or not is_timed.any():
        return
    lengths = run.floats("isl_target")[is_timed]
    median_s = float(pd.Series(run.ttft_s[is_timed]).groupby(lengths, dropna=False).median().min())
    if error_s > MOST_CLIENT_ERROR * median_s:
        text = f"the client's calibrated error, {error_s * 1e3:.3g} ms, is {error_s / median_s:.0%} of a median TTFT"
        remedy = "Use the native driver, or give the client a core of its own."
        yield Reason("note", "client error", text, remedy)


def overrun_shares(requests: Columns) -> pd.Series:
    """Return for each request the emulator's overrun as a share of its TTFT, without those that tell none."""
    times = requests["ttft_s"]
    return (requests["server_overrun_s"] / times.where(times != 0)).dropna()


def _check_emulator(measured: pd.DataFrame) -> Iterator[Reason]:
    """Processor time of the emulator beyond what it models is not the storage's fault.

    The mean of each request's own share: a long recompute must not hide what happened to short requests.
    """
    shares = overrun_shares(measured)
    if len(shares) and (mean := float(shares.mean())) > MOST_OVERRUN:
        text = f"the emulator ran over by {mean:.1%} of TTFT, mean of {len(shares)} requests, at most"
        yield Reason(
            "suspect",
            "overrun",
            f"{text} {shares.max():.1%}",
            "Leave the machine alone meanwhile, or lower scale.time.",
        )
