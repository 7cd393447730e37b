"""What all plots share: labels stay apart, and the SVG holds nothing from outside and no text that is markup."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from kvbench.report.plots import canvas


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([0.0, 20.0], [0.0, 20.0]),
        ([10.0, 10.0], [5.0, 15.0]),
        ([0.0, 1.0, 2.0], [-9.0, 1.0, 11.0]),
        ([0.0, 0.0, 12.0], [-6.0, 4.0, 14.0]),  # a cluster takes in its neighbour: mean 4
    ],
)
def test_moves_labels_apart(wanted: list[float], placed: list[float]) -> None:
    assert canvas.spread(wanted, 10.0) == placed


def test_the_same_figure_gives_the_same_bytes_and_its_identifiers_begin_with_its_name() -> None:
    def drawn() -> str:
        with canvas.style():
            figure = Figure()
            axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
            axes.plot([1, 2], [3, 4], "o")
            axes.set_title("$x_1$ --> <b> & 'q'")
            return canvas.svg_for_page(figure, "name")

    assert drawn() == drawn()
    assert drawn().count('id="') == drawn().count('id="name-') > 0
    for outside in ("<b>", "<!--", "http", "metadata", "<dc:", "<style"):
        assert outside not in drawn()
