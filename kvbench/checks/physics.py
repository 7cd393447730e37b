"""What cannot be: times, rates and bytes of a run that no machine could have produced.

Nothing here needs to know why. A figure that breaks one of these bounds is wrong, or is the figure of something else:
bytes came from a faster place, a proxy held the stream back, the clock moved, or somebody counted what never happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.checks.repeated_prompts import not_first_touches
from kvbench.checks.verdict import Reason, named_tier
from kvbench.run_time import length_s, load_window_ns
from kvbench.units import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.checks.verdict import Asked, Ceiling
    from kvbench.records import Row

TIME_SLACK = 0.02  # of two clocks of one host, and of rounding
BYTES_SLACK = 0.01
MOST_SCHEDULE_LEAD_S = 0.001
MOST_IDLE = 0.1
MOST_TOKENS_PER_S = 20_000.0  # of one stream: 50 us a token is below the kernel launches of one forward pass
MOST_ODD_STREAMS = 0.01


def check_physics(run: dict[str, Any], measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Hold a run against what is possible."""
    answered = [row for row in measured if row.status == "ok"]
    yield from _check_order_of_times(measured)
    yield from _check_server_clock(answered)
    for tier in asked.ceilings:
        yield from _check_bandwidth(run, answered, tier, asked.ceilings[tier])
    yield from _check_written(run, answered, not_first_touches(measured))
    yield from _check_bytes_for_hits(run)
    yield from _check_little(run, measured, asked)
    yield from _check_network_floor(run.get("network_floor_s"), answered)
    yield from _check_streams(answered, asked)


def _served_by(tier: str, run: dict[str, Any], answered: list[Row]) -> list[Row]:
    """Return the rows that a tier served; of the warm tier also those of which nobody knows where they came from."""
    is_warm = tier == named_tier(run["cache"]["state"])
    return [row for row in answered if row.tier == tier or (is_warm and row.tier in ("unproven", None))]


def request_bytes(run: dict[str, Any], row: Row) -> float | None:
    """Return the bytes that a request's hits took from their tier: the server's count, else tokens times bytes each."""
    per_token = run["blocks"].get("kv_bytes_per_token")
    if row.server_read_bytes is not None:
        return float(row.server_read_bytes)
    return row.cached_tokens * per_token if row.cached_tokens and per_token else None


def _check_order_of_times(measured: list[Row]) -> Iterator[Reason]:
    """A token comes after its request and before the end; a request is not sent before it is due."""
    backwards = [row for row in measured if _runs_backwards(row)]
    if backwards:
        text = f"time runs backwards in {len(backwards)} of {len(measured)} requests, first {backwards[0].request_id}"
        yield Reason("invalid", "time order", text, "Stop whatever sets the clock, and run the scenario again.")


def _runs_backwards(row: Row) -> bool:
    in_order = [at for at in (row.sent_ns, row.first_token_ns, row.last_token_ns) if at is not None]
    early = row.send_lag_s is not None and row.send_lag_s < -MOST_SCHEDULE_LEAD_S
    return early or in_order != sorted(in_order)


def _check_server_clock(answered: list[Row]) -> Iterator[Reason]:
    """The first token of a warm request cannot come before its blocks were read, by the server's own account."""
    timed = [(row, row.server_storage_s) for row in answered if row.server_storage_s and row.ttft_s is not None]
    early = [(row, spent_s) for row, spent_s in timed if (row.ttft_s or 0.0) < spent_s * (1 - TIME_SLACK)]
    if early:
        row, spent_s = early[0]
        text = (
            f"{len(early)} of {len(timed)} first tokens came before their blocks were read, such as TTFT "
            f"{format_duration(row.ttft_s or 0.0)} with {format_duration(spent_s)} of storage by the server's clock"
        )
        yield Reason(
            "suspect", "storage clock", text, "Find out which blocks the server waits for, and by which clock."
        )


