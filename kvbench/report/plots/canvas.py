"""The drawing surface of the plots: panels, scales, marks, labels that do not overlap, and the SVG.

Glyphs are drawn as paths with matplotlib's own font, so the same figures give the same bytes on every machine.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from kvbench.report.text import ratio, three_digits
from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from kvbench.analysis.summary_types import Figure as SummaryFigure
    from kvbench.report.plots.series import Series

INK = "#222222"
RULE = "#d9d9d9"
WIDTH_IN = 7.2
DASHES = (0, (4, 3))
_LABEL_GAP_PT = 11.0
_LONGEST_NAME = 24
_DOT_LAYERS = 8
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "kvbench",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.unicode_minus": False,
    "text.parse_math": False,
}


def style() -> AbstractContextManager[None]:
    """Return the context in which a plot must be drawn, so that all look alike."""
    return mpl.rc_context(_STYLE)


def panels(*, with_lower: bool) -> tuple[Figure, Axes, Axes | None]:
    """Lay out one panel, or two that share their lengths; fixed margins, room for labels at the right."""
    height = 4.6 if with_lower else 3.1
    figure = Figure(figsize=(WIDTH_IN, height))
    left, width = 0.09, 0.755
    if not with_lower:
        return figure, figure.add_axes((left, 0.145, width, 0.70)), None
    return figure, figure.add_axes((left, 0.47, width, 0.48)), figure.add_axes((left, 0.10, width, 0.295))


def rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Lay out one row for each name, the first on top, with room for the names at the left."""
    height = 0.62 + 0.34 * len(names)
    figure = Figure(figsize=(WIDTH_IN, height))
    left = 0.03 + 0.0112 * min(max(map(len, names)), _LONGEST_NAME)
    axes = figure.add_axes((left, 0.5 / height, 0.98 - left, 1 - 0.56 / height))
    axes.set_ylim(len(names) - 0.5, -0.5)
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), short)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def draw_row(axes: Axes, place: int, figure: SummaryFigure, rounds: Sequence[float], look: tuple[str, str]) -> None:
    """Draw one treatment's rounds as dots below its mean, which carries its interval and its value."""
    if figure.value is None:
        return
    colour, marker = look
    ends = (figure.low, figure.high) if figure.low is not None and figure.high is not None else (figure.value,) * 2
    axes.plot(ends, (place, place), "-|", color=colour, linewidth=1.4, markersize=7)
    axes.plot([figure.value], [place], marker, color=colour, markersize=6)
    if len(rounds) > 1:
        axes.plot(rounds, [place + 0.27] * len(rounds), "o", color=colour, alpha=0.5, markersize=2.6, markeredgewidth=0)
    at = (max(ends[1], figure.value), place)
    axes.annotate(three_digits(figure.value), at, (7, 0), textcoords="offset points", va="center", color=colour)


def prepare_lengths(axes: Axes, lengths: Sequence[int]) -> None:
    """Put the ticks at the lengths that were measured, on a log scale where they span more than a factor of 20."""
    low, high = lengths[0], lengths[-1]
    if high >= 20 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.25, high * 1.25)
    else:
        span = (high - low) or low
        axes.set_xlim(low - 0.05 * span, high + 0.04 * span)
    kept: list[int] = []
    for length in reversed(lengths):  # the longest is the one that is talked about
        if not kept or _place(axes, kept[-1])[0] - _place(axes, length)[0] >= 30:
            kept.append(length)
    axes.set_xticks(kept, [format_count(length) for length in kept])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("prompt tokens")
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def prepare_seconds(axes: Axes, low: float, high: float) -> None:
    """Set a log scale in seconds, with ticks that suit its span."""
    low, high = low / 1.5, high * 1.5
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    steps = (1.0,) if high / low > 3000 else (1.0, 3.0) if high / low > 20 else (1.0, 2.0, 5.0)
    ticks = [step * 10.0**power for power in range(-7, 6) for step in steps]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: _seconds(value))


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:g} s"
    return f"{value * 1e3:g} ms" if value >= 1e-3 else f"{value * 1e6:g} us"


def prepare_ratios(axes: Axes, low: float, high: float) -> None:
    """Set a scale from zero, or a logarithmic one where treatments lie too far apart for it."""
    low = min(low, 1.0)
    if high < 100 * low:
        axes.set_ylim(0, high * 1.22)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.6, high * 1.8)
        ticks = [10.0**power for power in range(-6, 7)]
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}x")


