"""The README's picture of a terminal is what `kvbench show` prints of the example that is in the repository."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from kvbench.report import read_result
from tests.builders.screens import shown_summary

ROOT = Path(__file__).parents[2]
EXAMPLE = Path("results/examples/vllm-gpu-fs/20261121T224531Z")
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 100  # that of bench/pictures.py
MOST_BYTES = 300_000


def lines_of(svg: str) -> list[str]:
    """Return the lines of a drawn terminal without its title: its texts by their height."""
    lines: dict[float, str] = {}
    for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):  # noqa: S314 - our own file
        if "clip-path" in text.attrib:
            lines[float(text.attrib["y"])] = lines.get(float(text.attrib["y"]), "") + (text.text or "")
    return [lines[height] for height in sorted(lines)]


def without_spaces(line: str) -> str:
    return "".join(line.split())


def test_the_terminal_shows_what_the_program_prints() -> None:
    svg = (PICTURES / "terminal.svg").read_text()
    command, *drawn = filter(None, map(without_spaces, lines_of(svg)))  # gaps between words are not in the picture
    assert command == without_spaces(f"$ kvbench show {EXAMPLE}")
    printed = shown_summary(read_result.read(ROOT / EXAMPLE), WIDTH).splitlines()
    printed = [line for line in map(without_spaces, printed) if line]
    assert len(drawn) > 15
    assert drawn == printed[: len(drawn)], "run python bench/pictures.py"
    assert not re.findall(r"url\((?!#)|<image|@import", svg)  # it needs nothing from elsewhere


def test_the_readme_shows_both_pictures_and_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    for name in ("terminal.svg", "report.png"):
        assert f"docs/pictures/{name}" in text
        assert (PICTURES / name).stat().st_size < MOST_BYTES
