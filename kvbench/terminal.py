"""What every command shares: where results are kept, and the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ResultsDir = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results are kept.")]
RESULTS = Path("results")


def tell(line: str) -> None:
    """Print a line that is not part of what was asked for, so that stdout stays fit for machines."""
    typer.echo(line, err=True)


def console(*, stderr: bool = False) -> Any:
    """Return the terminal, as wide as it is."""
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=stderr)
