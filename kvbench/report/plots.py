"""The plots, as SVG that stands inside the page: no file, no font and no date from outside.

Each treatment has one colour and one marker in all plots (Okabe-Ito, safe for the colour-blind); the baseline is grey.
Glyphs are drawn as paths with matplotlib's own font, so the same figures give the same bytes on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench import published
from kvbench.checks.verdict import time_scale_of
from kvbench.report import canvas
from kvbench.report.series import GREY, look, reach, requests, speed_up_series, ttft_series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from kvbench.published import PublishedCurve
    from kvbench.report.canvas import Series
    from kvbench.report.material import Material

_RATES = {"requests_per_s": "requests/s", "goodput_per_s": "requests/s within the SLO"}
_FEWEST_LENGTHS = 2  # a curve over one length is a row of dots, and the tables hold them


def ttft_plot(material: Material) -> str | None:
    """Draw TTFT against prompt length with every request, and the speed-up below it; None without a curve."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and only a report needs it

    series, gains = ttft_series(material), speed_up_series(material)
    lengths = sorted({length for one in series for length in one.lengths})
    if not series or (len(lengths) < _FEWEST_LENGTHS and material.summary["headline"] in _RATES):
        return None
    with mpl.rc_context(canvas.STYLE):
        figure, upper, lower = canvas.panels(with_lower=bool(gains))
        for axes in filter(None, (upper, lower)):
            canvas.prepare_lengths(axes, lengths)
        _draw_ttft(upper, series, material)
        if lower is not None:
            _draw_speed_up(lower, gains, _published_gains(material))
            upper.tick_params(labelbottom=False)
            upper.set_xlabel("")
        return canvas.as_svg(figure, "ttft")


def rate_plot(material: Material) -> str | None:
    """Draw the rate that answers the question: a row for each treatment, its rounds, their mean and its interval.

    None where the answer is a time, or no treatment has a rate.
    """
    import matplotlib as mpl  # noqa: PLC0415

    summary, metric = material.summary, material.summary["headline"]
    items = {name: item["metrics"][metric] for name, item in summary["treatments"].items()}
    known = {name: figure for name, figure in items.items() if figure["value"] is not None}
    if metric not in _RATES or not known:
        return None
    with mpl.rc_context(canvas.STYLE):
        figure, axes = canvas.rows(list(known))
        for place, (name, one) in enumerate(known.items()):
            rounds = [run["headline"] for run in material.runs_of(name) if run["headline"] is not None]
            canvas.draw_row(axes, place, one, rounds, look(name, material))
        most = max(max(one["high"] or one["value"], one["value"]) for one in known.values())
        axes.set_xlim(0, most * 1.16)
        axes.set_xlabel(_RATES[metric])
        return canvas.as_svg(figure, "rate")


def published_plot(material: Material) -> str | None:
    """Draw measured medians, at full scale, beside the published figures; None where nothing is published."""
    import matplotlib as mpl  # noqa: PLC0415

    summary = material.summary
    scale = time_scale_of(summary)
    series, curves = ttft_series(material), _published_curves(material)
    if not series or not curves:  # at full scale alone it would be the plot above with other numbers
        return None
    with mpl.rc_context(canvas.STYLE):
        figure, axes, _ = canvas.panels(with_lower=False)
        lengths = {length for one in series for length in one.lengths}
        canvas.prepare_lengths(axes, sorted(lengths.union(*(curve.printed for curve in curves.values()))))
        _draw_beside(axes, series, curves, scale)
        word = "TTFT at full scale" if summary["scale"] else "TTFT"
        beside = ", beside what was published" if curves else ""
        axes.set_title(word + beside, loc="left", fontsize=9, pad=20)
        return canvas.as_svg(figure, "published")


def _published_curves(material: Material) -> dict[str, PublishedCurve]:
    """Return the published curve of each treatment that has one."""
    asked = material.plan["asked"]["published"]
    curves = published.load(asked).curves if asked else {}
    return {name: curve for name, curve in curves.items() if name in material.summary["treatments"]}


