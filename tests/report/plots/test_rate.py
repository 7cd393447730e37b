from __future__ import annotations

from kvbench.report.plots.rate import caption, rate
from tests.builders import summaries
from tests.builders.report_inputs import report_input


def test_a_rate_is_drawn_where_it_answers_the_question() -> None:
    assert rate(report_input()) is None
    svg = rate(report_input(summaries.summary(headline="requests_per_s"))) or ""
    assert svg.startswith("<svg viewBox=")
    assert "each dot below it one round" in caption(report_input())


def test_a_treatment_without_a_rate_has_no_row() -> None:
    none = summaries.treatment(metrics=summaries.metrics())
    treatments = {"recompute": summaries.treatment(), "warm": none}
    both = rate(report_input(summaries.summary(headline="requests_per_s"))) or ""
    single = rate(report_input(summaries.summary(headline="requests_per_s", treatments=treatments))) or ""
    assert 0 < len(single) < len(both)
    assert rate(report_input(summaries.summary(headline="requests_per_s", treatments={"warm": none}))) is None
