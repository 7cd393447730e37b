"""Printed figures as intervals: digits, words, units, ranges."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.publications import printed_figure
from kvbench.publications.printed_figure import Interval, read


@pytest.mark.parametrize(
    ("text", "unit", "low", "high"),
    [
        ("34.39", "tokens/s", 34.385, 34.395),
        ("30.00", "tokens/s", 29.995, 30.005),
        ("1,048.56", "s", 1048.555, 1048.565),
        ("24", "million tokens", 23.5e6, 24.5e6),
        ("-1.3", "%", -0.0135, -0.0125),
        ("\N{MINUS SIGN}75.8", "%", -0.7585, -0.7575),
        ("10 to 50", "us", 9.5e-6, 50.5e-6),
        ("400", "GbE", 49.9375e9, 50.0625e9),
        ("200", "", 200, 200),
    ],
)
def test_digits_become_the_interval_that_is_rounded_to_them(text: str, unit: str, low: float, high: float) -> None:
    assert read(text, unit).interval.ends == pytest.approx((low, high), rel=1e-12)


def test_words_widen_or_open_an_interval() -> None:
    assert read("95", "%", "over").interval.ends == pytest.approx((0.95, inf))
    assert read("80", "GB/s", "up to").interval.ends == (-inf, 80.5e9)
    assert read("80", "GB/s", "up to").rounded.ends == (79.5e9, 80.5e9)
    assert read("180", "GB", "about").interval.ends == pytest.approx((171e9, 189e9))
    assert read("4", "x", "nearly").interval.ends == pytest.approx((3.6, 4.5))


def test_a_size_in_gb_has_a_binary_reading_and_one_in_gib_has_none() -> None:
    binary = read("825", "GB").binary
    assert binary is not None
    assert binary.middle == pytest.approx(825 * 2**30)
    assert read("19.6", "GiB").binary is None


def test_several_ports_count_together() -> None:
    figure = read("100", "GbE", times=12)
    assert figure.interval.middle == pytest.approx(150e9)
    assert str(figure) == "12 x 100 GbE"


@pytest.mark.parametrize("text", ["", "1,04", "1e9", "12 to", "50 to 10", "1 to 2 to 3", "n/a"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read(text, "s")


def test_an_unknown_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'furlong' is not known; known are"):
        read("1", "furlong")


@given(st.floats(0.01, 1e5), st.integers(0, 3))
def test_what_is_printed_always_holds_the_number_that_was_rounded(value: float, places: int) -> None:
    interval = read(f"{value:.{places}f}", "s").interval
    assert interval.meets(Interval.exact(value))


@given(*[st.floats(-1e3, 1e3)] * 4)
def test_interval_arithmetic_holds_every_result(a: float, b: float, c: float, d: float) -> None:
    first, second = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
    for operation in (Interval.__add__, Interval.__sub__, Interval.__mul__):
        found = operation(first, second)
        plain = {Interval.__add__: a + c, Interval.__sub__: a - c, Interval.__mul__: a * c}[operation]
        assert found.meets(Interval.exact(plain))
    if second.low > 0:
        assert (first / second).meets(Interval.exact(a / c))


def test_values_are_shown_in_units_that_people_read() -> None:
    assert printed_figure.show(46.94, "time") == "46.94 s"
    assert printed_figure.show(0.01043, "time") == "10.43 ms"
    assert printed_figure.show(23.47e9, "bandwidth") == "23.47 GB/s"
    assert printed_figure.show(18432.0, "tokens") == "18,432 tokens"
    assert printed_figure.show_interval(Interval(0.142, 0.168), "ratio", percent=True) == "14.2 % to 16.8 %"
