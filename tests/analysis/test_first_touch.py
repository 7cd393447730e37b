"""First, repeat and overlapping touches of an empty start, and where its hit rate changed."""

from __future__ import annotations

from kvbench.analysis import metrics
from kvbench.analysis.checks.repeated_prompts import may_repeat_prompt
from kvbench.analysis.first_touch import first_touch
from kvbench.analysis.summary_types import TouchFigures
from tests.builders.requests import frame_of, request, run_of


def test_first_and_repeat_touches_are_two_populations() -> None:
    """Ten prompts, each sent twice: computed first, cached then; the hit rate changes at the eleventh request."""
    first = [request(number, 1.0, prompt_id=f"p{number}", cached_tokens=0) for number in range(10)]
    again = [request(10 + number, 0.1, prompt_id=f"p{number}", cached_tokens=1000) for number in range(10)]
    found = first_touch([run_of([*again, *first])])  # the order is that of sending
    assert found is not None
    assert found.first_touch == TouchFigures(10, 1.0, 0.0)
    assert found.repeat_touch == TouchFigures(10, 0.1, 1.0)
    (change,) = found.changes
    assert (change.index, change.before, change.after) == (10, 0.0, 1.0)
    nothing = first_touch([])
    assert nothing is not None
    assert nothing.repeat_touch == TouchFigures(0, None, None)


def test_a_prompt_that_was_sent_without_proof_or_answer_is_touched() -> None:
    rows = [
        request(0, 1.0, prompt_id="a", tier="unproven"),
        request(1, None, prompt_id="b", status="timeout", tier=None),
        request(2, None, prompt_id="c", status="refused", sent_ns=None, tier=None),
        *(request(3 + number, 0.1, prompt_id=name) for number, name in enumerate("abc")),
    ]
    found = first_touch([run_of(rows)])
    assert found is not None
    assert (found.first_touch.n, found.repeat_touch.n) == (1, 2)  # c was never sent before


def test_turns_of_conversations_are_neither_first_nor_repeat_touches() -> None:
    turns = [request(number, 1.0, prompt_id="a", conversation_id="a", turn=number) for number in range(4)]
    assert first_touch([run_of(turns)]) is None


def test_requests_of_one_prompt_that_were_out_at_once_are_a_third_population() -> None:
    """Request 1 is sent half a second before the first token of request 0; request 2 after it."""
    rows = [
        request(0, 1.5, prompt_id="a", cached_tokens=0),
        request(1, 0.5, prompt_id="a", cached_tokens=0),
        request(2, 0.1, prompt_id="a"),
        request(3, 1.0, prompt_id="b", cached_tokens=0),
    ]
    found = first_touch([run_of(rows)])
    assert found is not None
    assert found.first_touch == TouchFigures(1, 1.0, 0.0)
    assert found.repeat_touch == TouchFigures(1, 0.1, 0.75)
    assert found.overlapping == TouchFigures(2, 1.0, 0.0)
    assert may_repeat_prompt(frame_of(rows)).tolist() == [True, True, True, False]


def test_the_hit_rate_of_touches_is_that_of_a_run() -> None:
    """Cached tokens over prompt tokens: a long prompt counts for more than a short one."""
    first = [request(number, 0.1, prompt_id=f"p{number}", cached_tokens=0) for number in range(2)]
    again = [
        request(10, 0.1, prompt_id="p0", cached_tokens=1000),
        request(11, 0.1, prompt_id="p1", isl=3000, isl_target=3000, cached_tokens=0),
    ]
    found = first_touch([run_of([*first, *again])])
    assert found is not None
    assert found.repeat_touch.hit_rate == metrics.hit_rate(run_of(again)) == 0.25
