"""The commands `kvbench report` and `kvbench import`: write reports, and read results of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvbench.cli.options import RESULTS, ResultsDir, console, tell, write_summary
from kvbench.errors import ResultError

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
    from kvbench.report.html import write_report  # noqa: PLC0415
    from kvbench.result.files import write_json  # noqa: PLC0415
    from kvbench.typed_json import to_json  # noqa: PLC0415

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
    from kvbench.report import read_result  # noqa: PLC0415
    from kvbench.result.find import find_result  # noqa: PLC0415

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


def import_result(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file, or AIPerf's artifact folder.")],
    tool: Annotated[str, typer.Option("--from", metavar="TOOL", help="What wrote it: aiperf, guidellm, vllm, ...")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the result; by default from the path.")] = None,
    results: ResultsDir = RESULTS,
) -> None:
    """Make a result of what another tool measured, so that show and report can read it; nothing of it is proven."""
    from kvbench.importers import write_result as imports  # noqa: PLC0415
    from kvbench.report import terminal  # noqa: PLC0415

    folder = imports.import_result(tool, path, results, name)
    terminal.print_summary(write_summary(folder), console())
    typer.echo(str(folder))
