"""The command `kvbench audit`: holds printed figures against arithmetic, and writes nothing."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from kvbench.audit import rules
from kvbench.audit.find import find
from kvbench.cli.options import RESULTS, ResultsDir, tell
from kvbench.errors import ResultError
from kvbench.report.audit import print_audit
from kvbench.result import records


class Severity(StrEnum):
    """What `audit --fail-on` takes."""

    CONFLICT = "conflict"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
    NOTE = "note"


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
    done = rules.examine(find(source, results, tell))
    if as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **done.to_json()}, indent=1))
    else:
        print_audit(done, Console())
    if not done.evaluated:
        raise ResultError(
            f"nothing in {source} could be checked, so nothing is said about it",
            "Give the conditions that its figures belong to; docs/claims.md lists what each rule needs.",
        )
    sys.exit(4 if fail_on and done.reaches(fail_on.value) else 0)
