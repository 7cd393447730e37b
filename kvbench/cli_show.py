"""The commands that read what is there and write nothing: `kvbench show` and `audit`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from kvbench.errors import ResultError
from kvbench.terminal import RESULTS, ResultsDir, console, tell


class Severity(StrEnum):
    """What `audit --fail-on` takes."""

    CONFLICT = "conflict"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
    NOTE = "note"


def show(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="A result folder, or a scenario's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,  # noqa: FBT002
    requests: Annotated[  # noqa: FBT002
        bool, typer.Option("--requests", help="Print every measured request with its tier and the evidence for it.")
    ] = False,
    results: ResultsDir = RESULTS,
) -> None:
    """Show a result: its tables, the same as JSON, or every request."""
    import json  # noqa: PLC0415

    from kvbench import lookup, records, store, summary  # noqa: PLC0415
    from kvbench.report import terminal as tables  # noqa: PLC0415

    folder = lookup.find_result(result, results, tell)
    summed = summary.summarise(folder)
    if requests:
        rows = {run["run_id"]: store.read_rows(folder / "runs" / run["run_id"]) for run in summed["runs"]}
        tables.print_requests(rows, console())
    elif as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **summed}, indent=1))
    else:
        tables.print_summary(summed, console())


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

    from kvbench import records  # noqa: PLC0415
    from kvbench.audit import rules, sources  # noqa: PLC0415
    from kvbench.report import audit_section  # noqa: PLC0415

    done = rules.examine(sources.find(source, results, tell))
    if as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **done.to_json()}, indent=1))
    else:
        audit_section.print_audit(done, console())
    if not done.evaluated:
        raise ResultError(
            f"nothing in {source} could be checked, so nothing is said about it",
            "Give the conditions that its figures belong to; docs/claims.md lists what each rule needs.",
        )
    sys.exit(4 if fail_on and done.reaches(fail_on.value) else 0)
