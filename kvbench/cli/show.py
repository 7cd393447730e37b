"""The command `kvbench show`: prints a result, and writes nothing."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kvbench.analysis import dataset, summary
from kvbench.cli.options import RESULTS, ResultsDir, tell
from kvbench.errors import OptionError
from kvbench.report import read_result, terminal
from kvbench.report.render import FORMATS
from kvbench.report.render.to_rich import print_table
from kvbench.report.tables.registry import table_named, tables_of
from kvbench.result import records
from kvbench.result.find import find_result
from kvbench.result.rows import read_rows
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from pathlib import Path


class Format(StrEnum):
    """What `show --format` takes."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    LATEX = "latex"


def show(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="A result folder, or a scenario's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,  # noqa: FBT002
    form: Annotated[
        Format, typer.Option("--format", help="Print tables for people, or in a form for other programs.")
    ] = Format.TABLE,
    table: Annotated[
        str | None, typer.Option("--table", metavar="NAME", help="Print this table alone, such as ttft_by_length.")
    ] = None,
    requests: Annotated[  # noqa: FBT002
        bool, typer.Option("--requests", help="Print every measured request with its tier and the evidence for it.")
    ] = False,
    results: ResultsDir = RESULTS,
) -> None:
    """Show a result: its tables, in any of several forms, or every request."""
    folder = find_result(result, results, tell)
    chosen = Format.JSON if as_json else form
    if requests:
        _print_requests(folder)
    elif table is None and chosen is Format.JSON:
        _print_summary_as_json(folder)
    elif table is None and chosen is Format.TABLE:
        terminal.print_summary(read_result.read(folder), Console())
    else:
        _print_tables(folder, chosen, table)


def _print_requests(folder: Path) -> None:
    runs = [run.run_id for run in dataset.read(folder).runs]
    terminal.print_requests({run: read_rows(folder / "runs" / run) for run in runs}, Console())


def _print_summary_as_json(folder: Path) -> None:
    typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **to_json(summary.summarise(folder))}, indent=1))


def _print_tables(folder: Path, form: Format, name: str | None) -> None:
    """Print one table, or all of those that the terminal shows."""
    given = read_result.read(folder)
    if name is None and form is Format.CSV:
        names = ", ".join(table.name for table in tables_of(given))
        raise OptionError("a CSV file holds one table", f"Add --table with one of {names}.")
    tables = [table_named(name, given)] if name else list(tables_of(given, in_terminal=True))
    if form is Format.TABLE:
        for one in tables:
            print_table(one, Console())
    else:
        typer.echo("\n".join(FORMATS[form.value](table) for table in tables), nl=False)
