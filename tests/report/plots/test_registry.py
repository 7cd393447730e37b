from __future__ import annotations

from kvbench.report.plots.registry import PLOT_SECTIONS, PLOTS, plots_of
from tests.builders import summaries
from tests.builders.report_inputs import report_input


def test_every_plot_has_a_name_a_title_and_a_section_of_its_own() -> None:
    assert len({entry.name for entry in PLOTS}) == len({entry.title for entry in PLOTS}) == len(PLOTS)
    assert {entry.section for entry in PLOTS} == set(PLOT_SECTIONS)
    assert all(entry.draw.__doc__ and "None" in entry.draw.__doc__ for entry in PLOTS)


def test_a_section_has_the_plots_that_a_result_has_something_for() -> None:
    given = report_input()
    assert [plot.name for plot in plots_of(given, "curves")] == ["ttft"]
    assert list(plots_of(given, "neighbors")) == []
    noisy = report_input(summaries.summary(headline="requests_per_s", neighbors=summaries.neighbor_impact()))
    assert [plot.name for plot in plots_of(noisy, "curves")] == ["rate", "ttft"]
    (neighbors,) = plots_of(noisy, "neighbors")
    assert neighbors.caption.startswith("Each mark is one level")
    assert neighbors.svg.startswith("<svg ")
