"""Makes the two pictures of the README from the example result that is in the repository.

    python bench/pictures.py [FOLDER]     docs/pictures by default; needs pdftoppm (poppler-utils)

The terminal is what `kvbench show` prints up to its first table, the report is the first page of the PDF.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kvbench.report import html, read_result, terminal

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "results" / "examples" / "vllm-gpu-fs" / "20261121T224531Z"
WIDTH = 100
DOTS_PER_INCH = 110
SECOND_TABLE = "Metrics, all prompt lengths together"


def terminal_lines() -> list[str]:
    """Return what `kvbench show` prints of the example up to its second table, with the codes of its colours."""
    written = io.StringIO()
    console = Console(file=written, width=WIDTH, force_terminal=True, color_system="truecolor", legacy_windows=False)
    terminal.print_summary(read_result.read(EXAMPLE), console)
    whole = written.getvalue().splitlines()
    end = next(number for number, line in enumerate(whole) if SECOND_TABLE in line)
    return whole[: end - 1]


def terminal_svg() -> str:
    """Draw a terminal with these lines; it names no font of another server."""
    console = Console(file=io.StringIO(), width=WIDTH, record=True, force_terminal=True, legacy_windows=False)
    command = f"$ kvbench show {EXAMPLE.relative_to(ROOT)}"
    for line in (command, *terminal_lines()):
        console.print(Text.from_ansi(line), no_wrap=True)
    drawn = console.export_svg(title="kvbench show", unique_id="kvbench")
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)


def report_png() -> bytes:
    """Draw the first page of the report."""
    with tempfile.TemporaryDirectory() as folder:
        pdf = Path(folder) / "report.pdf"
        pdf.write_bytes(html.to_pdf(html.render(read_result.read(EXAMPLE))))
        command = ["pdftoppm", "-png", "-r", str(DOTS_PER_INCH), "-singlefile", "-f", "1", "-l", "1"]
        subprocess.run([*command, str(pdf), str(pdf.with_suffix(""))], check=True)
        return pdf.with_suffix(".png").read_bytes()


def main() -> None:
    """Write both pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "terminal.svg").write_text(terminal_svg())
    (folder / "report.png").write_bytes(report_png())


if __name__ == "__main__":
    main()
