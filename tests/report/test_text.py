from __future__ import annotations

import pytest

from kvbench.report.table import Cell
from kvbench.report.text import (
    cell_text,
    interval_text,
    percent,
    ratio,
    signed_percent,
    tiers_text,
    value_text,
    with_interval,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100"), (0.99956, "99.96"), (0.999996, "99.9996"), (0.6249, "62.5"), (0, "0"), (1.05, "105"), (1e-9, "1e-07")],
)
def test_a_percentage_of_100_is_all_of_it(share: float, text: str) -> None:
    assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == f"{text} %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(55.93, "55.9x"), (1234.5, "1,230x"), (1.0486, "1.049x"), (0.98649, "0.986x"), (1, "1.00x"), (1.2, "1.20x")],
)
def test_a_ratio_shows_small_differences(value: float, text: str) -> None:
    assert ratio(value) == text


def test_a_change_that_rounds_to_nothing_has_a_plus() -> None:
    assert signed_percent(-0.0001).startswith("+0.0")


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("s", 0.0242, "24.2 ms"),
        ("s", -3e-6, "-3.00 us"),
        ("s", 87, "1 min 27 s"),
        ("1/s", 12345.0, "12.3k"),
        ("1/s", 0.0, "0"),
        ("bytes/s", 2.35e10, "23.5 GB/s"),
        ("count", 12345, "12,345"),
        ("length", 130_000, "130k"),
        ("moment", "2026-05-01T10:00:00.123456+00:00", "2026-05-01 10:00:00"),
        ("text", None, "\N{EN DASH}"),
    ],
)
def test_a_value_is_written_in_its_unit(unit: str, value: float | str | None, text: str) -> None:
    assert value_text(unit, value) == text  # type: ignore[arg-type]


def test_a_cell_without_a_value_says_why() -> None:
    assert cell_text("s", Cell(None, refusal="n/a (n=4 < 5)")) == "n/a (n=4 < 5)"
    assert cell_text("s", Cell(None)) == "\N{EN DASH}"
    assert cell_text("s", Cell(None, text="no valid run")) == "no valid run"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(0.0724, low=0.072, high=0.0731), "72.0\N{EN DASH}73.1 ms"),
        (Cell(0.98, low=0.97, high=1.02), "970 ms\N{EN DASH}1.02 s"),
        (Cell(87.0, low=86.0, high=88.5), "86.0\N{EN DASH}88.5 s"),
        (Cell(0.0724, high=0.0731), "\N{LESS-THAN OR EQUAL TO} 73.1 ms"),
        (Cell(0.0724, low=0.0724, high=0.0724), "no spread"),
        (Cell(0.0724, refusal="n/a (n=4 < 5)"), "n=4 < 5"),
        (Cell(0.0724, refusal="n/a (rounds=2 < 3)"), ""),
        (Cell(0.0724, refusal="no interval: 9 requests of 3 prompts, prompts repeat"), "prompts repeat"),
        (Cell(None, refusal="n/a (n=0)"), ""),
        (Cell("warm"), ""),
    ],
)
def test_an_interval_or_why_there_is_none(cell: Cell, text: str) -> None:
    assert interval_text("s", cell) == text


def test_an_interval_has_its_unit_once() -> None:
    assert with_interval("72.4 ms", "72.0\N{EN DASH}73.1 ms") == "72.4 ms (72.0\N{EN DASH}73.1)"
    assert with_interval("982 ms", "970 ms\N{EN DASH}1.02 s") == "982 ms (970 ms\N{EN DASH}1.02 s)"
    assert interval_text("ratio", Cell(3.9, low=3.8, high=4.0)) == "3.80\N{EN DASH}4.00x"
    assert with_interval("72.4 ms", "") == "72.4 ms"


def test_tiers_are_told_largest_first() -> None:
    assert tiers_text({"g4": 1, "recompute": 3}) == "recompute\N{NO-BREAK SPACE}75 %, g4\N{NO-BREAK SPACE}25 %".replace(
        " %", "\N{NO-BREAK SPACE}%"
    )
    assert tiers_text({}) == ""
