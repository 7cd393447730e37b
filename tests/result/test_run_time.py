"""The load window: one definition for a run that goes on, a calibration, and all that is read off a sealed run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvbench.analysis import measured
from kvbench.experiment.run_ledger import RunSums
from kvbench.experiment.tier_proof import Blocks
from kvbench.result.records import Response
from kvbench.result.run_time import length_s, load_window_ns
from kvbench.scenario.plan import Draw
from tests.builders.requests import frame_of, request

S = 1_000_000_000
STAMPS_NS = st.none() | st.integers(0, 2**62)


def test_the_load_window_is_from_the_first_send_to_the_last_token() -> None:
    assert load_window_ns([(5 * S, 6 * S), (4 * S, 5 * S), (None, None)]) == (4 * S, 6 * S)
    assert load_window_ns([(5 * S, 6 * S), (3 * S, None)]) == (3 * S, 6 * S)
    assert length_s((3 * S, 6 * S)) == 3.0


def test_without_a_token_the_load_window_ends_with_the_last_send() -> None:
    assert load_window_ns([(5 * S, None), (4 * S, None)]) == (4 * S, 5 * S)
    assert load_window_ns([(7, 5)]) == (7, 7)  # a clock that was set back


def test_where_nothing_was_sent_there_is_no_window_and_no_length() -> None:
    assert load_window_ns([(None, None)]) is None
    assert load_window_ns([]) is None
    assert length_s(None) is None


@given(st.lists(st.tuples(STAMPS_NS, STAMPS_NS), max_size=6))
def test_a_run_that_goes_on_and_its_sealed_requests_have_the_same_load_window(
    stamps: list[tuple[int | None, int | None]],
) -> None:
    window = load_window_ns(stamps)
    rows = [
        request(number, None, sent_ns=sent_ns, last_token_ns=last_ns)
        for number, (sent_ns, last_ns) in enumerate(stamps)
    ]
    assert measured.load_window_ns(frame_of(rows)) == window
    sums = RunSums(Blocks(16, 144.0, "g4"), None, warm=False)
    for sent_ns, last_ns in stamps:
        sums.add(Draw("r/0", "p", 1000), Response("r/0", "timeout", 0, sent_ns=sent_ns, last_token_ns=last_ns))
    assert sums.window_ns == window