def _shifted(axes: Axes, points_right: float) -> Any:
    """Return the data transform moved to the right by so many points, so that treatments do not hide one another."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 - made by `panels`
    return axes.transData + ScaledTranslation(points_right / 72, 0, figure.dpi_scale_trans)


def draw_series(axes: Axes, series: Series, shift: float) -> None:
    """Draw a line through medians with whiskers of their intervals, on the sides that have an end."""
    where = _shifted(axes, shift)
    for ends in (series.lows, series.highs):
        known = [
            (length, value, end)
            for length, value, end in zip(series.lengths, series.medians, ends, strict=True)
            if end is not None
        ]
        if known:
            lengths, values, reached = zip(*known, strict=True)
            axes.vlines(lengths, values, reached, color=series.colour, linewidth=1.1, transform=where)
            axes.plot(lengths, reached, "_", color=series.colour, markersize=5, transform=where)
    axes.plot(
        series.lengths,
        series.medians,
        color=series.colour,
        marker=series.marker,
        markersize=4.5,
        linewidth=1.3,
        transform=where,
    )


def draw_dots(axes: Axes, lengths: NDArray[np.float64], times: NDArray[np.float64], colour: str, shift: float) -> None:
    """Draw each request as a dot; where dots lie on one another they look darker, up to `_DOT_LAYERS` deep.

    A dot is a line of no length with round ends, and each layer is one path: thousands of marks, each an element of its
    own, made half of the time that a PDF takes, and most of the bytes of a page.
    """
    where = _shifted(axes, shift)
    for layer in range(min(_DOT_LAYERS, len(times))):
        places = np.column_stack((lengths[layer::_DOT_LAYERS], times[layer::_DOT_LAYERS]))
        path = Path(places.repeat(2, axis=0), np.tile(np.array([Path.MOVETO, Path.LINETO]), len(places)))
        path.should_simplify = False  # it would take lines of no length away
        dots = PathPatch(path, fill=False, edgecolor=colour, alpha=0.45, linewidth=2.6, capstyle="round")
        dots.set_transform(where)
        axes.add_artist(dots)


def write_values(axes: Axes, series: Series) -> None:
    """Write each speed-up above its whisker, where the lengths leave room."""
    for length, value, high in zip(series.lengths, series.medians, series.highs, strict=True):
        if length not in axes.get_xticks():
            continue
        axes.annotate(
            ratio(value),
            (length, high or value),
            (0, 9),
            textcoords="offset points",
            ha="center",
            color=series.colour,
            fontsize=8,
        )


def label_ends(axes: Axes, labels: Sequence[tuple[int, float, str, str]]) -> None:
    """Write names at the right edge beside the ends of their lines, moved apart where they would overlap."""
    ordered = sorted(labels, key=lambda label: (_place(axes, label[0], label[1])[1], label[2]))
    wanted = [_place(axes, length, value)[1] for length, value, _, _ in ordered]
    right = _place(axes, axes.get_xlim()[1])[0]
    for height, (_, _, text, colour) in zip(spread(wanted, _LABEL_GAP_PT), ordered, strict=True):
        axes.annotate(
            text, (right + 5, height), xycoords="figure points", va="center", color=colour, annotation_clip=False
        )


def _place(axes: Axes, length: float, value: float | None = None) -> tuple[float, float]:
    """Return where a point lies on the figure, in points."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 - made by `panels`
    across, up = axes.transData.transform((length, axes.get_ylim()[0] if value is None else value))
    return float(across) * 72 / figure.dpi, float(up) * 72 / figure.dpi


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights apart to at least `gap`, keeping each cluster centred on what was wanted."""
    clusters: list[list[float]] = []  # [sum of wanted heights, count]
    for height in wanted:
        clusters.append([height, 1])
        while len(clusters) > 1 and _top(clusters[-2], gap) > _bottom(clusters[-1], gap):
            total, count = clusters.pop()
            clusters[-1][0] += total
            clusters[-1][1] += count
    placed = []
    for total, count in clusters:
        middle = total / count
        placed += [middle + gap * (number - (count - 1) / 2) for number in range(round(count))]
    return placed


def _top(cluster: Sequence[float], gap: float) -> float:
    return cluster[0] / cluster[1] + gap * cluster[1] / 2


def _bottom(cluster: Sequence[float], gap: float) -> float:
    return cluster[0] / cluster[1] - gap * cluster[1] / 2


def svg_for_page(figure: Figure, name: str) -> str:
    """Return the figure as an element for the page: no prolog, metadata or style; identifiers begin with `name`."""
    look = 'stroke-linejoin="round" stroke-linecap="butt" aria-hidden="true"'
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}, transparent=True
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*(<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->)", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" {look}>', text)
    return text.strip()