def _check_bandwidth(run: dict[str, Any], answered: list[Row], tier: str, ceiling: Ceiling) -> Iterator[Reason]:
    """No request, and no run as a whole, gets bytes faster than the tier can deliver them."""
    limit, served = ceiling.bytes_per_s * (1 + TIME_SLACK), _served_by(tier, run, answered)
    found = []
    for row in served:
        size, spent_s = request_bytes(run, row), row.server_storage_s or row.ttft_s
        if size and spent_s and size / spent_s > limit:
            found.append((size, spent_s))
    told = f"{format_rate(ceiling.bytes_per_s)}, which is {ceiling.source}"
    remedy = "Look for a cache under the tier (page cache, controller), or correct the figure."
    if found:
        size, spent_s = found[0]
        took = f"{format_size(size)} in {format_duration(spent_s)} is {format_rate(size / spent_s)}"
        text = f"{len(found)} of {len(served)} requests got their bytes faster than the tier can: {took}, above {told}"
        yield Reason("suspect", "bytes over bandwidth", text, remedy)
    total = run["ledger"]["read_bytes"].get(tier) or 0.0
    if not total and tier == named_tier(run["cache"]["state"]):  # a server may call its only tier otherwise
        total = _counted_bytes(run["ledger"]) or 0.0
    window_s = run.get("load_s") or 0.0
    if not found and window_s and total / window_s > limit:
        took = f"{format_size(total)} in {format_duration(window_s)}"
        text = f"the run read its bytes faster than the tier can: {took}, above {told}"
        yield Reason("suspect", "bytes over bandwidth", text, remedy)


def _check_written(run: dict[str, Any], answered: list[Row], known: set[str]) -> Iterator[Reason]:
    """Nothing can be served from a cache that was not put there before."""
    beyond = [row for row in answered if row.isl is not None and (row.cached_tokens or 0) > row.isl]
    if beyond:
        row = beyond[0]
        text = f"{len(beyond)} answers claim more cached tokens than their prompt has: {row.cached_tokens} of {row.isl}"
        yield Reason("invalid", "hits above what was written", text, "Do not use this server's cached_tokens.")
    ledger, per_token = run["ledger"], run["blocks"].get("kv_bytes_per_token")
    held, cached = ledger.get("expected_read_bytes"), ledger["cached_tokens"]
    state, shares = run["cache"]["state"], any(row.conversation_id for row in answered)
    if state.startswith("warm") and held and cached and per_token and not shares:
        if cached * per_token > held * (1 + BYTES_SLACK):
            text = f"{cached:,} cached tokens are {format_size(cached * per_token)}, the tier holds {format_size(held)}"
            remedy = "Check kv_bytes_per_token, and whether another tier served."
            yield Reason("suspect", "hits above what was written", f"{text} of these prompts", remedy)
    elif not state.startswith("warm") and not shares:
        yield from _check_first_touches(answered, known)


def _check_first_touches(answered: list[Row], known: set[str]) -> Iterator[Reason]:
    """From an empty start the first request of a prompt finds nothing, since prompts share no beginning."""
    found = [row for row in answered if row.cached_tokens and row.request_id not in known]
    if found:
        cached, prompts = sum(row.cached_tokens or 0 for row in found), len({row.prompt_id for row in answered})
        text = f"{len(found)} of {prompts} prompts hit {cached:,} cached tokens when they were first sent"
        remedy = "Look for a cache that was not reset, or a chat template that all prompts begin with."
        yield Reason("suspect", "hits above what was written", text, remedy)


def _check_bytes_for_hits(run: dict[str, Any]) -> Iterator[Reason]:
    """Hits below host memory are read from files; where the ledger sees fewer bytes, its gap says so already."""
    ledger, per_token = run["ledger"], run["blocks"].get("kv_bytes_per_token")
    if ledger["gap"] or named_tier(run["cache"]["state"]) not in ("g3", "g4"):
        return
    counted = _counted_bytes(ledger)
    needed = ((ledger["cached_tokens"] or 0) - (ledger.get("memory_tokens") or 0)) * (per_token or 0)
    if counted is not None and counted < needed * (1 - BYTES_SLACK):
        text = f"{format_size(counted)} were read, the hits need {format_size(needed)}"
        remedy = "Find the faster tier or the page cache that served the rest."
        yield Reason("suspect", "bytes below the hits", text, remedy)


def _counted_bytes(ledger: dict[str, Any]) -> float | None:
    """Return what the tiers count as read, or what the kernel does where they count nothing; None without either."""
    read: dict[str, float] = ledger.get("read_bytes") or {}
    process_read: int | None = ledger.get("process_read_bytes")
    return sum(read.values()) if read else process_read


