"""Ends the command `kvbench run` once all runs are sealed: writes the summary and prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console

from kvbench.audit import result_claims, rules
from kvbench.cli.write_summary import write_summary
from kvbench.report import audit, terminal

if TYPE_CHECKING:
    from pathlib import Path


def finish(folder: Path) -> int:
    """Summarise a result, print it with what the audit finds, and return the exit code."""
    given = write_summary(folder)
    terminal.print_summary(given, Console())
    assert given.result is not None  # noqa: S101 - it was read from the folder
    audit.print_findings(rules.examine(result_claims.lay_out(given.result, given.summary)), Console())
    typer.echo(str(folder))
    return 0 if given.summary.verdict == "valid" else 3
