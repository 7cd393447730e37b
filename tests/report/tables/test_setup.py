from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvbench.report import read_result
from kvbench.report.tables.setup import load_text
from kvbench.result.plan_record import OpenLoop
from tests.builders.results import Case, build
from tests.builders.screens import shown_summary

if TYPE_CHECKING:
    from pathlib import Path


def test_the_load_is_told_of_every_treatment(tmp_path: Path) -> None:
    treatments = {
        "recompute": {"cache": "off", "concurrency": 1},
        "again": {"cache": "off", "concurrency": 8, "against": "recompute"},
        "g4": {"cache": {"warm": "g4"}, "concurrency": 4, "against": "recompute"},
    }
    given = read_result.read(build(Case(treatments=treatments, lengths=["10k"], repeats=3, published=None), tmp_path))
    summed = given.summary
    assert load_text(summed) == "concurrency 1, 4, 8"
    loop = OpenLoop(2.5, "poisson")
    rate = replace(summed, open_loops=dict.fromkeys(treatments, loop))
    assert load_text(rate) == "open loop, requests due at 2.5/s poisson, at most concurrency 1, 4, 8"
    some = replace(summed, open_loops={"g4": OpenLoop(2.5, "constant"), "again": loop})
    rates = "requests due at 2.5/s constant, 2.5/s poisson for g4, again"
    assert load_text(some) == f"open loop, {rates}, at most concurrency 1, 4, 8"
    text = shown_summary(given, 160)
    assert "driver native, concurrency 1, 4, 8, scale model" in text
    assert summed.headline == "requests_per_s"
    told = " ".join(text.split())
    assert "Throughput is" in told.replace("\u00a0", " ")
    assert "Storage rate" not in told  # of requests that wait for one another
