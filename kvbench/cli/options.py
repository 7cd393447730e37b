"""Options that several commands share, and the terminal that they print to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kvbench.report.report_input import ReportInput

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


def console(*, stderr: bool = False) -> Any:
    """Return the terminal, as wide as it is."""
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=stderr)


def write_summary(folder: Path) -> ReportInput:
    """Compute and keep the summary of a result; return what its tables are made from."""
    from kvbench.report import read_result  # noqa: PLC0415
    from kvbench.result.files import write_json  # noqa: PLC0415
    from kvbench.typed_json import to_json  # noqa: PLC0415

    given = read_result.read(folder)
    write_json(folder / "summary.json", to_json(given.summary))
    return given
