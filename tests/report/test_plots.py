"""The plots: what is drawn, that labels stay apart, and that text cannot break out of the SVG."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.report import canvas, course_plot, document, material, plots
from kvbench.report.series import requests, speed_up_series, ttft_series
from kvbench.report.text import difference, percent, ratio, three_digits
from tests.report.synthetic import Case, build

if TYPE_CHECKING:
    from pathlib import Path


def test_draws_every_request_that_is_used(tmp_path: Path) -> None:
    case = Case(repeats=3, lengths=["10k", "130k"], failing=("r02-g4",))
    one = material.read(build(case, tmp_path))
    recompute, g4 = ttft_series(one)
    assert (recompute.name, recompute.lengths, len(requests(one, recompute))) == ("recompute", (10_000, 130_000), 6)
    assert (g4.name, len(requests(one, g4))) == ("g4", 4)  # the run with a failure is invalid
    assert [gain.name for gain in speed_up_series(one)] == ["g4"]
    assert recompute.colour != g4.colour


def test_has_nothing_to_draw_beside_without_scale_and_publication(tmp_path: Path) -> None:
    case = Case(repeats=1, lengths=["10k"], scale=None, published=None)
    one = material.read(build(case, tmp_path))
    assert plots.ttft_plot(one) is not None
    assert plots.published_plot(one) is None


def test_a_rate_is_drawn_where_it_answers_the_question(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "<g4>": {"cache": {"warm": "g4"}}}
    case = Case(repeats=3, lengths=["10k"], load={"concurrency": 4}, treatments=treatments, published=None)
    one = material.read(build(case, tmp_path))
    svg = plots.rate_plot(one)
    assert svg is not None
    assert svg.startswith("<svg viewBox=")
    assert "<g4>" not in svg
    assert plots.ttft_plot(one) is None  # one length is no curve
    assert plots.published_plot(one) is None  # full scale alone is the same plot again
    alone = material.read(build(Case(name="alone", repeats=1, lengths=["10k", "30k"]), tmp_path))
    assert plots.rate_plot(alone) is None
    assert plots.ttft_plot(alone) is not None


def test_a_run_over_time_is_drawn_where_requests_run_side_by_side(tmp_path: Path) -> None:
    load = {"concurrency": 4, "requests": 60, "draw": "round_robin"}
    treatments = {f"g4_{number}": {"cache": {"warm": "g4"}} for number in range(5)}
    case = Case(repeats=2, lengths=["10k"], per_length=20, load=load, treatments=treatments, published=None)
    one = material.read(build(replace(case, baseline=None), tmp_path))
    assert {name: len(courses) for name, courses in course_plot.drawn(one).items()} == dict.fromkeys(treatments, 2)
    svg = course_plot.course_plot(one)
    assert svg is not None
    assert svg.startswith("<svg viewBox=")
    assert svg in document.render(one)
    few = material.read(build(Case(name="few", repeats=1, lengths=["10k"], load={"concurrency": 4}), tmp_path))
    assert course_plot.course_plot(few) is None
    assert "Measured, over the time of a run" in document.render(one)
    assert "Measured, over the time of a run" not in document.render(few)


def test_treatments_far_apart_in_time_have_scales_of_their_own() -> None:
    def course(slice_s: float) -> dict[str, Any]:
        answered = [10] * 4
        rates = [count / slice_s for count in answered]
        return {"slice_s": slice_s, "answered": answered, "answered_per_s": rates, "distinct_prompts": [4, 8, 9, 9]}

    near = course_plot._scales({"a": [course(1.0)], "b": [course(3.0), course(2.0)]})
    assert near.time_s == {"a": 12.0, "b": 12.0}
    assert near.rate == {"a": 10.0, "b": 10.0}
    far = course_plot._scales({"a": [course(1.0)], "b": [course(5.0)]})
    assert far.time_s == {"a": 4.0, "b": 20.0}
    assert far.rate == {"a": 10.0, "b": 2.0}
    assert far.prompts == 9


def test_text_of_a_scenario_cannot_break_out_of_a_plot(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "$x_1$ --> <b> & 'q'": {"cache": {"warm": "g4"}}}
    one = material.read(build(Case(repeats=1, lengths=["10k"], treatments=treatments), tmp_path))
    svg = plots.ttft_plot(one) or ""
    assert "<b>" not in svg
    assert "<!--" not in svg


def test_holds_no_address_and_no_date(tmp_path: Path) -> None:
    one = material.read(build(Case(repeats=1, lengths=["10k", "130k"]), tmp_path))
    for svg in (plots.ttft_plot(one), plots.published_plot(one)):
        assert svg is not None
        assert svg.startswith("<svg viewBox=")
        assert not re.search(r"http|metadata|Matplotlib v|<dc:|<style", svg)


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


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1.00"), (0.0123456, "0.0123"), (55.96, "56.0"), (99.97, "100"), (1234.5, "1,230"), (0.9996, "1.00")],
)
def test_writes_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text
    assert ratio(value) == f"{text}x"


def test_writes_shares_and_differences() -> None:
    assert percent(1) == "100\u00a0%"
    assert percent(0.99956) == "99.96\u00a0%"
    assert difference(101, 100) == "+1.00\u00a0%"
    assert difference(100, 100) == "equal"
    assert difference(5, 0) == "reference is 0"
