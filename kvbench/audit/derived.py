"""Rules on figures that follow from other figures: percentages, ratios, sums, quotients, order.

A derived figure is a conflict only if no numbers that are rounded to the printed ones give it. Which base a percentage
was taken of is told, since a loss (1 - new/old) and an increase (new/old - 1) are different numbers.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import TYPE_CHECKING

from kvbench.audit.findings import Check, sections
from kvbench.publications.printed_figure import Interval, show, show_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.publications.claims import Derived, Form, Statistic, What
    from kvbench.publications.claims_file import Cell, Document, Figure

_ONE = Interval.exact(1.0)
_FORMULAS: dict[Form, str] = {
    "change": "{new} / {old} - 1",
    "increase": "{new} / {old} - 1",
    "decrease": "1 - {new} / {old}",
    "ratio": "{new} / {old}",
    "difference": "{new} - {old}",
}
_PERCENT: tuple[Form, ...] = ("change", "increase", "decrease")
_SHARES: dict[Statistic, float] = {"p50": 0.5, "p90": 0.1, "p95": 0.05, "p99": 0.01}


def compute(form: Form, new: Interval, old: Interval) -> Interval:
    """Return all values that a derived figure can have."""
    if form == "difference":
        return new - old
    ratio = new / old
    if form == "ratio":
        return ratio
    return _ONE - ratio if form == "decrease" else ratio - _ONE


def check_derived(document: Document) -> Iterator[Check]:
    """Compute every derived figure again from the figures that it is said to follow from."""
    for claim in document.derived:
        yield _check_parts(claim, document) if claim.parts else _check_pair(claim, document)


def _check_parts(claim: Derived, document: Document) -> Check:
    figures = [document.figure(ref) for ref in claim.parts]
    combine = operator.add if claim.form == "sum" else operator.mul
    found = functools.reduce(combine, (one.interval for one in figures))
    sign, dimension = " + " if claim.form == "sum" else " x ", claim.printed.dimension
    line = f"{sign.join(str(one.printed) for one in figures)} = {show_interval(found, dimension)}"
    return _judge(claim, found, (line,), sections(*figures))


def _check_pair(claim: Derived, document: Document) -> Check:
    new, old = document.figure(claim.of), document.figure(claim.over)
    found = compute(claim.form, new.interval, old.interval)
    check = _judge(claim, found, (_line(claim.form, new, old),), (claim.section, *sections(new, old)))
    if check.severity != "conflict":
        return check
    others = tuple(_other_readings(claim, new, old, document))
    instead = f"it fits where {' or where '.join(others)}" if others else "one of the figures is another one"
    return Check(check.rule, check.claim, check.where, check.arithmetic, "conflict", instead)


def _line(form: Form, new: Figure, old: Figure) -> str:
    """Write the arithmetic with the printed figures, its result, and the range that rounding allows."""
    formula = _FORMULAS[form].format(new=new.printed, old=old.printed)
    found, percent = compute(form, new.interval, old.interval), form in _PERCENT
    dimension = new.printed.dimension if form == "difference" else "ratio"
    middle = compute(form, Interval.exact(new.interval.middle), Interval.exact(old.interval.middle)).low
    told = f"{middle * 100:.3g} %" if percent else show(middle, dimension)
    return f"{formula} = {told} (rounding allows {show_interval(found, dimension, percent=percent)})"


def _judge(claim: Derived, computed: Interval, lines: tuple[str, ...], where: tuple[str, ...]) -> Check:
    """Hold what was computed against what is printed; digits that were cut off instead of rounded are only a note."""
    figure, rule = claim.printed, "derived figures"
    places = tuple(dict.fromkeys((claim.section, *where)))
    said = (*lines, f"printed: {figure}")
    if computed.meets(figure.interval):
        return Check(rule, claim.text, places, said)
    if figure.words == "exactly" and computed.meets(_cut_off(figure.rounded)):
        return Check(rule, claim.text, places, said, "note", "the digits were cut off, not rounded")
    return Check(rule, claim.text, places, said, "conflict", "one of the figures is another one")


def _cut_off(rounded: Interval) -> Interval:
    """Return what gives the same digits where the rest was cut off instead of rounded."""
    half = (rounded.high - rounded.low) / 2
    shift = half if rounded.middle >= 0 else -half
    return Interval(rounded.low + shift, rounded.high + shift)


def _other_readings(claim: Derived, new: Figure, old: Figure, document: Document) -> Iterator[str]:
    """Look for a formula, or other figures of the same two cells, that give the printed percentage."""
    if claim.form not in _PERCENT:
        return
    pairs = [(new, old)]
    if new.cell and old.cell:
        others = (
            (first, second)
            for first in document.figures
            for second in document.figures
            if first.cell == new.cell and second.cell == old.cell and first.what == second.what != new.what
        )
        pairs = [*((a, b) for a, b in others if a.statistic == b.statistic), *pairs]
    target = claim.printed.interval
    for first, second in pairs:
        for form in ("increase", "decrease"):
            if (form, first) != (claim.form, new) and compute(form, first.interval, second.interval).meets(target):
                what = first.what.replace("_", " ")
                yield f"it means the {form} of {what}: {_line(form, first, second)}"


# -- said twice -------------------------------------------------------------------------------------------------------


def check_restated(document: Document) -> Iterator[Check]:
    """A figure that is said again must be the same within its digits."""
    for again in document.figures:
        if not again.restates:
            continue
        first = document.figure(again.restates)
        dimension = first.printed.dimension
        lines = tuple(f"{one.printed} is {show_interval(one.interval, dimension)}" for one in (first, again))
        claim, rule = f"{first.name}: {first.printed}, and elsewhere {again.printed}", "figures said twice"
        if first.interval.meets(again.interval):
            yield Check(rule, claim, sections(first, again), lines)
            continue
        if _cut_off(again.interval).meets(first.interval):
            yield Check(rule, claim, sections(first, again), lines, "note", "the digits were cut off, not rounded")
            continue
        small, large = sorted((first.interval.middle, again.interval.middle))
        lines = (*lines, *([f"they differ by a factor of {large / small:.3g}"] if small > 0 else []))
        yield Check(rule, claim, sections(first, again), lines, "conflict", "they are figures of different things")


# -- identities -------------------------------------------------------------------------------------------------------


def check_identities(document: Document) -> Iterator[Check]:
    """Rates are counts over time, totals are sums, and a hit rate is hits over what was asked for."""
    for cell in document.cells:
        get = functools.partial(document.first, cell=cell)
        rate, duration = get("request_rate"), get("duration")
        if rate and duration and cell.load.requests:
            counted = Interval.exact(float(cell.load.requests))
            found = counted / duration.interval
            line = f"{cell.load.requests} requests / {duration.printed} = {show_interval(found, 'rate')}"
            yield _same(found, rate, line, duration)
        yield from _check_total(get("input_rate"), get("output_rate"), get("total_rate"))
        hits, asked, share = get("hit_tokens"), get("queried_tokens"), get("hit_rate")
        if hits and asked and share:
            found = hits.interval / asked.interval
            line = f"{hits.printed} / {asked.printed} = {show_interval(found, 'ratio', percent=True)}"
            yield _same(found, share, line, hits)


def _check_total(first: Figure | None, second: Figure | None, total: Figure | None) -> Iterator[Check]:
    if first and second and total:
        found = first.interval + second.interval
        line = f"{first.printed} + {second.printed} = {show_interval(found, 'token rate')}"
        yield _same(found, total, line, first)


def _same(computed: Interval, figure: Figure, line: str, other: Figure) -> Check:
    claim, where = str(figure), sections(figure, other)
    if computed.meets(figure.interval):
        return Check("rates, totals and shares", claim, where, (line, f"printed: {figure.printed}"))
    lines = (line, f"printed: {figure.printed}")
    return Check("rates, totals and shares", claim, where, lines, "conflict", "one of the figures is another one")


# -- order ------------------------------------------------------------------------------------------------------------


def check_order(document: Document) -> Iterator[Check]:
    """A higher percentile is no smaller, a TTFT no longer than its request, and a mean carries its own tail."""
    for cell in document.cells:
        yield from _check_percentiles_rise("ttft", cell, document)
        yield from _check_percentiles_rise("latency", cell, document)
        for statistic in ("mean", "p50", "p90", "p95", "p99"):
            ttft, latency = (document.first(what, statistic, cell=cell) for what in ("ttft", "latency"))
            if ttft and latency:
                bad = ttft.interval.low > latency.interval.high
                line = f"{ttft.printed} of TTFT in {latency.printed} of latency"
                yield _ordered(f"{ttft.name} within latency", (line,), sections(ttft, latency), bad=bad)


def _check_percentiles_rise(what: What, cell: Cell, document: Document) -> Iterator[Check]:
    found = [one for name in _SHARES if (one := document.first(what, name, cell=cell))]
    mean = document.first(what, "mean", cell=cell)
    for low, high in itertools.pairwise(found):
        line = f"{low.statistic} {low.printed}, {high.statistic} {high.printed}"
        claim = f"{low.name} up to its {high.statistic}"
        yield _ordered(claim, (line,), sections(low, high), bad=low.interval.low > high.interval.high)
    for one in found if mean else ():
        share = _least_share(one.statistic, cell.values)
        if not share:
            continue
        least = one.interval.low * share
        line = f"at least {share:.3g} of the values reach {one.printed}, so the mean is at least {show(least, 'time')}"
        assert mean is not None  # noqa: S101 - the loop is empty without one
        lines = (line, f"printed mean: {mean.printed}")
        yield _ordered(f"{mean.name} carries its {one.statistic}", lines, sections(one), bad=mean.interval.high < least)


def _least_share(statistic: Statistic | None, n: int | None) -> float:
    """Return the share of values at or above a percentile, whatever its definition; a tenth less where n is unknown."""
    share = _SHARES[statistic or "p50"]
    return share * 0.9 if n is None else max(int(n * share) - 1, 0) / n


def _ordered(claim: str, lines: tuple[str, ...], where: tuple[str, ...], *, bad: bool) -> Check:
    if bad:
        return Check("order of figures", claim, where, lines, "conflict", "the two are of different requests")
    return Check("order of figures", claim, where, lines)
