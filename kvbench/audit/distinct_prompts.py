"""Rules on hit rates and speed-ups: an empty cache computes each distinct prompt once, which bounds both.

Formula: N draws with replacement from D prompts touch D (1 - (1 - 1/D)^N) distinct ones on average, with variance
D (D - 1) (1 - 2/D)^N + D (1 - 1/D)^N - D^2 (1 - 1/D)^(2N). Source: Johnson and Kotz, Urn Models and Their Application,
section 3.1.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from kvbench.audit.findings import Check, sections
from kvbench.publications.printed_figure import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.publications.claims import Workload
    from kvbench.publications.claims_file import Cell, Document, Figure

_NOISE = 0.2  # by which two runs of the same thing may differ
_SIGMAS = 5  # how far below its mean the number of distinct prompts is allowed to lie


def distinct_draws(draws: int, prompts: int) -> tuple[float, float]:
    """Return the mean and the standard deviation of how many distinct prompts random draws touch."""
    if prompts == 1:
        return 1.0, 0.0
    missed, both = (1 - 1 / prompts) ** draws, (1 - 2 / prompts) ** draws
    variance = prompts * (prompts - 1) * both + prompts * missed - (prompts * missed) ** 2
    return prompts * (1 - missed), sqrt(max(variance, 0.0))


def check_draws(document: Document) -> Iterator[Check]:
    """Hold each run that started empty against the recomputes that its distinct prompts need."""
    for cell in document.cells:
        load = cell.load
        if load.cache != "empty" or not load.requests or not load.distinct_prompts or load.draw is None:
            continue
        for other in document.cells:
            if other.load.cache == "off" and other.experiment == cell.experiment and other.place == cell.place:
                rates = _rate(other, document), _rate(cell, document)
                if rates[0] and rates[1]:
                    yield _hold(cell, rates[0], rates[1])


def _rate(cell: Cell, document: Document) -> tuple[Interval, Figure] | None:
    """Return requests per second: from the duration, which usually has more digits, else as printed."""
    duration, rate = (document.first(what, cell=cell) for what in ("duration", "request_rate"))
    if duration and cell.load.requests and duration.interval.low > 0:
        return Interval.exact(float(cell.load.requests)) / duration.interval, duration
    return (rate.interval, rate) if rate and rate.interval.low > 0 else None


def _hold(cell: Cell, baseline: tuple[Interval, Figure], cached: tuple[Interval, Figure]) -> Check:
    load, (slow, slow_figure), (fast, fast_figure) = cell.load, baseline, cached
    requests = load.requests or 0
    mean, spread, told = _distinct(load)
    least = max(mean - _SIGMAS * spread, 1.0)
    speed_up, time_s = fast.middle / slow.middle, requests / fast.middle
    room = time_s * slow.middle
    hits = [f"{100 * (1 - count / requests):.1f} %" for count in (room, mean)]
    rates = f"baseline {slow_figure.printed} = {slow.middle:.4g} requests/s"
    rates += f", cached {fast_figure.printed} = {fast.middle:.4g} requests/s: speed-up {speed_up:.3g}x"
    alone = f"the distinct prompts alone take {mean:.1f} / {slow.middle:.4g} = {mean / slow.middle:.0f} s"
    fits = f"{time_s:.2f} s leaves room for {time_s:.2f} x {slow.middle:.4g} = {room:.1f} recomputes"
    lines = (
        told,
        rates,
        f"{alone} at the baseline's rate: the speed-up is at most {requests} / {mean:.1f} = {requests / mean:.2f}x",
        f"{fits}: a hit rate of at least {hits[0]}, where an empty start allows {hits[1]}",
    )
    claim = f"{cell.name} started empty and was {speed_up:.3g}x as fast"
    where = sections(slow_figure, fast_figure)
    if fast.low / slow.high <= (1 + _NOISE) * requests / least:
        return Check("distinct draws", claim, where, lines)
    beyond = f"; that is {(mean - room) / spread:.0f} standard deviations off" if spread else ""
    instead = f"the tier held the prompts before, the prompts share prefixes, or others were sent{beyond}"
    return Check("distinct draws", claim, where, lines, "conflict", instead)


def _distinct(load: Workload) -> tuple[float, float, str]:
    requests, prompts = load.requests or 0, load.distinct_prompts or 1
    if load.draw == "random":
        mean, spread = distinct_draws(requests, prompts)
        formula = f"{prompts} x (1 - (1 - 1/{prompts})^{requests})"
        return (
            mean,
            spread,
            f"{requests} random draws from {prompts} prompts touch {formula} = {mean:.1f} distinct ones",
        )
    count = float(min(requests, prompts))
    return count, 0.0, f"{requests} requests for {prompts} prompts, each in turn, touch {count:.0f} distinct ones"
