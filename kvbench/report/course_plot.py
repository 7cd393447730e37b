"""The plot of runs over time: answers per second, hit rate so far and distinct prompts so far, a column a treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kvbench.report import canvas
from kvbench.report.series import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kvbench.report.material import Material

    Course = dict[str, Any]

_ABREAST = 4
_WIDTH_IN, _LEFT_IN, _GAP_IN, _RIGHT_IN = 7.2, 0.62, 0.42, 0.1
_PANEL_IN, _BETWEEN_IN, _ABOVE_IN, _BELOW_IN = 0.74, 0.12, 0.24, 0.42
_MOST_STRETCH = 4.0  # beyond this between the least and the largest, a treatment has a scale of its own
_RULE = "#d9d9d9"


class _Scales(NamedTuple):
    """The right end of the time of each treatment, the top of its rate, and the top of all distinct prompts."""

    time_s: dict[str, float]
    rate: dict[str, float]
    prompts: float


def drawn(material: Material) -> dict[str, list[Course]]:
    """Return the courses of each treatment that has any; none beside neighbours, whose runs have plots of their own."""
    if material.summary["doses"]:
        return {}
    found = {name: item["courses"] for name, item in material.summary["treatments"].items()}
    return {name: courses for name, courses in found.items() if courses}


def course_plot(material: Material) -> str | None:
    """Draw one line a round: how many requests a second were answered, and what hit rate and prompts had come to."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and only a report needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    found = drawn(material)
    if not found:
        return None
    panels = 3 if any(one["hit_rate"] for courses in found.values() for one in courses) else 2
    block_in = _ABOVE_IN + panels * _PANEL_IN + (panels - 1) * _BETWEEN_IN + _BELOW_IN
    blocks = -(-len(found) // _ABREAST)
    abreast = -(-len(found) // blocks)  # as alike as can be: 3 and 2, not 4 and 1
    height_in = block_in * blocks
    scales = _scales(found)
    with mpl.rc_context(canvas.STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in))
        for place, (name, courses) in enumerate(found.items()):
            row, column = divmod(place, abreast)
            top_in = height_in - row * block_in - _ABOVE_IN
            axes = _column(figure, (top_in, height_in), column, abreast, panels)
            _draw(axes, name, courses, scales, look(name, material)[0])
            _label(figure, axes, is_first=column == 0)
        return canvas.as_svg(figure, "courses")


def _scales(found: dict[str, list[Course]]) -> _Scales:
    """Give all treatments one scale where they can be read on it, else each its own."""
    times = {name: max(one["slice_s"] * len(one["answered"]) for one in all_) for name, all_ in found.items()}
    rates = {name: max(max(one["answered_per_s"]) for one in all_) for name, all_ in found.items()}
    prompts = max(one["distinct_prompts"][-1] for all_ in found.values() for one in all_)
    return _Scales(_shared(times), _shared(rates), float(prompts))


def _shared(ends: dict[str, float]) -> dict[str, float]:
    most = max(ends.values())
    return dict.fromkeys(ends, most) if most <= _MOST_STRETCH * min(ends.values()) else ends


def _column(figure: Figure, height: tuple[float, float], column: int, columns: int, panels: int) -> list[Axes]:
    """Lay out the panels of one treatment, the first on top."""
    top_in, height_in = height
    width_in = (_WIDTH_IN - _LEFT_IN - _RIGHT_IN - (columns - 1) * _GAP_IN) / columns
    left_in = _LEFT_IN + column * (width_in + _GAP_IN)
    bottoms = [top_in - (place + 1) * _PANEL_IN - place * _BETWEEN_IN for place in range(panels)]
    return [
        figure.add_axes((left_in / _WIDTH_IN, bottom / height_in, width_in / _WIDTH_IN, _PANEL_IN / height_in))
        for bottom in bottoms
    ]


def _draw(axes: Sequence[Axes], name: str, courses: Sequence[Course], scales: _Scales, colour: str) -> None:
    rate, prompts = axes[0], axes[-1]
    for one in courses:
        ends = [one["slice_s"] * (place + 1) for place in range(len(one["answered"]))]
        style: dict[str, Any] = {"color": colour, "linewidth": 1.1, "alpha": 0.45 if len(courses) > 1 else 1.0}
        rate.stairs(one["answered_per_s"], [0.0, *ends], baseline=None, **style)
        prompts.plot([0.0, *ends], [0, *one["distinct_prompts"]], **style)
        if len(axes) > 2 and one["hit_rate"]:
            axes[1].plot(ends, [float("nan") if hits is None else hits for hits in one["hit_rate"]], **style)
    rate.set_ylim(0, 1.12 * scales.rate[name])
    prompts.set_ylim(0, 1.12 * scales.prompts)
    if len(axes) > 2:
        axes[1].set_ylim(-0.04, 1.06)
        axes[1].set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    for one_axes in axes:
        one_axes.set_xlim(0, 1.02 * scales.time_s[name])
        one_axes.tick_params(labelsize=7, labelbottom=one_axes is prompts)
        one_axes.grid(axis="y", color=_RULE, linewidth=0.6)
        one_axes.set_axisbelow(True)
        one_axes.locator_params(axis="x", nbins=4)
    for one_axes in (rate, prompts):
        one_axes.locator_params(axis="y", nbins=3)
    rate.set_title(name if len(name) <= 22 else f"{name[:21]}…", loc="left", fontsize=8, pad=3, color=colour)
    prompts.set_xlabel("s after the first send", fontsize=7.5, labelpad=1)


def _label(figure: Figure, axes: Sequence[Axes], *, is_first: bool) -> None:
    """Name the panels at the left; the others need numbers only where their scale is another one."""
    if not is_first:
        for one_axes in axes[1:]:
            one_axes.tick_params(labelleft=False)
        return
    words = ("answers/s", "hit rate", "prompts") if len(axes) > 2 else ("answers/s", "prompts")
    for one_axes, word in zip(axes, words, strict=True):
        one_axes.set_ylabel(word, fontsize=7.5)
    figure.align_ylabels(list(axes))
