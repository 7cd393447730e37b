"""A run over time: answers per slice, and what hit rate and how many distinct prompts it had come to by then.

Only for runs whose requests were out beside one another: between requests that are sent one by one kvbench reads
counters, so time says nothing there. Turns of a conversation share their beginnings and are told by their turn instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench import metrics
from kvbench.run_time import load_window_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.records import Row
    from kvbench.sealed import SealedRun

_MOST_SLICES, _FEWEST_SLICES = 24, 4
_ANSWERS_A_SLICE = 10  # on average; with fewer a rate is mostly chance


def courses(runs: Sequence[SealedRun]) -> list[dict[str, Any]]:
    """Return the course of each run that has one, in the order of the runs."""
    return [found for run in runs if (found := course(run)) is not None]


def course(run: SealedRun) -> dict[str, Any] | None:
    """Return one run in slices of equal length, each told at its end; None where it has too few answers for that.

    `answered` counts the answers whose last token came in a slice, `answered_per_s` is that over its length. Cumulative
    from the start of the run: `hit_rate`, cached over prompt tokens of what was answered (None where the run has no hit
    rate, or no answer yet), and `distinct_prompts` of what was sent, answered or not.
    """
    answered = [row for row in run.answered if row.last_token_ns is not None]
    window, count = load_window_ns(run.measured), min(_MOST_SLICES, len(answered) // _ANSWERS_A_SLICE)
    one_by_one = run.record.get("sent_one_by_one") or any(row.conversation_id for row in run.measured)
    if window is None or one_by_one or count < _FEWEST_SLICES or window[1] <= window[0]:
        return None
    zero_ns, length_ns = window[0], (window[1] - window[0]) / count
    by_slice: list[list[Row]] = [[] for _ in range(count)]
    new_prompts = [0] * count
    for row in answered:
        by_slice[_slice(row.last_token_ns, zero_ns, length_ns, count)].append(row)
    for first_ns in _first_sends(run).values():
        new_prompts[_slice(first_ns, zero_ns, length_ns, count)] += 1
    slice_s = length_ns / 1e9
    return {
        "run_id": run.run_id,
        "round": run.repeat,
        "slice_s": slice_s,
        "answered": [len(rows) for rows in by_slice],
        "answered_per_s": [len(rows) / slice_s for rows in by_slice],
        "hit_rate": _hit_rates(run, by_slice),
        "distinct_prompts": [sum(new_prompts[: place + 1]) for place in range(count)],
    }


def _slice(at_ns: int | None, zero_ns: int, length_ns: float, count: int) -> int:
    """Return the slice that an instant lies in; the end of the run belongs to the last one."""
    assert at_ns is not None  # noqa: S101 - asked of what was sent, or answered
    return min(count - 1, int((at_ns - zero_ns) / length_ns))


def _first_sends(run: SealedRun) -> dict[str, int]:
    """Return when each prompt of the run was sent first."""
    first: dict[str, int] = {}
    for row in run.measured:
        if row.sent_ns is not None:
            first[row.prompt_id] = min(row.sent_ns, first.get(row.prompt_id, row.sent_ns))
    return first


def _hit_rates(run: SealedRun, by_slice: Sequence[Sequence[Row]]) -> list[float | None] | None:
    if metrics.hit_rate(run) is None:
        return None
    cached = prompt = 0
    found: list[float | None] = []
    for rows in by_slice:
        cached += sum(row.cached_tokens or 0 for row in rows)
        prompt += sum(row.isl or 0 for row in rows)
        found.append(cached / prompt if prompt else None)
    return found
