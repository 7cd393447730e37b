"""What the plots draw: for each treatment its look and three columns of figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.report.material import Material

GREY = "#4d4d4d"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#e69f00")
_MARKERS = ("s", "^", "D", "v", "P", "X")


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
        cells = [(isl, cell) for isl, cell in cells if isl is not None and cell[keys[0]] is not None]
        if cells:
            medians, lows, highs = (tuple(cell[key] for _, cell in cells) for key in keys)
            colour, marker = _look(name, material)
            found.append(Series(name, colour, marker, tuple(isl for isl, _ in cells), medians, lows, highs))
    return found


def _look(name: str, material: Material) -> tuple[str, str]:
    baseline = material.summary["baseline"]
    if name == baseline:
        return GREY, "o"
    others = [other for other in material.summary["treatments"] if other != baseline]
    place = others.index(name)
    return _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]


def requests(material: Material, one: Series) -> list[tuple[int, float]]:
    """Return length and TTFT of each single request behind a series."""
    return [
        (isl, row.ttft_s)
        for isl in one.lengths
        for row in material.measured(one.name, isl)
        if row.status == "ok" and row.ttft_s is not None
    ]
