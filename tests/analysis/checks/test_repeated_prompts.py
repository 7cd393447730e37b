"""First touches, repeat touches, and requests of one prompt that were out at once."""

from __future__ import annotations

from kvbench.analysis.checks.repeated_prompts import may_repeat_prompt, prompt_touch
from tests.builders.requests import frame_of, request


def test_the_first_request_of_a_prompt_and_later_ones() -> None:
    frame = frame_of([request(2, 0.1, prompt_id="a"), request(0, 0.5, prompt_id="a"), request(1, 0.5, prompt_id="b")])
    assert list(prompt_touch(frame)) == ["repeat", "first", "first"]
    assert list(may_repeat_prompt(frame)) == [True, False, False]


def test_a_request_sent_before_the_first_token_of_the_earliest_overlaps_with_it() -> None:
    frame = frame_of([request(number, 1.5, prompt_id="a") for number in range(3)])  # the first token at 1.5 s
    assert list(prompt_touch(frame)) == ["overlapping", "overlapping", "repeat"]
    assert all(may_repeat_prompt(frame))


def test_a_request_that_failed_touches_its_prompt_and_an_unsent_one_does_not() -> None:
    lost = request(0, None, prompt_id="a", status="timeout")
    unsent = request(1, None, prompt_id="b", status="refused", sent_ns=None)
    frame = frame_of([lost, unsent, request(2, 0.1, prompt_id="a"), request(3, 0.1, prompt_id="b")])
    kinds = prompt_touch(frame)
    assert list(kinds[[0, 2, 3]]) == ["first", "repeat", "first"]
    assert list(kinds.isna()) == [False, True, False, False]
    assert list(may_repeat_prompt(frame)) == [False, False, True, False]


def test_rows_keep_their_numbers_where_some_are_left_out() -> None:
    frame = frame_of([request(number, 0.1, prompt_id="a") for number in range(4)])[1:]
    assert dict(prompt_touch(frame)) == {1: "first", 2: "repeat", 3: "repeat"}
