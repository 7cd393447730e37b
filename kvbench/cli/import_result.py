"""The command `kvbench import`: makes a result of what another tool measured."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated

import typer
from rich.console import Console

from kvbench.cli.options import RESULTS, ResultsDir
from kvbench.cli.write_summary import write_summary
from kvbench.importers import write_result
from kvbench.report import terminal


def import_result(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file, or AIPerf's artifact folder.")],
    tool: Annotated[str, typer.Option("--from", metavar="TOOL", help="What wrote it: aiperf, guidellm, vllm, ...")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the result; by default from the path.")] = None,
    results: ResultsDir = RESULTS,
) -> None:
    """Make a result of what another tool measured, so that show and report can read it; nothing of it is proven."""
    folder = write_result.import_result(tool, path, results, name)
    terminal.print_summary(write_summary(folder), Console())
    typer.echo(str(folder))
