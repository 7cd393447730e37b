"""The tables of a comparison: what differed before what changed, in every width, and what is said below them."""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from kvbench.analysis import gates
from kvbench.analysis.result_comparison import compare
from kvbench.importers import write_result as imports
from kvbench.report import comparison
from tests.analysis.test_result_comparison import BASE, EXPORT, LENGTHS, compared, later
from tests.builders.results import FACTS, Case, build

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.analysis.comparison_types import ResultComparison


def printed(found: ResultComparison, width: int = 100) -> str:
    text = io.StringIO()
    comparison.print_comparison(found, Console(width=width, file=text))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_the_terminal(width: int, tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["kernel"], facts["paths"]["g4"]["mount_options"] = "6.14.2-a-rather-long-version", "rw,nobarrier" * 9
    treatments = {"recompute": {"cache": "off"}, "prewarmed_with_g4_again": {"cache": {"warm": "g4"}}}
    base = Case(lengths=LENGTHS, treatments=treatments, published=None)
    text = printed(compared(tmp_path, later(treatments=treatments, published=None, facts=facts), base), width)
    assert max(map(len, text.splitlines())) <= width
    assert "within 5 %" in text
    assert ("continued" in text) == (width < 100)


def test_a_result_beside_itself_says_so_and_has_its_gates(tmp_path: Path) -> None:
    base = build(BASE, tmp_path)
    text = printed(compare(base, base, gates=[gates.parse("ttft_p50 > 1.0")]))
    assert "A and B are the same result: nothing can differ." in text
    assert "1.000" in text
    assert "gate ttft_p50 > 1.0: passed" in text


def test_facts_come_before_figures(tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["kernel"] = "6.14.2"
    facts["paths"]["g4"]["mount_options"] = "rw,relatime,nobarrier"
    facts["paths"]["g4"]["queue"]["scheduler"] = "none [mq-deadline]"
    text = printed(compared(tmp_path, later(facts=facts, repeats=4)))
    assert text.index("6.14.2") < text.index("What changed: B over A") < text.index("TTFT P50")
    assert max(map(len, text.splitlines())) <= 100


def test_what_one_side_alone_tells_is_named_in_one_line(tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["gpus"], facts["host"]["microcode"] = "none", "0x1"
    text = printed(compared(tmp_path, later(facts=facts)))
    assert "What differed around them: no fact that both of them tell" in text
    assert "Told by one of them alone: host.gpus, host.microcode (values with --json)" in text


def test_ranks_are_told_where_rounds_are_too_few(tmp_path: Path) -> None:
    text = printed(compared(tmp_path, later(repeats=2, slower={"g4": 1.5}), Case(lengths=LENGTHS, repeats=8)))
    assert "Each TTFT of B is above each of A, in these runs alone: g4 10k (n=8 and 2), g4 130k (n=8 and 2)." in text
    assert "recompute 10k" not in text.split("Each TTFT")[1]
    assert "no difference" not in text


def test_an_import_is_named(tmp_path: Path) -> None:
    made = [imports.import_result("vllm", EXPORT, tmp_path, f"import-{number}") for number in (1, 2)]
    assert "imported from vllm" in printed(compare(made[0], made[1]))
