"""Computes and keeps the summary of a result, for the commands that make or change one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report import read_result
from kvbench.result.files import write_json
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.report.report_input import ReportInput


def write_summary(folder: Path) -> ReportInput:
    """Compute and keep the summary of a result; return what its tables are made from."""
    given = read_result.read(folder)
    write_json(folder / "summary.json", to_json(given.summary))
    return given
