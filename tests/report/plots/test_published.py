from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvbench.analysis.summary_types import PublishedSource
from kvbench.report.plots.published import caption, published
from kvbench.result.plan_record import Scale
from tests.builders import summaries
from tests.builders.report_inputs import report_input

if TYPE_CHECKING:
    from kvbench.report.report_input import ReportInput


def given_with(reference: str | None, treatment: str) -> ReportInput:
    cells = {"recompute": summaries.length_cell(0.0951), treatment: summaries.length_cell()}
    source = PublishedSource("A paper", "Figure 1") if reference else None
    summary = summaries.summary(
        treatments={"recompute": summaries.treatment(), treatment: summaries.treatment()},
        lengths=(summaries.length_row(cells=cells), summaries.length_row(130_000, cells)),
        scale=Scale(8.0, 512.0),
        published=source,
    )
    given = report_input(summary)
    return replace(given, plan=replace(given.plan, design=replace(given.plan.design, published=reference)))


def test_medians_stand_beside_the_published_curves_at_full_scale() -> None:
    given = given_with("ibm-storage-scale/benchmark-1", "g4")
    assert (published(given) or "").startswith("<svg viewBox=")
    assert caption(given).startswith("Full-scale equivalents: measured medians times 8.")
    assert "Published: A paper, Figure 1." in caption(given)


def test_nothing_is_drawn_without_a_published_curve_of_a_treatment() -> None:
    assert published(given_with(None, "g4")) is None
    assert published(given_with("ibm-storage-scale/benchmark-1", "unheard_of")) is not None  # recompute has one
