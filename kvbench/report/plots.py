"""The plots, as SVG that stands inside the page: no file, no font and no date from outside.

Each treatment has one colour and one marker in all plots (Okabe-Ito, safe for the colour-blind); the baseline is grey.
Glyphs are drawn as paths with matplotlib's own font, so the same figures give the same bytes on every machine.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench import published
from kvbench.report.grid import ratio
from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kvbench.published import PublishedCurve
    from kvbench.report.material import Material

_GREY, _INK, _RULE = "#4d4d4d", "#222222", "#d9d9d9"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#e69f00")
_MARKERS = ("s", "^", "D", "v", "P", "X")
_WIDTH_IN = 7.2
_LABEL_GAP_PT = 11.0
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "kvbench",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.unicode_minus": False,
}


@dataclass(frozen=True)
class Series:
    """What is drawn of one treatment."""

    name: str
    colour: str
    marker: str
    lengths: tuple[int, ...]
    medians: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    @property
    def label(self) -> str:
        """A name that fits beside the end of a line."""
        return self.name if len(self.name) <= 15 else f"{self.name[:14]}…"


def ttft_plot(material: Material) -> str | None:
    """Draw TTFT against prompt length with every request, and the speed-up below it; None without any figure."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and only a report needs it

    series, gains = ttft_series(material), speed_up_series(material)
    if not series:
        return None
    with mpl.rc_context(_STYLE):
        figure, upper, lower = _panels(with_lower=bool(gains))
        lengths = sorted({length for one in series for length in one.lengths})
        for axes in filter(None, (upper, lower)):
            _prepare_lengths(axes, lengths)
        _draw_ttft(upper, series, material)
        if lower is not None:
            _draw_speed_up(lower, gains, _published_gains(material))
            upper.tick_params(labelbottom=False)
            upper.set_xlabel("")
        return _as_svg(figure, "ttft")


def published_plot(material: Material) -> str | None:
    """Draw measured medians at full scale beside the published figures; None where there is nothing to put beside."""
    import matplotlib as mpl  # noqa: PLC0415

    summary = material.summary
    scale = summary["scale"]["time"] if summary["scale"] else 1.0
    series = ttft_series(material)
    asked = material.plan["asked"]["published"]
    curves = published.load(asked).curves if asked else {}
    if not series or (not curves and not summary["scale"]):
        return None
    with mpl.rc_context(_STYLE):
        figure, axes, _ = _panels(with_lower=False)
        own = [curve for name, curve in curves.items() if name in summary["treatments"]]
        lengths = {length for one in series for length in one.lengths}
        _prepare_lengths(axes, sorted(lengths.union(*(curve.printed for curve in own))))
        _draw_beside(axes, series, {curve.treatment: curve for curve in own}, scale)
        word = "TTFT at full scale" if summary["scale"] else "TTFT"
        axes.set_title(f"{word}, beside what was published", loc="left", fontsize=9, pad=20)
        return _as_svg(figure, "published")


# -- what is drawn ----------------------------------------------------------------------------------------------------


def ttft_series(material: Material) -> list[Series]:
    """Collect for each treatment with any figure its medians, extremes and single requests."""
    return _series(material, ("median_s", "min_s", "max_s"))


def speed_up_series(material: Material) -> list[Series]:
    """Collect for each compared treatment its speed-up, with the extremes over rounds."""
    return _series(material, ("speed_up", "speed_up_low", "speed_up_high"))


def _series(material: Material, keys: tuple[str, str, str]) -> list[Series]:
    """Collect three columns of figures for each treatment that has any."""
    found = []
    for name in material.summary["treatments"]:
        cells = [(row["isl"], row["cells"][name]) for row in material.summary["lengths"]]
        cells = [(isl, cell) for isl, cell in cells if cell[keys[0]] is not None]
        if cells:
            medians, lows, highs = (tuple(cell[key] for _, cell in cells) for key in keys)
            colour, marker = _look(name, material)
            found.append(Series(name, colour, marker, tuple(isl for isl, _ in cells), medians, lows, highs))
    return found


def _requests(material: Material, one: Series) -> list[tuple[int, float]]:
    """Return length and TTFT of each single request behind a series."""
    return [
        (isl, row.ttft_s)
        for isl in one.lengths
        for row in material.measured(one.name, isl)
        if row.status == "ok" and row.ttft_s is not None
    ]


def _look(name: str, material: Material) -> tuple[str, str]:
    baseline = material.summary["baseline"]
    if name == baseline:
        return _GREY, "o"
    others = [other for other in material.summary["treatments"] if other != baseline]
    place = others.index(name)
    return _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]


def _published_gains(material: Material) -> list[tuple[int, float]]:
    rows = material.summary["lengths"]
    return [(row["isl"], row["published_speed_up"]) for row in rows if row["published_speed_up"] is not None]


# -- the panels -------------------------------------------------------------------------------------------------------


