"""The plots of the page's section on neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.report import dose_plots

if TYPE_CHECKING:
    from kvbench.report.material import Material


def section(one: Material) -> dict[str, Any] | None:
    """Return what the section shows; None for a result without neighbours."""
    from markupsafe import Markup  # noqa: PLC0415 - only a page needs it

    doses = one.summary["doses"]
    if doses is None:
        return None
    response = dose_plots.response_plot(doses)
    drawn = [level["treatment"] for level in dose_plots.drawn(doses)]
    courses = [(load, Markup(svg)) for load, svg in dose_plots.course_plots(one.courses, doses)]  # noqa: S704 - our own
    return {
        "response": response and Markup(response),  # noqa: S704
        "undrawn": [level["treatment"] for level in doses["levels"] if level["treatment"] not in drawn],
        "courses": courses,
    }
