"""Plausibility rules: times, rates and bytes of a run that no machine can produce.

Nothing here needs to know why. A figure that breaks one of these bounds is wrong, or is the figure of something else:
bytes came from a faster place, a proxy held the stream back, the clock moved, or somebody counted what never happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kvbench.analysis.checks.expected import count, first
from kvbench.analysis.measured import as_floats, is_true, load_window_ns
from kvbench.result.run_record import named_tier
from kvbench.result.verdict import Reason
from kvbench.units import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.checks.expected import RunToJudge
    from kvbench.analysis.measured import Array, Mask
    from kvbench.result.plan_record import Ceiling
    from kvbench.result.run_record import RunRecord

TIME_SLACK = 0.02  # of two clocks of one host, and of rounding
BYTES_SLACK = 0.01
MOST_SCHEDULE_LEAD_S = 0.001
MOST_IDLE = 0.1
MOST_TOKENS_PER_S = 20_000.0  # of one stream: 50 us a token is below the kernel launches of one forward pass
MOST_ODD_STREAMS = 0.01


def check_plausibility(run: RunToJudge) -> Iterator[Reason]:
    """Hold a run against what is possible."""
    yield from _check_order_of_times(run)
    yield from _check_server_clock(run)
    for tier, ceiling in run.expected.ceilings.items():
        yield from _check_bandwidth(run, tier, ceiling)
    yield from _check_written(run)
    yield from _check_bytes_for_hits(run.record)
    yield from _check_little(run)
    yield from _check_network_floor(run)
    yield from _check_streams(run)


def _check_order_of_times(run: RunToJudge) -> Iterator[Reason]:
    """A token comes after its request and before the end; a request is not sent before it is due."""
    measured = run.measured
    is_backwards = run.floats("send_lag_s") < -MOST_SCHEDULE_LEAD_S
    for earlier, later in (
        ("sent_ns", "first_token_ns"),
        ("first_token_ns", "last_token_ns"),
        ("sent_ns", "last_token_ns"),
    ):
        is_backwards |= is_true(measured[later] < measured[earlier])
    if is_backwards.any():
        example = measured["request_id"].iloc[first(is_backwards)]
        text = f"time runs backwards in {count(is_backwards)} of {len(measured)} requests, first {example}"
        yield Reason("invalid", "time order", text, "Stop whatever sets the clock, and run the scenario again.")


def _check_server_clock(run: RunToJudge) -> Iterator[Reason]:
    """The first token of a warm request cannot come before its blocks were read, by the server's own account."""
    storage_s = run.floats("server_storage_s")
    is_timed = run.is_answered & (np.nan_to_num(storage_s) != 0) & ~np.isnan(run.ttft_s)
    is_early = is_timed & (run.ttft_s < storage_s * (1 - TIME_SLACK))
    if is_early.any():
        example = first(is_early)
        text = (
            f"{count(is_early)} of {count(is_timed)} first tokens came before their blocks were read, such as TTFT "
            f"{format_duration(run.ttft_s[example])} with {format_duration(storage_s[example])} of storage by the"
            " server's clock"
        )
        remedy = "Find out which blocks the server waits for, and by which clock."
        yield Reason("suspect", "storage clock", text, remedy)


# -- bytes -------------------------------------------------------------------------------------------------------------


def _served_by(tier: str, run: RunToJudge) -> Mask:
    """Return the requests that a tier served; of the warm tier also those of which nobody knows where from."""
    names = (tier, "unproven") if tier == named_tier(run.record.cache.state) else (tier,)
    return run.is_answered & run.is_tier(*names)


def _request_bytes(run: RunToJudge) -> Array:
    """Return the bytes that each request's hits took from their tier, NaN where nobody knows.

    They are the server's count, else the cached tokens times the bytes of a token.
    """
    counted, by_tokens = (
        run.floats("server_read_bytes"),
        run.floats("cached_tokens") * (_bytes_per_token(run) or np.nan),
    )
    return np.where(np.isnan(counted), by_tokens, counted)


def _bytes_per_token(run: RunToJudge) -> float | None:
    return run.record.blocks.kv_bytes_per_token if run.record.blocks is not None else None


