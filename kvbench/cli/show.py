"""The commands `kvbench show` and `kvbench audit`, which read results and documents and write nothing."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kvbench.cli.options import RESULTS, ResultsDir, console, tell
from kvbench.errors import OptionError, ResultError

if TYPE_CHECKING:
    from pathlib import Path


class Severity(StrEnum):
    """What `audit --fail-on` takes."""

    CONFLICT = "conflict"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
    NOTE = "note"


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
    from kvbench.result.find import find_result  # noqa: PLC0415

    folder = find_result(result, results, tell)
    chosen = Format.JSON if as_json else form
    if requests:
        _print_requests(folder)
    elif table is None and chosen is Format.JSON:
        _print_summary_as_json(folder)
    elif table is None and chosen is Format.TABLE:
        from kvbench.report import report_input, terminal  # noqa: PLC0415

        terminal.print_summary(report_input.read(folder), console())
    else:
        _print_tables(folder, chosen, table)


def _print_requests(folder: Path) -> None:
    from kvbench.analysis import dataset  # noqa: PLC0415
    from kvbench.report import terminal  # noqa: PLC0415
    from kvbench.result.rows import read_rows  # noqa: PLC0415

    runs = [run.run_id for run in dataset.read(folder).runs]
    terminal.print_requests({run: read_rows(folder / "runs" / run) for run in runs}, console())


def _print_summary_as_json(folder: Path) -> None:
    import json  # noqa: PLC0415

    from kvbench.analysis import summary  # noqa: PLC0415
    from kvbench.result import records  # noqa: PLC0415
    from kvbench.typed_json import to_json  # noqa: PLC0415

    typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **to_json(summary.summarise(folder))}, indent=1))


def _print_tables(folder: Path, form: Format, name: str | None) -> None:
    """Print one table, or all of those that the terminal shows."""
    from kvbench.report import report_input  # noqa: PLC0415
    from kvbench.report.render import FORMATS  # noqa: PLC0415
    from kvbench.report.render.to_rich import print_table  # noqa: PLC0415
    from kvbench.report.tables.registry import table_named, tables_of  # noqa: PLC0415

    given = report_input.read(folder)
    if name is None and form is Format.CSV:
        names = ", ".join(table.name for table in tables_of(given))
        raise OptionError("a CSV file holds one table", f"Add --table with one of {names}.")
    tables = [table_named(name, given)] if name else list(tables_of(given, in_terminal=True))
    if form is Format.TABLE:
        for one in tables:
            print_table(one, console())
    else:
        typer.echo("\n".join(FORMATS[form.value](table) for table in tables), nl=False)


def audit(
    source: Annotated[
        str, typer.Argument(metavar="NAME|FILE|RESULT", help="A published document, a claims file, or a result.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,  # noqa: FBT002
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Exit with 4 if there is something as bad as this, or worse.")
    ] = None,
    results: ResultsDir = RESULTS,
) -> None:
    """Hold printed figures against arithmetic: each finding with its calculation, and what would have to be true."""
    import json  # noqa: PLC0415

    from kvbench.audit import find, rules  # noqa: PLC0415
    from kvbench.report import audit  # noqa: PLC0415
    from kvbench.result import records  # noqa: PLC0415

    done = rules.examine(find.find(source, results, tell))
    if as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **done.to_json()}, indent=1))
    else:
        audit.print_audit(done, console())
    if not done.evaluated:
        raise ResultError(
            f"nothing in {source} could be checked, so nothing is said about it",
            "Give the conditions that its figures belong to; docs/claims.md lists what each rule needs.",
        )
    sys.exit(4 if fail_on and done.reaches(fail_on.value) else 0)
