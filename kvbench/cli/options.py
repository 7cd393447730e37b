"""Options that several commands share, and how they print what is not their result."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

ResultsDir = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results are kept.")]
RESULTS = Path("results")
ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="The scenario file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value of the scenario; may be repeated.")
]
EndpointUrl = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="Drive this server instead of the scenario's.")
]


class Driver(StrEnum):
    """What `--driver` takes."""

    NATIVE = "native"
    AIPERF = "aiperf"


DriverName = Annotated[Driver | None, typer.Option("--driver", help="Load driver, in place of the scenario's.")]


def tell(line: str) -> None:
    """Print a line that is not part of what was asked for, so that stdout stays fit for machines."""
    typer.echo(line, err=True)
