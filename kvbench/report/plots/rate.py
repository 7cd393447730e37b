"""The rate that answers the question: a row for each treatment, with its rounds, their mean and its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.plots import canvas
from kvbench.report.plots.series import look

if TYPE_CHECKING:
    from kvbench.report.report_input import ReportInput

RATES = {"requests_per_s": "requests/s", "goodput_per_s": "requests/s within the SLO"}


def rate(given: ReportInput) -> str | None:
    """Draw the rate of each treatment; None where the answer is a time, or no treatment has a rate."""
    summary = given.summary
    if summary.headline not in RATES:
        return None
    figures = {name: item.metrics[summary.headline] for name, item in summary.treatments.items()}
    known = {name: figure for name, figure in figures.items() if figure.value is not None}
    if not known:
        return None
    with canvas.style():
        picture, axes = canvas.rows(list(known))
        for place, (name, figure) in enumerate(known.items()):
            rounds = [run.headline for run in given.runs_of(name) if run.headline is not None]
            canvas.draw_row(axes, place, figure, rounds, look(name, summary))
        ends = [end for figure in known.values() for end in (figure.value, figure.high) if end is not None]
        axes.set_xlim(0, max(ends) * 1.16)
        axes.set_xlabel(RATES[summary.headline])
        return canvas.svg_for_page(picture, "rate")


def caption(_: ReportInput) -> str:
    """Explain the marks."""
    return (
        "Measured. The mark is the mean over rounds, the line its 95 % interval (from 3 rounds on), each dot below it"
        " one round."
    )
