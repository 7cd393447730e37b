"""The terminal's proof, and the README's sample of what `show` prints: the same labels, no row left out silently."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from kvbench import summary
from kvbench.report.proof_table import proof_tables
from kvbench.report.terminal import print_summary
from tests.report.synthetic import Case, build

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"


class Limited(Case):
    """A case whose scenario limits TTFT, as that of the sample does."""

    def mapping(self) -> dict[str, Any]:
        return {**super().mapping(), "slo": {"ttft": "1s"}}


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return summary.summarise(build(Limited(name="sample", repeats=3), tmp_path_factory.mktemp("sample")))


def printed(show: Callable[[Console], None]) -> str:
    written = io.StringIO()
    show(Console(file=written, width=88, color_system=None))
    return written.getvalue()


def labels(text: str) -> set[str]:
    """Return what stands at the left of each row below the first table's heading, without figures."""
    rows = text.split("Metrics, all lengths together")[1].splitlines()
    return {re.split(r"\s{2,}", row.strip())[0] for row in rows if re.match(r" +\S.*\s{2,}\S", row)}


def test_the_readme_shows_the_rows_that_the_program_prints(summed: dict[str, Any]) -> None:
    sample = README.read_text().split("kvbench show` prints too")[1].split("```")[1]
    ours = printed(lambda console: print_summary(summed, console))
    assert len(labels(sample)) > 25
    assert labels(sample) <= labels(ours)


def test_a_kernel_count_that_is_not_there_is_told_beside_the_tiers_count(summed: dict[str, Any]) -> None:
    silent = {name: {**item, "process_read_bytes": None} for name, item in summed["treatments"].items()}
    text = printed(lambda console: console.print(*proof_tables({**summed, "treatments": silent})))
    row = next(line for line in text.splitlines() if "/proc/PID/io" in line)
    assert "not readable" in row