def _published_gains(material: Material) -> list[tuple[int, float]]:
    rows = material.summary["lengths"]
    return [(row["isl"], row["published_speed_up"]) for row in rows if row["published_speed_up"] is not None]


def _draw_ttft(axes: Axes, series: Sequence[Series], material: Material) -> None:
    points = [requests(material, one) for one in series]
    times = [value for dots in points for _, value in dots]
    low, high = reach(series)
    canvas.prepare_seconds(axes, min(low, *times), max(high, *times))
    for place, (one, dots) in enumerate(zip(series, points, strict=True)):
        shift = 3.0 * (place - (len(series) - 1) / 2)
        canvas.draw_series(axes, one, shift)
        canvas.draw_points(axes, dots, one.colour, shift + 3.5)
    canvas.label_ends(axes, [(one.lengths[-1], one.medians[-1], one.label, one.colour) for one in series])
    axes.set_title("TTFT, measured", loc="left", fontsize=9)


def _draw_speed_up(axes: Axes, gains: Sequence[Series], printed: Sequence[tuple[int, float]]) -> None:
    low, high = reach(gains)
    canvas.prepare_ratios(axes, low, max(high, *(value for _, value in printed), 1.0))
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    for place, one in enumerate(gains):
        canvas.draw_series(axes, one, 3.0 * (place - (len(gains) - 1) / 2))
        if len(gains) == 1:
            canvas.write_values(axes, one)
    labels = [(one.lengths[-1], one.medians[-1], one.label, one.colour) for one in gains]
    for length, value in printed:
        axes.plot([length], [value], "*", markersize=13, markerfacecolor="none", markeredgecolor=canvas.INK, zorder=5)
        labels.append((length, value, f"published {value:g}x", canvas.INK))
    canvas.label_ends(axes, [*labels, (int(axes.get_xlim()[1]), 1.0, "1x: equal", GREY)])
    axes.set_title("Speed-up over the baseline", loc="left", fontsize=9)


def _draw_beside(axes: Axes, series: Sequence[Series], curves: dict[str, PublishedCurve], scale: float) -> None:
    printed = [value for curve in curves.values() for value in curve.printed.values()]
    values = [scale * median for one in series for median in one.medians] + printed
    canvas.prepare_seconds(axes, min(values), max(values))
    labels = []
    for one in series:
        scaled = [scale * median for median in one.medians]
        axes.plot(one.lengths, scaled, one.marker, color=one.colour, markerfacecolor="none", markersize=6.5, zorder=3)
        end = (one.lengths[-1], scaled[-1])
        curve = curves.get(one.name)
        if curve is not None:
            end = max(end, _draw_published(axes, curve, one))
        labels.append((*end, one.label, one.colour))
    canvas.label_ends(axes, labels)
    _explain_marks(axes, scale, with_published=bool(curves))


def _draw_published(axes: Axes, curve: PublishedCurve, one: Series) -> tuple[int, float]:
    """Draw the printed points and the curve that was derived from them; return its last point."""
    ends = sorted({*curve.printed, *one.lengths})
    if curve.derived:
        grid = [ends[0] + (ends[-1] - ends[0]) * step / 80 for step in range(81)]
        fitted = [curve.at(round(tokens))[0] for tokens in grid]
        axes.plot(grid, fitted, color=one.colour, linewidth=0.9, linestyle=(0, (5, 3)), zorder=2)
    points = sorted(curve.printed.items())
    axes.plot(*zip(*points, strict=True), "*", color=one.colour, markersize=9, markeredgewidth=0, zorder=4)
    return points[-1]


def _explain_marks(axes: Axes, scale: float, *, with_published: bool) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    word = f"measured median x {scale:g}" if scale != 1 else "measured median"
    ink = canvas.INK
    marks = [Line2D([], [], marker="o", color=ink, markerfacecolor="none", linestyle="", label=word)]
    if with_published:
        dashes = (0, (5, 3))
        marks += [
            Line2D([], [], marker="*", color=ink, markersize=9, linestyle="", label="published, as printed"),
            Line2D([], [], color=ink, linewidth=0.9, linestyle=dashes, label="derived from the printed ends"),
        ]
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, frameon=False, fontsize=8)