def _check_little(run: dict[str, Any], measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Little's law: requests in flight = throughput times mean latency, N = X R, and no more than there are slots.

    In a closed loop no slot is idle while a request waits, so a window is at most sum / N + (1 - 1 / N) longest
    (Graham, SIAM J. Appl. Math. 17 (1969) 416); what is above that the client lost between requests. With one slot
    that shifts no latency and is not judged: kvbench reads counters between single requests.
    """
    latencies = [row.latency_s for row in measured if row.status == "ok" and row.latency_s is not None]
    window_s, slots = run.get("load_s") or 0.0, asked.concurrency
    if not latencies or not window_s or slots is None:
        return
    total_s = sum(latencies)
    in_flight = total_s / window_s
    told = f"X R = {len(latencies) / window_s:.4g}/s x {total_s / len(latencies):.4g} s = {in_flight:.3g}"
    if in_flight > slots * (1 + TIME_SLACK):
        text = f"{told} requests in flight, with {slots} slots"
        yield Reason("invalid", "Little's law", text, "Report the driver's version: it sent more than it was told to.")
    seen_s = length_s(load_window_ns(measured))
    if seen_s is not None and abs(seen_s - window_s) > TIME_SLACK * window_s:
        text = f"the rows span {format_duration(seen_s)}, run.json says {format_duration(window_s)}"
        yield Reason("suspect", "load window", text, "Run the scenario again: files of several attempts were mixed.")
    if slots > 1 and not asked.is_open_loop and len(latencies) == len(measured):
        least_s = total_s / slots + (1 - 1 / slots) * _longest_stay_s(measured)
        if window_s - least_s > MOST_IDLE * window_s:
            text = f"{told} requests in flight, with {slots} slots: slots were idle for {1 - least_s / window_s:.0%}"
            remedy = "Give the client a core of its own, use --driver native, or lower the concurrency."
            yield Reason("suspect", "starved loop", f"{text} of the time", remedy)


def _longest_stay_s(measured: list[Row]) -> float:
    """Return how long one slot was held by the longest request, or conversation."""
    stays: dict[str, float] = {}
    for row in measured:
        key = row.conversation_id or row.request_id
        stays[key] = stays.get(key, 0.0) + (row.latency_s or 0.0)
    return max(stays.values())


def _check_network_floor(floor_s: float | None, answered: list[Row]) -> Iterator[Reason]:
    """A token cannot come sooner than a request can go there and back."""
    early = [row.ttft_s for row in answered if row.ttft_s is not None and floor_s and row.ttft_s < floor_s]
    if early and floor_s:
        text = f"{len(early)} of {len(answered)} first tokens came within {format_duration(min(early))}"
        text += f", the network's round trip takes {format_duration(floor_s)}"
        remedy = "Look at the clock, and at what answers in the server's place."
        yield Reason("suspect", "network floor", text, remedy)


def _check_streams(answered: list[Row], asked: Asked) -> Iterator[Reason]:
    """Tokens come one after another, each from its own forward pass."""
    streams = [
        (row.osl, row.last_token_ns - row.first_token_ns)
        for row in answered
        if row.osl and row.osl > 1 and row.first_token_ns is not None and row.last_token_ns is not None
    ]
    at_once = sum(spent_ns == 0 for _, spent_ns in streams)
    if at_once > MOST_ODD_STREAMS * len(streams):
        text = f"{at_once} of {len(streams)} answers of several tokens came in one piece"
        remedy = "Look for a proxy that buffers, or a client too busy to read: TTFT may be that of the whole answer."
        yield Reason("suspect", "one piece", text, remedy)
    rates = [(osl - 1) / (spent_ns / 1e9) for osl, spent_ns in streams if spent_ns > 0]
    limit = MOST_TOKENS_PER_S * asked.time_scale
    fast = sum(rate > limit for rate in rates)
    if fast > MOST_ODD_STREAMS * len(streams):
        text = f"{fast} of {len(streams)} answers streamed at up to {max(rates):,.0f} tokens/s, which no model reaches"
        remedy = "Look for a proxy that buffers the stream, or a server that invents its answers."
        yield Reason("suspect", "token rate", text, remedy)
