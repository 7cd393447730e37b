"""Rules on load, latency and bytes: Little's law, closed loops, bandwidth limits, two experiments compared.

Formula: in a steady state the requests in flight are throughput times mean latency, N = X R. Source: Little, Operations
Research 9 (1961) 383. A closed loop of concurrency N never has more than N in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.audit.curves import prefill_between
from kvbench.audit.findings import Check, sections, token_bytes
from kvbench.publications.printed_figure import Interval, show, show_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.publications.claims_file import Cell, Document, Figure

_PART_LOST = 0.02  # of the bytes that hits need: counters are read a moment later
_LOOP_SLACK = 0.1  # ramps and tails, in which fewer than N are in flight


def check_little(document: Document) -> Iterator[Check]:
    """Hold throughput times latency against the concurrency, or against the mean in flight where that is printed."""
    for cell in document.cells:
        rate, latency = _throughput(cell, document), _mean_latency(cell, document)
        if rate is None or latency is None:
            continue
        (speed, rate_line, rate_figure), (time, time_line, time_figure) = rate, latency
        flight = speed * time
        lines = (rate_line, time_line, f"N = X R = {show_interval(flight, 'count')} in flight")
        where = sections(rate_figure, time_figure)
        measured, limit = document.first("in_flight", cell=cell), cell.load.concurrency
        if measured and time_figure.statistic == "mean":
            bad = not flight.meets(measured.interval)
            yield _judge(f"{cell.name}: {measured.printed} in flight", lines, where, bad=bad)
        if limit:
            bad = flight.low > limit * (1 + 1e-9)
            told = (*lines, f"the loop has {limit} at most")
            yield _judge(f"{cell.name}: concurrency {limit}", told, where, bad=bad)


def _judge(claim: str, lines: tuple[str, ...], where: tuple[str, ...], *, bad: bool) -> Check:
    if not bad:
        return Check("Little's law", claim, where, lines)
    instead = "throughput, latency or concurrency is of another run"
    return Check("Little's law", claim, where, lines, "conflict", instead)


def _throughput(cell: Cell, document: Document) -> tuple[Interval, str, Figure] | None:
    """Return requests per second, from output tokens at their full number where no request rate is printed."""
    rate, tokens = document.first("request_rate", cell=cell), document.first("output_rate", cell=cell)
    if rate:
        return rate.interval, f"X = {rate.printed}", rate
    if tokens and cell.load.output_tokens:
        found = tokens.interval / Interval.exact(float(cell.load.output_tokens))
        line = f"X = {tokens.printed} / {cell.load.output_tokens} tokens = {found.middle:.4g} requests/s"
        return found, line, tokens
    return None


def _mean_latency(cell: Cell, document: Document) -> tuple[Interval, str, Figure] | None:
    """Return the mean latency; else the least that half of the requests above a median force upon it."""
    for what in ("latency", "ttft"):
        if mean := document.first(what, "mean", cell=cell):
            word = "R =" if what == "latency" else "R is at least the mean TTFT,"
            return mean.interval, f"{word} {mean.printed}", mean
        if median := document.first(what, "p50", cell=cell):
            least = median.interval * Interval.exact(0.5)
            return least, f"R is at least half of the median {what}, {show(least.middle, 'time')}", median
    return None


def check_closed_loop(document: Document) -> Iterator[Check]:
    """At one concurrency throughput rises as latency falls: (1 + x)(1 + y) = 1."""
    for cell in document.cells:
        changes = {one.subject: one for one in document.find("change", cell=cell) if one.subject}
        faster, shorter = changes.get("throughput"), changes.get("latency")
        if not faster or not shorter or not cell.load.concurrency:
            continue
        one = Interval.exact(1.0)
        product = (one + faster.interval) * (one + shorter.interval)
        line = f"(1 {faster.printed.text} %)(1 {shorter.printed.text} %) = {show_interval(product, 'ratio')}"
        claim, where = f"{cell.name}: throughput {faster.printed}, latency {shorter.printed}", sections(faster, shorter)
        lines = (line, "at one concurrency the product is 1, but for ramps")
        if product.meets(Interval(1 - _LOOP_SLACK, 1 + _LOOP_SLACK)):
            yield Check("closed loop", claim, where, lines)
        else:
            yield Check("closed loop", claim, where, lines, "conflict", "the concurrency or the prompts differ")


# -- bytes over bandwidth ---------------------------------------------------------------------------------------------


def check_bandwidth(document: Document) -> Iterator[Check]:
    """No prompt is loaded faster than its bytes pass the link, and no tier delivers more than its link carries."""
    for cell in document.cells:
        links = [
            one
            for tier in cell.load.tiers or ("g4",)
            for one in document.find("link", tier=tier)
            if one.interval.low > 0
        ]
        ttft, sizes = document.first("ttft", cell=cell), token_bytes(document)
        for link in links[:1] if cell.load.cache in ("warm", "empty", "on") and sizes else ():
            if ttft and cell.load.prompt_tokens and cell.load.cache == "warm":
                yield _hold_load(cell, ttft, link, sizes)
            rate = document.first("request_rate", cell=cell)
            if rate and (tokens := _tokens_per_request(cell, document)) and cell.load.tiers:
                yield _hold_delivery(cell, (rate, tokens), link, sizes)
    yield from _check_read_bytes(document)


def _hold_load(cell: Cell, ttft: Figure, link: Figure, sizes: list[tuple[str, float]]) -> Check:
    tokens = cell.load.prompt_tokens or 0
    lines = []
    for line, size in sizes:
        time, total = tokens * size / link.interval.high, f"{tokens:,} tokens = {tokens * size / 1e9:.3g} GB"
        lines.append(f"{line}: {total} / {link.printed} = {show(time, 'time')}")
    least = tokens * sizes[-1][1] / link.interval.high
    claim, where = f"{ttft.name}: {ttft.printed}", sections(ttft, link)
    if ttft.interval.high >= least:
        return Check("bytes over bandwidth", claim, where, tuple(lines))
    instead = "fewer bytes are read, or the link is faster"
    return Check("bytes over bandwidth", claim, where, tuple(lines), "conflict", instead)


def _tokens_per_request(cell: Cell, document: Document) -> float | None:
    """Return the mean prompt length: as said, else the workload's tokens over all requests."""
    if cell.load.prompt_tokens:
        return float(cell.load.prompt_tokens)
    for tokens in document.find("workload_tokens"):
        if tokens.experiment == cell.experiment and cell.load.requests:
            return tokens.interval.middle / cell.load.requests
    return None


