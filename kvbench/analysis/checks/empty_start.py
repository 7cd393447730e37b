"""Upper bound of the speed-up of a run that starts with an empty cache, from how often its prompts repeat."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis.measured import SelectedRequests
from kvbench.analysis.summary_types import EmptyStart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kvbench.analysis.measured import JudgedRun


def empty_starts(runs: Iterable[JudgedRun]) -> tuple[EmptyStart, ...]:
    """Return for each round the most that its empty start can gain over recomputing.

    Every request that was sent counts, answered or not. Nothing for conversations, whose turns share their beginnings.
    """
    starts = []
    for run in runs:
        sent = SelectedRequests(run.measured, run.measured["sent_ns"].notna())
        lengths = sent["length"].to_numpy(dtype=np.int64, na_value=0)
        if not len(sent) or (sent["conversation_id"].fillna("") != "").any() or not lengths.all():
            return ()
        numbers, names = sent["prompt_id"].factorize()
        of_prompts = np.empty(len(names), dtype=np.int64)
        of_prompts[numbers] = lengths
        most = most_speed_up(_count_by_length(lengths), _count_by_length(of_prompts))
        starts.append(EmptyStart(run.record.repeat, len(sent), len(names), most))
    return tuple(starts)


def _count_by_length(lengths: NDArray[np.int64]) -> dict[int, int]:
    distinct, numbers = np.unique(lengths, return_counts=True)
    return dict(zip(map(int, distinct), map(int, numbers), strict=True))


def most_speed_up(requests: Mapping[int, int], prompts: Mapping[int, int]) -> float:
    """Return the most that a cache can gain over recomputing all requests of a list from an empty start.

    `requests` and `prompts` are how many requests and how many distinct prompts there are of each number of tokens.
    Each distinct prompt must be computed once. Formula: max over p in 0, 1, 2 of sum(tokens^p over all requests) /
    sum(tokens^p over distinct prompts); for p = 0, or prompts of one length, that is N / D. A prefill costs a + b n +
    c n^2 with no term below 0, and the ratio of two such sums is at most the largest ratio of one kind of term.
    Prompts that share beginnings, such as turns of a conversation, may gain more.
    """
    if not requests:
        return 1.0
    return max(_sum_of_powers(requests, power) / _sum_of_powers(prompts, power) for power in (0, 1, 2))


def _sum_of_powers(numbers: Mapping[int, int], power: int) -> int:
    total: int = sum(number * tokens**power for tokens, number in numbers.items())
    return total


def most_gain(starts: Sequence[EmptyStart]) -> float | None:
    """Return the bound over rounds: their geometric mean, as the speed-up that is held against it is one."""
    return statistics.geometric_mean(one.most_gain for one in starts) if starts else None