def _check_bandwidth(run: RunToJudge, tier: str, ceiling: Ceiling) -> Iterator[Reason]:
    """No request, and no run as a whole, gets bytes faster than the tier can deliver them."""
    limit, is_served = ceiling.bytes_per_s * (1 + TIME_SLACK), _served_by(tier, run)
    size, storage_s = _request_bytes(run), np.nan_to_num(run.floats("server_storage_s"))
    spent_s = np.where(storage_s != 0, storage_s, run.ttft_s)
    is_fast = is_served & (size > 0) & (spent_s > 0) & (size > limit * spent_s)
    stated = f"{format_rate(ceiling.bytes_per_s)}, which is {ceiling.source}"
    remedy = "Look for a cache under the tier (page cache, controller), or correct the figure."
    if is_fast.any():
        read, taken_s = size[first(is_fast)], spent_s[first(is_fast)]
        rate = f"{format_size(read)} in {format_duration(taken_s)} is {format_rate(read / taken_s)}"
        counted = f"{count(is_fast)} of {count(is_served)} requests got their bytes faster than the tier can"
        yield Reason("suspect", "bytes over bandwidth", f"{counted}: {rate}, above {stated}", remedy)
        return
    ledger, window_s = run.record.ledger, run.record.load_s
    total = ledger.read_bytes.get(tier)
    if not total and tier == named_tier(run.record.cache.state):  # a server may call its only tier otherwise
        total = ledger.counted_or_kernel_bytes
    if total and window_s and total / window_s > limit:
        rate = f"{format_size(total)} in {format_duration(window_s)}"
        text = f"the run read its bytes faster than the tier can: {rate}, above {stated}"
        yield Reason("suspect", "bytes over bandwidth", text, remedy)


def _check_written(run: RunToJudge) -> Iterator[Reason]:
    """Nothing can be served from a cache that was not put there before."""
    cached, prompt = run.floats("cached_tokens"), run.floats("isl")
    is_beyond = run.is_answered & (cached > prompt)
    if is_beyond.any():
        example = first(is_beyond)
        text = f"{count(is_beyond)} answers claim more cached tokens than their prompt has: {cached[example]:.0f}"
        text += f" of {prompt[example]:.0f}"
        yield Reason("invalid", "hits above what was written", text, "Do not use this server's cached_tokens.")
    if (run.is_answered & run.is_in_conversation).any():  # turns share their beginnings
        return
    if not run.record.cache.state.startswith("warm"):
        yield from _check_first_sendings(run, cached)
        return
    held, tokens, per_token = (
        run.record.ledger.expected_read_bytes,
        run.record.ledger.cached_tokens,
        _bytes_per_token(run),
    )
    if held and tokens and per_token and tokens * per_token > held * (1 + BYTES_SLACK):
        text = f"{tokens:,} cached tokens are {format_size(tokens * per_token)}, the tier holds {format_size(held)}"
        remedy = "Check kv_bytes_per_token, and whether another tier served."
        yield Reason("suspect", "hits above what was written", f"{text} of these prompts", remedy)


def _check_first_sendings(run: RunToJudge, cached: Array) -> Iterator[Reason]:
    """From an empty start the first request of a prompt finds nothing, since prompts share no beginning."""
    is_hit = run.is_answered & (cached > 0) & ~run.may_repeat
    if is_hit.any():
        prompts = run.measured["prompt_id"][run.is_answered].nunique()
        text = f"{count(is_hit)} of {prompts} prompts hit {cached[is_hit].sum():,.0f} cached tokens when they were"
        remedy = "Look for a cache that was not reset, or a chat template that all prompts begin with."
        yield Reason("suspect", "hits above what was written", f"{text} first sent", remedy)


def _check_bytes_for_hits(record: RunRecord) -> Iterator[Reason]:
    """Hits below host memory are read from files; where the ledger sees fewer bytes, its gap says so already."""
    ledger, per_token = record.ledger, (record.blocks.kv_bytes_per_token if record.blocks is not None else None)
    if ledger.gap or named_tier(record.cache.state) not in ("g3", "g4"):
        return
    counted = ledger.counted_or_kernel_bytes
    needed = ((ledger.cached_tokens or 0) - (ledger.memory_tokens or 0)) * (per_token or 0)
    if counted is not None and counted < needed * (1 - BYTES_SLACK):
        text = f"{format_size(counted)} were read, the hits need {format_size(needed)}"
        remedy = "Find the faster tier or the page cache that served the rest."
        yield Reason("suspect", "bytes below the hits", text, remedy)


# -- time --------------------------------------------------------------------------------------------------------------


