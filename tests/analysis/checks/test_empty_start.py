"""The bound of an empty start, and where there is none."""

from __future__ import annotations

import pytest

from kvbench.analysis.checks.empty_start import empty_starts, most_gain, most_speed_up
from tests.builders.requests import request, run_of


@pytest.mark.parametrize(
    ("requests", "prompts", "most"),
    [
        ({100: 4}, {100: 2}, 2.0),
        ({100: 3}, {100: 2}, 1.5),
        ({100: 1, 300: 1}, {100: 1, 300: 1}, 1.0),
        ({100: 1, 300: 2}, {100: 1, 300: 1}, 190_000 / 100_000),
        ({100: 2, 300: 1}, {100: 1, 300: 1}, 1.5),  # short ones repeat: the count bounds
        ({}, {}, 1.0),
    ],
)
def test_the_bound_is_the_largest_ratio_of_a_power_of_tokens(
    requests: dict[int, int], prompts: dict[int, int], most: float
) -> None:
    assert most_speed_up(requests, prompts) == pytest.approx(most)


def test_every_sent_request_counts_and_every_prompt_once() -> None:
    rows = [
        request(number, 0.1, prompt_id=f"p{number % 2}", isl_target=100 + 200 * (number % 2)) for number in range(5)
    ]
    rows += [request(5, None, prompt_id="p1", isl_target=300, status="cut")]
    rows += [request(6, None, prompt_id="p2", isl_target=300, status="refused", sent_ns=None)]
    (start,) = empty_starts([run_of(rows, repeat=3)])
    assert (start.repeat, start.requests, start.prompts, start.most_gain) == (3, 6, 2, 3.0)


def test_conversations_and_lists_of_unknown_length_have_no_bound() -> None:
    plain = [request(number, 0.1, prompt_id="p") for number in range(4)]
    turns = [request(number, 0.1, conversation_id="c", turn=number) for number in range(4)]
    unknown = [request(number, 0.1, isl_target=None, isl=None) for number in range(4)]
    unsent = [request(0, None, status="refused", sent_ns=None)]
    assert len(empty_starts([run_of(plain)])) == 1
    for rows in (turns, unknown, unsent):
        assert empty_starts([run_of(plain), run_of(rows)]) == ()
    assert empty_starts([]) == ()


def test_the_bound_over_rounds_is_their_geometric_mean() -> None:
    runs = [run_of([request(number, 0.1, prompt_id="p") for number in range(count)]) for count in (2, 8)]
    assert most_gain(empty_starts(runs)) == pytest.approx(4.0)
    assert most_gain(()) is None
