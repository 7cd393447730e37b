"""First touches, repeat touches, and requests of one prompt that were out at once."""

from __future__ import annotations

from kvbench.checks.repeated_prompts import not_first_touches, touches_by_request
from tests.test_metrics import request


def test_the_first_request_of_a_prompt_and_later_ones() -> None:
    rows = [request(2, 0.1, prompt_id="a"), request(0, 0.5, prompt_id="a"), request(1, 0.5, prompt_id="b")]
    assert touches_by_request(rows) == {"0": "first", "2": "repeat", "1": "first"}
    assert not_first_touches(rows) == {"2"}


def test_a_request_sent_before_the_first_token_of_the_earliest_overlaps_with_it() -> None:
    rows = [request(number, 1.5, prompt_id="a") for number in range(3)]  # a second apart; the first token at 1.5 s
    assert touches_by_request(rows) == {"0": "overlapping", "1": "overlapping", "2": "repeat"}


def test_a_request_that_failed_touches_its_prompt_and_an_unsent_one_does_not() -> None:
    lost = request(0, None, prompt_id="a", status="timeout")
    unsent = request(1, None, prompt_id="b", status="refused", sent_ns=None)
    rows = [lost, unsent, request(2, 0.1, prompt_id="a"), request(3, 0.1, prompt_id="b")]
    assert touches_by_request(rows) == {"0": "first", "2": "repeat", "3": "first"}
