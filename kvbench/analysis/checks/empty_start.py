"""The bound of an empty start: how much faster than recomputing it can be, since it must compute each prompt once."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from kvbench.analysis.summary_types import EmptyStart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from kvbench.analysis.measured import JudgedRun


def empty_starts(runs: Iterable[JudgedRun]) -> tuple[EmptyStart, ...]:
    """Return for each round the most that its empty start can gain over recomputing.

    Every request that was sent counts, answered or not. Nothing for conversations, whose turns share their beginnings.
    """
    starts = []
    for run in runs:
        columns = run.measured[["prompt_id", "length", "conversation_id", "sent_ns"]]
        is_sent = columns["sent_ns"].notna()
        sent = columns if is_sent.all() else columns[is_sent]
        is_turn = (sent["conversation_id"].fillna("") != "").any()
        if sent.empty or is_turn or (sent["length"].fillna(0) == 0).any():
            return ()
        prompts = sent.drop_duplicates("prompt_id", keep="last")
        most = most_speed_up(_count_by_length(sent), _count_by_length(prompts))
        starts.append(EmptyStart(run.record.repeat, len(sent), len(prompts), most))
    return tuple(starts)


def _count_by_length(requests: pd.DataFrame) -> dict[int, int]:
    numbers = requests["length"].value_counts()
    return dict(zip(map(int, numbers.index), map(int, numbers), strict=True))


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
