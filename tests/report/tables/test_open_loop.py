from __future__ import annotations

import pytest

from kvbench.report.tables.open_loop import open_loop, sentences
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.report.tables.shown import cells, texts


def test_a_row_for_each_side_and_for_the_difference() -> None:
    assert open_loop(report_input()) is None
    one = summaries.summary(treatments={"warm": summaries.treatment(open_loop=summaries.open_loop())})
    table = open_loop(report_input(one))
    send, due, apart = cells(table)
    assert (send["ttft_p50"].value, due["ttft_p50"].value) == (0.0242, 0.0255)
    assert apart["ttft_p50"].value == pytest.approx(0.0013)
    assert texts(table)[2]["ttft_p50"] == "+1.30 ms"
    assert texts(table)[0]["arrival"] == "poisson"
    assert not list(sentences(one))


def test_a_growing_queue_is_told() -> None:
    loop = summaries.open_loop(grew=True, growth=0.4)
    (sentence,) = sentences(summaries.summary(treatments={"warm": summaries.treatment(open_loop=loop)}))
    assert sentence.startswith("warm: 5.10 requests/s were due, 4.98 were answered, and a queue grew")