def _check_little(run: RunToJudge) -> Iterator[Reason]:
    """Little's law: requests in flight = throughput times mean latency, N = X R, and no more than there are slots.

    In a closed loop no slot is idle while a request waits, so a window is at most sum / N + (1 - 1 / N) longest
    (Graham, SIAM J. Appl. Math. 17 (1969) 416); what is above that the client lost between requests. With one slot
    that shifts no latency and is not judged: kvbench reads counters between single requests.
    """
    latency_s = run.floats("latency_s")
    is_timed = run.is_answered & ~np.isnan(latency_s)
    window_s, slots, timed = run.record.load_s, run.expected.concurrency, count(is_timed)
    if not timed or not window_s or slots is None:
        return
    total_s = float(latency_s[is_timed].sum())
    in_flight = total_s / window_s
    text = f"X R = {timed / window_s:.4g}/s x {total_s / timed:.4g} s = {in_flight:.3g} requests in flight"
    text += f", with {slots} slots"
    if in_flight > slots * (1 + TIME_SLACK):
        yield Reason("invalid", "Little's law", text, "Report the driver's version: it sent more than it was told to.")
    span = load_window_ns(run.measured)
    if span is not None and abs((span_s := (span[1] - span[0]) / 1e9) - window_s) > TIME_SLACK * window_s:
        spans = f"the rows span {format_duration(span_s)}, run.json says {format_duration(window_s)}"
        yield Reason("suspect", "load window", spans, "Run the scenario again: files of several attempts were mixed.")
    if slots > 1 and not run.expected.is_open_loop and timed == len(run.measured):
        least_s = total_s / slots + (1 - 1 / slots) * _longest_stay_s(run, latency_s)
        if window_s - least_s > MOST_IDLE * window_s:
            text = f"{text}: slots were idle for {1 - least_s / window_s:.0%} of the time"
            remedy = "Give the client a core of its own, use --driver native, or lower the concurrency."
            yield Reason("suspect", "starved loop", text, remedy)


def _longest_stay_s(run: RunToJudge, latency_s: Array) -> float:
    """Return how long one slot was held by the longest request, or conversation."""
    longest = float(latency_s.max(initial=0.0, where=~run.is_in_conversation))
    if not run.is_in_conversation.any():
        return longest
    conversations, _ = pd.factorize(run.measured["conversation_id"][run.is_in_conversation])
    return max(longest, float(np.bincount(conversations, weights=latency_s[run.is_in_conversation]).max()))


def _check_network_floor(run: RunToJudge) -> Iterator[Reason]:
    """A token cannot come sooner than a request can go there and back."""
    floor_s = run.record.network_floor_s
    is_early = run.is_answered & (run.ttft_s < (floor_s or -np.inf))
    if is_early.any() and floor_s is not None:
        soonest = format_duration(float(run.ttft_s[is_early].min()))
        text = f"{count(is_early)} of {count(run.is_answered)} first tokens came within {soonest}"
        text += f", the network's round trip takes {format_duration(floor_s)}"
        remedy = "Look at the clock, and at what answers in the server's place."
        yield Reason("suspect", "network floor", text, remedy)


def _check_streams(run: RunToJudge) -> Iterator[Reason]:
    """Tokens come one after another, each from its own forward pass."""
    tokens = run.floats("osl")
    spent_s = as_floats(run.measured["last_token_ns"] - run.measured["first_token_ns"]) / 1e9
    is_stream = run.is_answered & (tokens > 1) & ~np.isnan(spent_s)
    streams, at_once = count(is_stream), count(is_stream & (spent_s == 0))
    if at_once > MOST_ODD_STREAMS * streams:
        text = f"{at_once} of {streams} answers of several tokens came in one piece"
        remedy = "Look for a proxy that buffers, or a client too busy to read: TTFT may be that of the whole answer."
        yield Reason("suspect", "one piece", text, remedy)
    is_spread = is_stream & (spent_s > 0)
    rates = (tokens[is_spread] - 1) / spent_s[is_spread]
    fast = count(rates > MOST_TOKENS_PER_S * run.expected.time_scale)
    if fast > MOST_ODD_STREAMS * streams:
        text = f"{fast} of {streams} answers streamed at up to {rates.max():,.0f} tokens/s, which no model reaches"
        remedy = "Look for a proxy that buffers the stream, or a server that invents its answers."
        yield Reason("suspect", "token rate", text, remedy)
