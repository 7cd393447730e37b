"""Rules on how TTFT grows with prompt length: the stated law, the printed points, and the work they imply.

Prefill does work of each token with the weights (linear) and of each token with all before it (quadratic), so T(n) =
c + a n + b n^2 with nothing negative; between two points its power-law exponent lies between 0 and 2. Loading a cache
is linear.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from kvbench.audit.findings import Check, token_bytes
from kvbench.publications.printed_figure import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.publications.claims import Growth
    from kvbench.publications.claims_file import Document, Figure

_FLAT = 1.1
_LINEAR = (0.9, 1.1)
_BUSY = 0.5  # of a link's bandwidth; below, something else is the limit

Points = list[tuple[int, "Figure"]]


def points_of(document: Document, curve: str, treatment: str) -> Points:
    """Return the printed points of a curve, by prompt length."""
    experiment = document.claims.curves[curve].experiment
    cells = [one for one in document.cells if one.experiment == experiment and one.treatment == treatment]
    found = [(one.load.prompt_tokens or 0, document.first("ttft", cell=one)) for one in cells]
    return sorted(((tokens, figure) for tokens, figure in found if figure), key=lambda point: point[0])


def polynomial(first: tuple[float, float], last: tuple[float, float]) -> tuple[float, float]:
    """Return a and b of a n + b n^2 through two points."""
    (n, t), (m, u) = first, last
    quadratic = (u / m - t / n) / (m - n)
    return t / n - quadratic * n, quadratic


def prefill_between(points: list[tuple[int, float]], tokens: float) -> tuple[float, str]:
    """Return the least prefill time at a length between printed ones, over all polynomials that prefill allows.

    Of all c + a n + b n^2 with nothing negative through two points, the least in between is a n + b n^2 where c = 0, or
    c + b n^2 where a = 0; both are tried.
    """
    below = max((point for point in points if point[0] <= tokens), key=lambda point: point[0])
    above = min((point for point in points if point[0] >= tokens), key=lambda point: point[0])
    if below == above:
        return below[1], f"printed at {below[0]:,} tokens: {below[1]:g} s"
    linear, quadratic = polynomial(below, above)
    square = (above[1] - below[1]) / (above[0] ** 2 - below[0] ** 2)
    fixed = below[1] - square * below[0] ** 2
    ways = [linear * tokens + quadratic * tokens**2, *([fixed + square * tokens**2] if fixed >= 0 else [])]
    told = (
        f"one request of {tokens:,.0f} tokens, by {below[1]:g} s at {below[0]:,} and {above[1]:g} s at {above[0]:,}: "
        f"{linear:.4g} n + {quadratic:.5g} n^2 = {ways[0]:.1f} s"
    )
    return min(ways), told + (f", at least {min(ways):.1f} s with a fixed part" if len(ways) > 1 else "")


def check_growth(document: Document) -> Iterator[Check]:
    """Hold words such as exponential, linear and flat against the exponent between the ends of the curve."""
    for growth in document.claims.growth:
        points = points_of(document, growth.curve, growth.treatment)
        if len(points) < 2:
            continue
        (n, first), (m, last) = points[0], points[-1]
        low, high = first.interval.middle, last.interval.middle
        if min(low, high, n) <= 0:
            continue
        exponent = log(high / low) / log(m / n)
        line = f"from {first.printed} at {n:,} to {last.printed} at {m:,} tokens: {high / low:.3g}x for {m / n:.3g}x"
        lines = (line, f"as a power of the length: exponent {exponent:.2f}")
        yield _judge_growth(growth, points, exponent, lines)


def _judge_growth(growth: Growth, points: Points, exponent: float, lines: tuple[str, ...]) -> Check:
    (n, first), (m, last) = points[0], points[-1]
    ends = (n, first.interval.middle), (m, last.interval.middle)
    where, rule = (growth.section,), "words on growth"
    if growth.word == "exponential":
        linear, quadratic = polynomial(*ends)
        lines = (*lines, f"{linear:.4g} n + {quadratic:.5g} n^2 s goes through both ends")
        if linear < 0 or quadratic < 0:
            return Check(rule, growth.text, where, lines)
        text = f"the growth is polynomial (exponent {exponent:.2f}), as prefill is; more points would show it"
        return Check(rule, growth.text, where, lines, "unsupported", text)
    if growth.word == "linear" and not _LINEAR[0] <= exponent <= _LINEAR[1]:
        return Check(rule, growth.text, where, lines, "unsupported", f"the exponent is {exponent:.2f}")
    ratio = ends[1][1] / ends[0][1]
    if growth.word == "flat" and max(ratio, 1 / ratio) > _FLAT:
        text = f"it changes by {ratio:.2f}x: flat beside another curve only"
        return Check(rule, growth.text, where, lines, "note", text)
    return Check(rule, growth.text, where, lines)


def check_load_rate(document: Document) -> Iterator[Check]:
    """Give the rate at which a warm curve loads KV, and say where that leaves most of the link unused."""
    for name, curves in document.claims.curves.items():
        for treatment in curves.treatments:
            points, sizes = points_of(document, name, treatment), token_bytes(document)
            warm = points and points[0][1].cell is not None and points[0][1].cell.load.cache == "warm"
            link = next((one for one in document.find("link", tier="g4")), None)
            if len(points) < 2 or not sizes or not warm:
                continue
            if points[-1][1].interval.middle > points[0][1].interval.middle:
                yield _load_rate(treatment, points, sizes, link)


def _load_rate(treatment: str, points: Points, sizes: list[tuple[str, float]], link: Figure | None) -> Check:
    (n, first), (m, last) = points[0], points[-1]
    slope = (last.interval.middle - first.interval.middle) / (m - n)
    fixed = first.interval.middle - slope * n
    rise = f"({last.printed} - {first.printed}) / {m - n:,} tokens"
    lines = [f"{rise} = {slope * 1e6:.3g} us a token beside {fixed:.4g} s fixed"]
    rates = [size / slope for _, size in sizes]
    lines += [f"{line}: {show(rate, 'bandwidth')}" for (line, _), rate in zip(sizes, rates, strict=True)]
    claim = f"{treatment}: a single request loads KV at {show(rates[0], 'bandwidth')} at most"
    where = tuple(dict.fromkeys((first.section, *((link.section,) if link else ()))))
    if link is None:
        return Check("bytes over bandwidth", claim, where, tuple(lines))
    share = rates[0] / link.interval.high
    lines.append(f"the link carries {link.printed}: {100 * share:.0f} % of it is used")
    if rates[-1] > link.interval.high:
        return Check("bytes over bandwidth", claim, where, tuple(lines), "conflict", "fewer bytes are read")
    if share < _BUSY:
        text = "a single request is not limited by this link, so more of it would not help one"
        return Check("bytes over bandwidth", claim, where, tuple(lines), "note", text)
    return Check("bytes over bandwidth", claim, where, tuple(lines))
