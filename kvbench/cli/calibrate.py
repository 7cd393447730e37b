"""The command `kvbench calibrate`: measures the load driver's own timing error."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from kvbench.cli.options import RESULTS, Driver, ResultsDir, tell
from kvbench.errors import Interrupted
from kvbench.experiment import calibrate as act
from kvbench.lenient_json import items
from kvbench.report import terminal
from kvbench.result import calibration
from kvbench.result.calibration_record import CalibrationCell
from kvbench.result.files import read_json
from kvbench.typed_json import from_json
from kvbench.units import parse_count


def calibrate(
    driver: Annotated[
        list[Driver] | None, typer.Option("--driver", help="Load driver, native by default; may be repeated.")
    ] = None,
    connections: Annotated[str, typer.Option(metavar="N,N", help="Numbers of connections.")] = "1,28,100",
    prompt_tokens: Annotated[str, typer.Option(metavar="N,N", help="Prompt lengths in tokens.")] = "500,130000",
    rounds: Annotated[int, typer.Option(min=1, help="How often each cell takes its turn.")] = 3,
    results: ResultsDir = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,  # noqa: FBT002
) -> None:
    """Measure the load driver's own timing error on this host; results made after it carry the newest one."""
    settings = act.Settings(_counts(connections, "--connections"), _counts(prompt_tokens, "--prompt-tokens"), rounds)
    try:
        folder = act.calibrate([one.value for one in driver or [Driver.NATIVE]], settings, results, tell)
    except KeyboardInterrupt:
        raise Interrupted("the calibration was interrupted, so it is attached to no result", "Run it again.") from None
    made = read_json(folder / calibration.FILE)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **made}, indent=1))
    else:
        cells = [from_json(CalibrationCell, cell, calibration.FILE) for cell in items(made["cells"])]
        terminal.print_calibration(cells, Console())
        typer.echo(str(folder))
    sys.exit(3 if any(cell["failed"] for cell in items(made["cells"])) else 0)


def _counts(text: str, option: str) -> tuple[int, ...]:
    """Read a list of counts such as 1,28,100 or 500,130k."""
    try:
        return tuple(dict.fromkeys(parse_count(part) for part in text.split(",")))
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint=option) from None
