"""Measured medians at full scale, and the curves that a document published for the same treatments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from kvbench.publications import library as publications
from kvbench.report.plots import canvas
from kvbench.report.plots.series import ttft_series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from kvbench.publications.library import PublishedCurve
    from kvbench.report.plots.series import Series
    from kvbench.report.report_input import ReportInput

_DERIVED = (0, (5, 3))


def published(given: ReportInput) -> str | None:
    """Draw our medians, times the time scale, and the published figures; None where nothing is published."""
    series, curves = ttft_series(given.summary), _published_curves(given)
    if not series or not curves:  # at full scale alone it would be the plot of TTFT with other numbers
        return None
    scale = given.summary.scale
    with canvas.style():
        figure, axes, _ = canvas.panels(with_lower=False)
        lengths = {length for curve in series for length in curve.lengths}
        canvas.prepare_lengths(axes, sorted(lengths.union(*(curve.printed for curve in curves.values()))))
        _draw(axes, series, curves, scale.time if scale else 1.0)
        words = "TTFT at full scale" if scale else "TTFT"
        axes.set_title(f"{words}, and what was published", loc="left", fontsize=9, pad=20)
        return canvas.svg_for_page(figure, "published")


def caption(given: ReportInput) -> str:
    """Say what is at full scale, who published what, and what is derived."""
    summary, sentences = given.summary, []
    if summary.scale:
        sentences.append(
            f"Full-scale equivalents: measured medians times {summary.scale.time:g}. They are not measurements at full"
            " scale."
        )
    if summary.published:
        sentences.append(
            f"Published: {summary.published.title}, {summary.published.section}. Only the stars are printed there; the"
            " dashed curves are derived from them."
        )
    return " ".join(sentences)


def _published_curves(given: ReportInput) -> dict[str, PublishedCurve]:
    """Return the published curve of each treatment that has one."""
    reference = given.plan.design.published
    curves = publications.load(reference).curves if reference else {}
    return {name: curve for name, curve in curves.items() if name in given.summary.treatments}


def _draw(axes: Axes, series: Sequence[Series], curves: dict[str, PublishedCurve], scale: float) -> None:
    printed = [value for curve in curves.values() for value in curve.printed.values()]
    values = [scale * median for measured in series for median in measured.medians] + printed
    canvas.prepare_seconds(axes, min(values), max(values))
    labels = []
    for measured in series:
        scaled = [scale * median for median in measured.medians]
        axes.plot(
            measured.lengths,
            scaled,
            measured.marker,
            color=measured.colour,
            markerfacecolor="none",
            markersize=6.5,
            zorder=3,
        )
        end = (measured.lengths[-1], scaled[-1])
        curve = curves.get(measured.name)
        if curve is not None:
            end = max(end, _draw_published(axes, curve, measured))
        labels.append((*end, measured.label, measured.colour))
    canvas.label_ends(axes, labels)
    _explain_marks(axes, scale)


def _draw_published(axes: Axes, curve: PublishedCurve, measured: Series) -> tuple[int, float]:
    """Draw the printed points and the curve that was derived from them; return its last point."""
    ends = sorted({*curve.printed, *measured.lengths})
    if curve.derived:
        grid = [ends[0] + (ends[-1] - ends[0]) * step / 80 for step in range(81)]
        fitted = [curve.at(round(tokens))[0] for tokens in grid]
        axes.plot(grid, fitted, color=measured.colour, linewidth=0.9, linestyle=_DERIVED, zorder=2)
    points = sorted(curve.printed.items())
    axes.plot(*zip(*points, strict=True), "*", color=measured.colour, markersize=9, markeredgewidth=0, zorder=4)
    return points[-1]


def _explain_marks(axes: Axes, scale: float) -> None:
    words = f"measured median x {scale:g}" if scale != 1 else "measured median"
    ink = canvas.INK
    marks = [
        Line2D([], [], marker="o", color=ink, markerfacecolor="none", linestyle="", label=words),
        Line2D([], [], marker="*", color=ink, markersize=9, linestyle="", label="published, as printed"),
        Line2D([], [], color=ink, linewidth=0.9, linestyle=_DERIVED, label="derived from the printed ends"),
    ]
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, frameon=False, fontsize=8)
