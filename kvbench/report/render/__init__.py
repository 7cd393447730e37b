"""Renderers of a table, one file and one line each: `kvbench show --format` offers those that give text.

The terminal (`to_rich`) and the page (`to_html`) fit the table to where it stands, so each of them is called by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.render.to_csv import to_csv
from kvbench.report.render.to_json import to_json
from kvbench.report.render.to_latex import to_latex
from kvbench.report.render.to_markdown import to_markdown

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.report.table import Table

FORMATS: dict[str, Callable[[Table], str]] = {
    "json": to_json,
    "csv": to_csv,
    "md": to_markdown,
    "latex": to_latex,
}