def _hold_delivery(cell: Cell, asked: tuple[Figure, float], link: Figure, sizes: list[tuple[str, float]]) -> Check:
    rate, tokens = asked
    lines = []
    for line, size in sizes:
        found = rate.interval.middle * tokens * size
        lines.append(f"{line}: {rate.printed} x {tokens:,.0f} tokens = {show(found, 'bandwidth')}, of {link.printed}")
    claim, where = f"{cell.name}: delivered by the tier if every prompt hits", sections(rate, link)
    if rate.interval.low * tokens * sizes[-1][1] <= link.interval.high:
        return Check("bytes over bandwidth", claim, where, tuple(lines))
    instead = "fewer bytes are read, or some hit a faster tier"
    return Check("bytes over bandwidth", claim, where, tuple(lines), "conflict", instead)


def _check_read_bytes(document: Document) -> Iterator[Check]:
    """Bytes that were counted as read take their time at the rate that was measured."""
    for cell in document.cells:
        size, rate = document.first("read_bytes", cell=cell), document.first("storage_read", cell=cell)
        ttft = document.first("ttft", "mean", cell=cell)
        if size and rate and ttft:
            least = size.interval / rate.interval
            line = f"{size.printed} a request / {rate.printed} = {show(least.middle, 'time')}, of TTFT {ttft.printed}"
            claim, where = f"{ttft.name}: {ttft.printed}", sections(size, rate, ttft)
            if least.low <= ttft.interval.high:
                yield Check("bytes over bandwidth", claim, where, (line,))
            else:
                instead = "not all bytes were read before the first token"
                yield Check("bytes over bandwidth", claim, where, (line,), "conflict", instead)


def check_hits_need_bytes(document: Document) -> Iterator[Check]:
    """Tokens that a slower tier served were read from it, byte for byte."""
    each = document.first("kv_bytes_per_token")
    for cell in document.cells if each else ():
        hits, size = document.first("hit_tokens", cell=cell), document.first("read_bytes", cell=cell)
        if not hits or not size or each is None or cell.load.cache != "warm" or "g1" in cell.load.tiers:
            continue
        needed = hits.interval * each.interval
        line = f"{hits.printed} hit x {each.printed} = {show(needed.middle, 'bytes')}; {size.printed} were read"
        claim, where = f"{cell.name}: {hits.printed} came from {', '.join(cell.load.tiers)}", sections(hits, size)
        if size.interval.high >= needed.low * (1 - _PART_LOST):
            yield Check("hits against bytes read", claim, where, (line,))
        else:
            instead = "some hits came from a faster tier or from the page cache"
            yield Check("hits against bytes read", claim, where, (line,), "conflict", instead)


# -- one experiment against another -----------------------------------------------------------------------------------


def check_curve_against_throughput(document: Document) -> Iterator[Check]:
    """A recompute throughput must not need more GPUs than there are, by the document's own curve of one request."""
    for curves in document.claims.curves.values():
        for treatment in curves.treatments:
            own = [one for one in document.cells if one.experiment == curves.experiment]
            alone = [one for one in own if one.treatment == treatment]
            if not alone or alone[0].load.cache != "off" or len(alone) < 2:
                continue
            for cell in document.cells:
                if cell.experiment != curves.experiment and cell.load.cache == "off":
                    yield from _hold_curve(cell, alone, document)


def _hold_curve(cell: Cell, alone: list[Cell], document: Document) -> Iterator[Check]:
    rate, tokens, gpus = document.first("request_rate", cell=cell), _tokens_per_request(cell, document), cell.load.gpus
    points = [(one.load.prompt_tokens or 0, document.first("ttft", cell=one)) for one in alone]
    known = sorted((at, figure.interval.middle) for at, figure in points if figure)
    if not rate or not tokens or not gpus or rate.interval.low <= 0 or not known[0][0] <= tokens <= known[-1][0]:
        return
    each = alone[0].load.gpus or gpus
    least, told = prefill_between(known, tokens)
    if least <= 0:
        return
    room = gpus / each / least
    lines = (
        told,
        f"{gpus} GPUs, {each} a request: {gpus} / {each} / {least:.1f} s = {room:.3g} requests/s at most",
        f"printed: {rate.printed}, which is {gpus / rate.interval.middle:.1f} GPU-seconds a request",
    )
    claim = f"{cell.name}: {rate.printed} of about {tokens:,.0f} tokens each on {gpus} GPUs"
    where = sections(points[0][1], rate)
    if rate.interval.low <= room:
        yield Check("curve against throughput", claim, where, lines)
        return
    instead = "the prompts are shorter, share prefixes, or another number of GPUs was used"
    yield Check("curve against throughput", claim, where, lines, "conflict", instead)
