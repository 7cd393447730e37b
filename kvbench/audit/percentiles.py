"""Rules on percentiles and differences: whether n values support them, and whether any values can have them.

The feasibility rule asks for the largest possible smallest value. With mean, P95 and P99 of n values given, all but
the few slowest share what those leave of n times the mean; if that lies below the time of one forward pass under every
usual definition of a percentile, no requests can have this summary.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

import scipy

from kvbench.audit.findings import Check, listed, sections
from kvbench.percentile import needed_n
from kvbench.publications.printed_figure import Interval, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvbench.publications.claims import Statistic
    from kvbench.publications.claims_file import Cell, Document, Figure

_P: dict[Statistic, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# From n and p to the rank h, counted from 0; the percentile lies between the values at floor(h) and the next one.
_DEFINITIONS: dict[str, Callable[[int, float], float]] = {
    "linear": lambda n, p: (n - 1) * p,
    "lower": lambda n, p: floor((n - 1) * p),
    "higher": lambda n, p: ceil((n - 1) * p),
    "nearest": lambda n, p: round((n - 1) * p),
    "midpoint": lambda n, p: (floor((n - 1) * p) + ceil((n - 1) * p)) / 2,
    "nearest rank": lambda n, p: ceil(n * p) - 1,
    "interpolated nearest rank": lambda n, p: n * p - 1,
    "hazen": lambda n, p: n * p - 0.5,
    "weibull": lambda n, p: (n + 1) * p - 1,
    "median unbiased": lambda n, p: (n + 1 / 3) * p + 1 / 3 - 1,
    "normal unbiased": lambda n, p: (n + 1 / 4) * p + 3 / 8 - 1,
}
_Given = list[tuple[float, Interval]]


def check_counts(document: Document) -> Iterator[Check]:
    """A percentile needs values beyond it: `needed_n` says how many for a bound, and how many for an interval."""
    groups: dict[tuple[str, Statistic, int], list[Figure]] = {}
    for figure in document.figures:
        n = _count(figure.cell, document) if figure.cell else None
        if figure.statistic in _P and _P[figure.statistic] > 0.5 and figure.cell and n:
            groups.setdefault((figure.what, figure.statistic, n), []).append(figure)
    for (what, statistic, n), figures in groups.items():
        p = _P[statistic]
        one, two = (needed_n(100 * p, two_sided=two_sided) for two_sided in (False, True))
        lines = (
            f"n = {n:,}; an upper 95 % bound needs {one}, a two-sided interval {two}",
            f"the largest of {n:,} exceeds the true {statistic.upper()} with probability {100 * (1 - p**n):.3g} %",
        )
        claim = (
            f"{statistic.upper()} of {what.replace('ttft', 'TTFT')} in {listed(f.cell.name for f in figures if f.cell)}"
        )
        where = sections(*figures)
        if n >= two:
            yield Check("percentiles against n", claim, where, lines, cells=len(figures))
        elif n >= one:
            text = f"only an upper bound can be given (n = {n} < {two})"
            yield Check("percentiles against n", claim, where, lines, "note", text, len(figures))
        else:
            text = f"at least {one} values in each cell; as it is, {statistic.upper()} is {_stands_for(n, p)}"
            yield Check("percentiles against n", claim, where, lines, "unsupported", text, len(figures))


def _stands_for(n: int, p: float) -> str:
    return "the largest value" if n * (1 - p) < 1 else "one of the largest values"


def _count(cell: Cell, document: Document) -> int | None:
    """Return how many values are behind a cell: as said, else its rate times how long it ran."""
    rate = document.first("request_rate", cell=cell)
    if cell.values is None and rate and cell.load.runs_for_s:
        return int(rate.interval.low * cell.load.runs_for_s)
    return cell.values


# -- feasibility ------------------------------------------------------------------------------------------------------


def check_feasible(document: Document) -> Iterator[Check]:
    """Find whether any values above the time of a forward pass can have the printed mean and percentiles."""
    for cell in document.cells:
        n, mean = cell.values, document.first("ttft", "mean", cell=cell)
        found = [one for name in _P if (one := document.first("ttft", name, cell=cell))]
        if not n or not mean or not found or n < 2:
            continue
        given = [(_P[one.statistic or "p50"], one.interval) for one in found]
        least = {name: largest_smallest(n, mean.interval, given, rank) for name, rank in _DEFINITIONS.items()}
        yield _judge_feasible(mean, found, n, least, _forward_pass(cell, document))


def largest_smallest(
    n: int, mean: Interval, given: _Given, rank: Callable[[int, float], float]
) -> dict[int, float] | None:
    """Return values by their rank (from 0) in which the smallest is as large as it can be; None if no values fit.

    The values between two ranks that percentiles name may all equal the lower of them (which makes the sum least) or
    the upper one (which makes it largest), so a linear programme in the named values only is exact.
    """
    ranks = [min(max(rank(n, p), 0.0), n - 1.0) for p, _ in given]
    named = sorted({0} | {floor(h) for h in ranks} | {min(floor(h) + 1, n - 1) for h in ranks})
    column = {index: at for at, index in enumerate(named)}
    rows, bounds = [], []
    for h, (_, value) in zip(ranks, given, strict=True):
        row = [0.0] * len(named)
        row[column[floor(h)]] += 1 - (h - floor(h))
        row[column[min(floor(h) + 1, n - 1)]] += h - floor(h)
        rows += [row, [-entry for entry in row]]
        bounds += [value.high, -value.low]
    for at in range(len(named) - 1):  # sorted
        rows.append([1.0 if i == at else -1.0 if i == at + 1 else 0.0 for i in range(len(named))])
        bounds.append(0.0)
    ends = [*named[1:], n]
    rows.append([float(end - start) for start, end in zip(named, ends, strict=True)])
    bounds.append(n * mean.high)
    if named[-1] == n - 1:  # the largest value is named, so the sum has an upper end too
        starts = [-1, *named[:-1]]
        rows.append([float(start - end) for start, end in zip(starts, named, strict=True)])
        bounds.append(-n * mean.low)
    goal = [-1.0] + [0.0] * (len(named) - 1)
    solved = scipy.optimize.linprog(goal, A_ub=rows, b_ub=bounds, bounds=[(0, None)] * len(named), method="highs")
    if solved.x is None or not solved.success:
        return None
    return {index: float(value) for index, value in zip(named, solved.x, strict=True)}


def _forward_pass(cell: Cell, document: Document) -> tuple[float, str]:
    """Return the least time to a first token: the weights are read once, by all GPUs together."""
    parameters, weights, rate = (document.first(what) for what in ("parameters", "weights", "gpu_memory_bandwidth"))
    sizes = [one.interval.low * each for one, each in ((parameters, 2.0), (weights, 1.0)) if one]
    size = min(sizes, default=0.0)
    if not size or not rate or not cell.load.gpus:
        return 0.0, "how long a forward pass takes is not known here"
    time = size / (cell.load.gpus * rate.interval.high)
    told = f"{show(size, 'bytes')} of weights / ({cell.load.gpus} x {rate.printed}) = {show(time, 'time')}"
    return time, f"one forward pass takes {told} at least"


def _judge_feasible(
    mean: Figure,
    percentile_figures: list[Figure],
    n: int,
    least: dict[str, dict[int, float] | None],
    floor_of: tuple[float, str],
) -> Check:
    possible = {name: values for name, values in least.items() if values is not None}
    percentiles = ", ".join(f"{(one.statistic or '').upper()} {one.printed}" for one in percentile_figures)
    claim = f"{mean.cell.name if mean.cell else ''}: mean {mean.printed}, {percentiles} of {n} values"
    where, rule = sections(mean, *percentile_figures), "feasible summaries"
    lines = [f"{n} x {mean.printed} = {n * mean.interval.middle:.2f} s in all"]
    if refused := len(least) - len(possible):
        lines.append(f"no {n} values have this summary with {refused} of {len(least)} definitions of a percentile")
    if not possible:
        return Check(rule, claim, where, tuple(lines), "conflict", "n or one of the figures is another one")
    best = max(possible, key=lambda name: possible[name][0])
    smallest = possible[best][0]
    lines += [_slowest_text(best, possible[best], n, mean), f"the smallest value is {show(smallest, 'time')} at most"]
    lines.append(floor_of[1])
    if smallest >= floor_of[0]:
        return Check(rule, claim, where, tuple(lines))
    text = f"n is not {n}, or the percentiles are of other requests than the mean"
    return Check(rule, claim, where, tuple(lines), "conflict", text)


def _slowest_text(definition: str, values: dict[int, float], n: int, mean: Figure) -> str:
    """Say what the slowest requests are, and how much of the mean they make up."""
    slowest = [values[rank] for rank in (n - 2, n - 1) if rank in values]
    if len(slowest) < 2:
        return f"with {definition} percentiles"
    part = sum(slowest) / (n * (mean.interval.middle or mean.interval.high))
    told = " and ".join(show(value, "time") for value in slowest)
    return f"with {definition} percentiles two are {told}: {100 * part:.0f} % of all in 2 of {n}"


# -- differences ------------------------------------------------------------------------------------------------------


def check_differences(document: Document) -> Iterator[Check]:
    """A mean that is said to be better must differ by more than two standard errors, which a high percentile bounds.

    Formula: one value of n reaches the percentile P, so the mean's standard error is at least (P - mean) / (n - 1).
    """
    for claim in document.derived:
        if not claim.better or not claim.of or not claim.over:
            continue
        pair = [document.figure(claim.of), document.figure(claim.over)]
        errors = [_standard_error(one, document) for one in pair]
        if errors[0] is None or errors[1] is None:
            continue
        delta = abs(pair[0].interval.middle - pair[1].interval.middle)
        both = sqrt(errors[0][0] ** 2 + errors[1][0] ** 2)
        if not both:
            continue
        lines = (
            f"difference {show(delta, 'time')}; standard error of it at least {show(both, 'time')}",
            *(line for _, line in (errors[0], errors[1])),
            f"{delta / both:.2g} standard errors; about 2 are needed, and repeats to see what else varies",
        )
        where = (claim.section, *sections(*pair))
        if delta >= 2 * both:
            yield Check("differences against noise", claim.text, where, lines)
        else:
            text = "no difference is shown by these figures; values paired by prompt might show one"
            yield Check("differences against noise", claim.text, where, lines, "unsupported", text)


def _standard_error(figure: Figure, document: Document) -> tuple[float, str] | None:
    cell = figure.cell
    n = _count(cell, document) if cell else None
    if cell is None or not n or n < 2:
        return None
    tails = [one for name in ("p99", "p95", "p90") if (one := document.first(figure.what, name, cell=cell))]
    if not tails:
        return None
    error = (tails[0].interval.low - figure.interval.high) / (n - 1)
    told = f"{cell.name}: ({tails[0].printed} - {figure.printed}) / ({n} - 1) = {show(max(error, 0.0), 'time')}"
    return max(error, 0.0), told
