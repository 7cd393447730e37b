"""The command `kvbench compare`: compares two results and applies gates."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from kvbench.analysis import gates, result_comparison
from kvbench.cli.options import RESULTS, ResultsDir, tell
from kvbench.report import comparison
from kvbench.result import records
from kvbench.result.find import find_result
from kvbench.typed_json import to_json


def compare(  # noqa: PLR0913, PLR0917 - these are the options of the command
    base: Annotated[str, typer.Argument(metavar="A", help="The base: a result folder, or a scenario's name.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The result that is compared with it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,  # noqa: FBT002
    margin: Annotated[str, typer.Option(metavar="SHARE", help="Differences that do not matter, such as 5%.")] = "5%",
    anyway: Annotated[  # noqa: FBT002
        bool, typer.Option("--anyway", help="Compare what both have, though they were asked different questions.")
    ] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="EXPR", help="Exit with 4 if so, such as 'ttft_p50 > 1.05'; repeatable."),
    ] = None,
    results: ResultsDir = RESULTS,
) -> None:
    """Compare two results: what differed between their worlds, then what changed in their figures."""
    try:
        asked = [gates.parse(expression) for expression in fail_if or []]
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--fail-if") from None
    share = _share(margin)
    folders = [find_result(name, results, tell) for name in (base, other)]
    found = result_comparison.compare(folders[0], folders[1], margin=share, anyway=anyway, gates=asked)
    if as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **to_json(found)}, indent=1))
    else:
        comparison.print_comparison(found, Console())
    sys.exit(4 if any(gate.failed for gate in found.gates) else 0)


def _share(text: str) -> float:
    """Read a share such as 5% or 0.05."""
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is not a share such as 5% or 0.05", param_hint="--margin")
    return value
