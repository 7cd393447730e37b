"""Writes a table as LaTeX for the package `booktabs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.render.layout import lay_out
from kvbench.report.text import with_interval

if TYPE_CHECKING:
    from kvbench.report.table import Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{EN DASH}": "--",
    "\N{NO-BREAK SPACE}": "~",
    "\N{LESS-THAN OR EQUAL TO}": r"$\le$",
    "\N{DAGGER}": r"\textdagger{}",
    "\N{MICRO SIGN}": r"\textmu{}",
    "\n": " ",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def to_latex(table: Table) -> str:
    """Return the table as a `table` environment: caption, rows with intervals in brackets, and notes below."""
    layout = lay_out(table)
    sides = "".join("r" if column.kind == "number" else "l" for column in layout.columns)
    heads = _line([column.heading for column in layout.columns])
    rows = [_line([with_interval(cell.text, cell.interval) for cell in row.cells]) for row in layout.rows]
    notes = [rf"\par\footnotesize {_escaped(' '.join(table.notes))}"] if table.notes else []
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        heads,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"{' & '.join(map(_escaped, cells))} \\\\"


def _escaped(text: str) -> str:
    """Write what LaTeX would read as a command so that it prints it."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
