"""Figures with their intervals as words: the unit once where both share it, and never a spread that is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from kvbench.report.figure_text import dependence_note, interval_text, value_with_interval


def figure(value: float, low: float | None, high: float | None, refusal: str | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "refusal": refusal}


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.0724, 0.072, 0.0731, "72.4 ms (72.0\N{EN DASH}73.1)"),
        (0.9, 0.8, 1.1, "900 ms (800 ms\N{EN DASH}1.10 s)"),
        (87.05, 86.97, 87.12, "1 min 27 s (87.0\N{EN DASH}87.1 s)"),
        (62.0, 58.5, 65.5, "1 min 02 s (58.5\N{EN DASH}65.5 s)"),
        (58.0, 55.0, 61.0, "58.0 s (55.0\N{EN DASH}61.0)"),
        (75.0, 75.0, 75.0, "1 min 15 s (no spread)"),
        (75.0, None, 80.0, "1 min 15 s (\N{LESS-THAN OR EQUAL TO} 80.0 s)"),
    ],
)
def test_a_value_with_its_interval(value: float, low: float | None, high: float, told: str) -> None:
    assert value_with_interval("s", figure(value, low, high)) == told


def test_an_interval_alone_keeps_its_unit() -> None:
    assert interval_text("s", figure(87.05, 86.97, 87.12)) == "87.0\N{EN DASH}87.1 s"
    assert interval_text("1/s", figure(2.3, 2.296, 2.31)) == "2.30\N{EN DASH}2.31"


@pytest.mark.parametrize(
    ("refusal", "place", "note"),
    [
        (
            "no interval: 600 requests of 259 prompts, prompts repeat",
            "prompts repeat",
            "Prompts repeat: requests of one",
        ),
        (
            "no interval: 240 requests of 60 conversations, several turns each",
            "several turns each",
            "Several turns each:",
        ),
        ("n/a (20 conversations < 59)", "20 conversations < 59", "Several turns each: turns of one"),
        ("n/a (n=4 < 59)", "n=4 < 59", ""),
    ],
)
def test_what_stands_in_place_of_an_interval_is_explained(refusal: str, place: str, note: str) -> None:
    one = figure(1.0, None, None, refusal)
    assert interval_text("s", one) == place
    told = dependence_note({"treatments": {"g4": {"metrics": {"ttft_p95": one}}}})
    assert told.startswith(note)
    assert bool(told) == bool(note)