def _panels(*, with_lower: bool) -> tuple[Figure, Axes, Axes | None]:
    """Lay out one panel, or two that share their lengths; fixed margins, room for labels at the right."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    height = 4.6 if with_lower else 3.1
    figure = Figure(figsize=(_WIDTH_IN, height))
    left, width = 0.09, 0.755
    if not with_lower:
        return figure, figure.add_axes((left, 0.145, width, 0.70)), None
    return figure, figure.add_axes((left, 0.47, width, 0.48)), figure.add_axes((left, 0.10, width, 0.295))


def _prepare_lengths(axes: Axes, lengths: Sequence[int]) -> None:
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
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_ttft(axes: Axes, series: Sequence[Series], material: Material) -> None:
    low, high = min(min(one.lows) for one in series), max(max(one.highs) for one in series)
    _prepare_seconds(axes, low, high)
    for place, one in enumerate(series):
        shift = 3.0 * (place - (len(series) - 1) / 2)
        _draw_series(axes, one, shift)
        _draw_points(axes, _requests(material, one), one.colour, shift + 3.5)
    _label_ends(axes, [(one.lengths[-1], one.medians[-1], one.label, one.colour) for one in series])
    axes.set_title("TTFT, measured", loc="left", fontsize=9)


def _draw_speed_up(axes: Axes, gains: Sequence[Series], printed: Sequence[tuple[int, float]]) -> None:
    top = max(*(max(one.highs) for one in gains), *(value for _, value in printed), 1.0)
    axes.set_ylim(0, top * 1.22)
    axes.axhline(1, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    for place, one in enumerate(gains):
        _draw_series(axes, one, 3.0 * (place - (len(gains) - 1) / 2))
        if len(gains) == 1:
            _write_values(axes, one)
    labels = [(one.lengths[-1], one.medians[-1], one.label, one.colour) for one in gains]
    for length, value in printed:
        axes.plot([length], [value], "*", markersize=13, markerfacecolor="none", markeredgecolor=_INK, zorder=5)
        labels.append((length, value, f"published {value:g}x", _INK))
    _label_ends(axes, [*labels, (int(axes.get_xlim()[1]), 1.0, "1x: equal", _GREY)])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_title("Speed-up over the baseline", loc="left", fontsize=9)


def _draw_beside(axes: Axes, series: Sequence[Series], curves: dict[str, PublishedCurve], scale: float) -> None:
    printed = [value for curve in curves.values() for value in curve.printed.values()]
    values = [scale * median for one in series for median in one.medians] + printed
    _prepare_seconds(axes, min(values), max(values))
    labels = []
    for one in series:
        scaled = [scale * median for median in one.medians]
        axes.plot(one.lengths, scaled, one.marker, color=one.colour, markerfacecolor="white", markersize=6.5, zorder=3)
        end = (one.lengths[-1], scaled[-1])
        curve = curves.get(one.name)
        if curve is not None:
            end = max(end, _draw_published(axes, curve, one))
        labels.append((*end, one.label, one.colour))
    _label_ends(axes, labels)
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
    marks = [Line2D([], [], marker="o", color=_INK, markerfacecolor="white", linestyle="", label=word)]
    if with_published:
        marks.append(Line2D([], [], marker="*", color=_INK, markersize=9, linestyle="", label="published, as printed"))
        dashes = (0, (5, 3))
        marks.append(Line2D([], [], color=_INK, linewidth=0.9, linestyle=dashes, label="derived from the printed ends"))
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, frameon=False, fontsize=8)


# -- marks and labels -------------------------------------------------------------------------------------------------


def _prepare_seconds(axes: Axes, low: float, high: float) -> None:
    """Set a log scale in seconds that spans at least half a decade."""
    from matplotlib.ticker import FixedLocator, NullLocator  # noqa: PLC0415

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


def _shifted(axes: Axes, points_right: float) -> Any:
    """Return the data transform moved to the right by so many points, so that treatments do not hide one another."""
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415

    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 - made by `_panels`
    return axes.transData + ScaledTranslation(points_right / 72, 0, figure.dpi_scale_trans)


def _draw_series(axes: Axes, one: Series, shift: float) -> None:
    """Draw a line through medians with whiskers from the least to the most."""
    where = _shifted(axes, shift)
    axes.vlines(one.lengths, one.lows, one.highs, color=one.colour, linewidth=1.1, transform=where)
    for ends in (one.lows, one.highs):
        axes.plot(one.lengths, ends, "_", color=one.colour, markersize=5, transform=where)
    axes.plot(
        one.lengths, one.medians, color=one.colour, marker=one.marker, markersize=4.5, linewidth=1.3, transform=where
    )


def _draw_points(axes: Axes, points: Sequence[tuple[int, float]], colour: str, shift: float) -> None:
    lengths, times = zip(*points, strict=True)
    where = _shifted(axes, shift)
    axes.plot(lengths, times, "o", color=colour, alpha=0.45, markersize=2.6, markeredgewidth=0, transform=where)


def _write_values(axes: Axes, one: Series) -> None:
    """Write each speed-up above its whisker, where the lengths leave room."""
    if len(one.lengths) > 12:
        return
    for length, value, high in zip(one.lengths, one.medians, one.highs, strict=True):
        axes.annotate(
            ratio(value), (length, high), (0, 7), textcoords="offset points", ha="center", color=one.colour, fontsize=8
        )


def _label_ends(axes: Axes, labels: Sequence[tuple[int, float, str, str]]) -> None:
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
    assert figure is not None  # noqa: S101 - made by `_panels`
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


def _as_svg(figure: Figure, name: str) -> str:
    """Return the figure as an element for the page: no prolog, no metadata, and identifiers of its own."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}, transparent=True
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text)
    return text.strip()
