"""The README's sample of what `show` prints is what it prints of the example that is in the repository."""

from __future__ import annotations

from pathlib import Path

from kvbench.report import report_input
from tests.builders.screens import shown_summary

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "results" / "examples" / "vllm-gpu-fs" / "20261121T224531Z"


def test_the_readme_shows_what_the_program_prints() -> None:
    sample = (ROOT / "README.md").read_text().split("`kvbench show` prints too")[1].split("```")[1]
    ours = shown_summary(report_input.read(EXAMPLE), 88)
    assert sample.split() == ours.split()
