"""The command `kvbench report`: writes reports of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvbench.cli.options import RESULTS, ResultsDir, tell
from kvbench.errors import ResultError
from kvbench.report import read_result
from kvbench.report.html import write_report
from kvbench.result.files import write_json
from kvbench.result.find import find_result
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.report.report_input import ReportInput


def report(
    result: Annotated[list[str], typer.Argument(metavar="RESULT...", help="Result folders or scenario names.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where reports are written.")] = Path("reports"),
    html: Annotated[bool, typer.Option("--html", help="Write HTML only, unless --pdf is given too.")] = False,  # noqa: FBT002
    pdf: Annotated[bool, typer.Option("--pdf", help="Write PDF only, unless --html is given too.")] = False,  # noqa: FBT002
    results: ResultsDir = RESULTS,
) -> None:
    """Write a report that opens offline: one HTML file and one PDF for each result; none if a name is wrong."""
    inputs = _report_inputs(result, results)
    for folder, given in inputs.items():
        write_json(folder / "summary.json", to_json(given.summary))
    both = html == pdf
    for path in write_report(list(inputs.values()), out, html=html or both, pdf=pdf or both):
        typer.echo(str(path))


def _report_inputs(names: Sequence[str], results: Path) -> dict[Path, ReportInput]:
    """Find and summarise every result that was named, each once, before anything is written.

    Raises:
        ResultError: some of them cannot be; the message tells all of these.

    """
    inputs: dict[Path, ReportInput] = {}
    faults = []
    for name in names:
        try:
            folder = find_result(name, results, tell)
            inputs[folder] = inputs.get(folder) or read_result.read(folder)
        except ResultError as fault:
            faults.append(fault)
    if faults:
        wrong = "; ".join(fault.message for fault in faults)
        spared = f"; no report was written for the other {len(names) - len(faults)}" if len(names) > len(faults) else ""
        raise ResultError(wrong + spared, faults[0].remedy)
    return inputs
