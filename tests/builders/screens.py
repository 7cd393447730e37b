"""What a terminal of some width shows, as plain text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from kvbench.report import terminal
from kvbench.report.render.to_rich import print_table

if TYPE_CHECKING:
    from kvbench.report.report_input import ReportInput
    from kvbench.report.table import Table


def shown_summary(given: ReportInput, width: int = 100) -> str:
    written = io.StringIO()
    terminal.print_summary(given, Console(file=written, width=width, color_system=None))
    return written.getvalue()


def shown_table(table: Table | None, width: int = 100) -> str:
    assert table is not None
    written = io.StringIO()
    print_table(table, Console(file=written, width=width, color_system=None))
    return written.getvalue()
