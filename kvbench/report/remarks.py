"""Sentences that stand below the tables: the noise floor, rounds that would be needed, touches, and runs over time."""

from __future__ import annotations

import itertools
from statistics import fmean
from typing import TYPE_CHECKING

from kvbench.analysis.metrics import METRICS
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS
from kvbench.report.text import counted, percent, shown, three_digits
from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import FirstTouch, JudgedRatio, LengthRow, Summary, TimeSeries


def comparison_sentences(summary: Summary) -> Iterator[str]:
    """Yield the noise floor, the rounds that would be needed, what ranks show, touches, and influence."""
    yield from _floors(summary)
    yield from _needed(summary)
    yield from _ranks(summary)
    for name, item in summary.treatments.items():
        if item.first_touch is not None:
            yield from _first_touch_lines(name, item.first_touch)
    for length in summary.lengths:
        for name, cell in length.cells.items():
            if cell.influence is not None:
                yield f"{name}{_at(length)}: {cell.influence}"


def time_series_sentences(summary: Summary) -> Iterator[str]:
    """Yield for each empty start how it went, by quarters of a run's time: means over the rounds that tell."""
    for name, item in summary.treatments.items():
        if item.first_touch is None or not item.time_series:
            continue
        quarters = list(zip(*map(_quarters, item.time_series), strict=True))
        rates = [fmean(rate for rate, _, _ in rounds) for rounds in quarters]
        hits = [[hit for _, hit, _ in rounds if hit is not None] for rounds in quarters]
        prompts = [fmean(prompt for _, _, prompt in rounds) for rounds in quarters]
        parts = [f"{', '.join(map(three_digits, rates))} answers/s"]
        if all(len(own) == len(item.time_series) for own in hits):
            parts.append(f"hit rate so far {', '.join(f'{100 * fmean(own):.0f}' for own in hits)} %")
        parts.append(f"distinct prompts so far {', '.join(f'{mean:.0f}' for mean in prompts)}")
        yield f"{name} by quarters of its time: {'; '.join(parts)}"


def _quarters(series: TimeSeries) -> list[tuple[float, float | None, float]]:
    """Return the rate of answers in each quarter, and hit rate and distinct prompts at its end."""
    count = len(series.answered)
    edges = [round(count * quarter / 4) for quarter in range(5)]
    return [
        (
            sum(series.answered[start:end]) / (series.slice_s * (end - start)),
            series.hit_rate[end - 1] if series.hit_rate else None,
            series.distinct_prompts[end - 1],
        )
        for start, end in itertools.pairwise(edges)
    ]


def _judged(summary: Summary, name: str) -> list[tuple[str, JudgedRatio]]:
    """Return the comparisons of a treatment that answer the question, each with where it was made: TTFT by length."""
    if summary.headline != "ttft_p50":
        judged = summary.treatments[name].comparisons.get(summary.headline)
        return [(f", {METRICS[summary.headline].label}", judged)] if judged is not None else []
    cells = [(_at(length), length.cells[name].comparison) for length in summary.lengths]
    return [(place, judged) for place, judged in cells if judged is not None]


def _floors(summary: Summary) -> Iterator[str]:
    judged = [ratio for name in summary.treatments for _, ratio in _judged(summary, name)]
    floors = [ratio.noise_floor for ratio in judged if ratio.noise_floor is not None]
    if not floors:
        return
    pairs = ", ".join(f"{other} against {one}" for one, other in summary.same_pairs)
    low, high = (f"{end:.3f}x" for end in (min(floors), max(floors)))
    span = f"{low} to {high} by length" if low != high else high
    rounds = summary.same_pair_rounds or 0
    over = counted(rounds, "round")
    basis = over if rounds >= FEWEST_ROUNDS else f"the most seen in {over}"
    label = METRICS[summary.headline].label
    yield f"noise floor of {label} (A/A, {pairs}; {basis}): {span}; no smaller difference is claimed"


def _needed(summary: Summary) -> Iterator[str]:
    """Yield for each compared treatment how many rounds would show a difference of 5 %, where its rounds vary most."""
    for name in summary.treatments:
        if _is_again(summary, name):
            continue
        known = [(ratio.sd_log, place, ratio) for place, ratio in _judged(summary, name) if ratio.refusal is None]
        spreads = [(sd, place, ratio) for sd, place, ratio in known if sd is not None]
        if not spreads:
            continue
        _, place, worst = max(spreads, key=lambda spread: spread[0])
        needed = f"{worst.rounds_needed} rounds" if worst.rounds_needed is not None else "more than 10,000 rounds"
        most = ", where rounds vary most" if len(spreads) > 1 else ""
        yield (
            f"{name}{place}{most}: these {worst.rounds} rounds show differences from"
            f" {shown(worst.detectable, percent)} on; 5 % needs {needed} (power 80 %)"
        )


def _is_again(summary: Summary, name: str) -> bool:
    """Tell whether a treatment is its own baseline over again."""
    return frozenset((name, summary.baselines[name])) in {frozenset(pair) for pair in summary.same_pairs}


def _ranks(summary: Summary) -> Iterator[str]:
    """Yield at the longest prompt that one arm lies beyond the other, where there are too few rounds to say more."""
    for name in summary.treatments:
        cells = [(length, length.cells[name]) for length in reversed(summary.lengths)]
        place, cell = next(((length, cell) for length, cell in cells if cell.rank is not None), (None, None))
        if place is None or cell is None or cell.rank is None or cell.comparison is None or _is_again(summary, name):
            continue
        if cell.comparison.low is None and cell.rank.is_separate:
            yield f"TTFT by rank{_at(place)}, in these runs alone: {cell.rank.sentence}"


def _first_touch_lines(name: str, touch: FirstTouch) -> Iterator[str]:
    """Yield both populations of an empty start, and where the hit rate changed."""
    parts = []
    for one, words in ((touch.first_touch, "first touches"), (touch.repeat_touch, "repeat touches")):
        median = shown(one.median_s, format_duration, "no figure")
        hits = shown(one.hit_rate, lambda share: f", hit rate {percent(share)}", "")
        parts.append(f"{one.n} {words} (median TTFT {median}{hits})" if one.n else f"no {words}")
    yield f"{name} started empty: {', '.join(parts)}"
    changes = [
        f"from {percent(one.before)} to {percent(one.after)} at request {one.index + 1} of {one.requests}"
        f" ({one.run_id})"
        for one in touch.changes
    ]
    if changes:
        yield f"{name}: the hit rate changed {', '.join(changes)}"


def _at(length: LengthRow) -> str:
    return "" if length.isl is None else f" at {format_count(length.isl)} tokens"
