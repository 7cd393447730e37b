"""What stands in a report and in the terminal in place of the proof, where another tool measured: there is none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.records import sum_of_all
from kvbench.report.grid import Cell, Column, Grid, line, percent

if TYPE_CHECKING:
    from rich.console import Console

_HEADINGS = ("Runs", "Answered", "Failed", "Prompt tokens", "Cached tokens", "Hit rate")


def origin(summary: dict[str, Any]) -> str:
    """Name the export that a result was made from."""
    about = summary["imported"]
    version = f" {about['tool_version']}" if about["tool_version"] else ", version not told"
    return f"{about['export']}{version}, {about['file']}"


def load(summary: dict[str, Any]) -> str:
    """Say how many requests were in flight, as far as one number tells it for all treatments."""
    known = summary["concurrency"]
    return f"concurrency {known}" if known is not None else "concurrency not told, or not the same in all treatments"


def asked(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Give in short what was measured, in place of what was asked for."""
    started = sorted(run["started"] for run in summary["runs"] if run["started"] is not None)
    return [
        ("Imported from", origin(summary)),
        ("Model", str(summary["model"] or "not told")),
        ("Load", load(summary)),
        ("Cache", "state unknown, no tier proven"),
        ("Measured", f"{started[0][:19].replace('T', ' ')} UTC" if started else "not told"),
    ]


def grid(summary: dict[str, Any]) -> Grid:
    """Count for each treatment what was answered, what failed and why, and what the server says that it reused."""
    columns = (Column("Treatment", "name"), *(Column(heading) for heading in _HEADINGS))
    lines = []
    for name, cells in _counts(summary).items():
        failed = Cell(cells[2], mark="" if cells[2] == "0" else "suspect")
        lines.append(line(Cell(name, mark="key"), *cells[:2], failed, *cells[3:]))
    return Grid(columns, tuple(lines))


def _counts(summary: dict[str, Any]) -> dict[str, list[str]]:
    counted = {}
    for name in summary["treatments"]:
        runs = [run for run in summary["runs"] if run["treatment"] == name]
        causes: Counter[str] = Counter()
        for run in runs:
            causes.update(run["failures"])
        ledgers = [run["ledger"] for run in runs]
        prompt, cached = (sum_of_all(one[key] for one in ledgers) for key in ("prompt_tokens", "cached_tokens"))
        counted[name] = [
            str(len(runs)),
            str(sum(run["ok"] for run in runs)),
            ", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "0",
            "not reported" if prompt is None else f"{prompt:,}",
            "not reported" if cached is None else f"{cached:,}",
            "not known" if cached is None or not prompt else percent(cached / prompt),
        ]
    return counted


def print_imported(summary: dict[str, Any], console: Console) -> None:
    """Print the counts of each treatment, and what the export lacks."""
    title = "Imported: no cache state was controlled, no tier is proven"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("treatment", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading.lower(), justify="right")
    for name, cells in _counts(summary).items():
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"imported from the {origin(summary)}; it lacks:", highlight=False, markup=False)
    for sentence in summary["imported"]["missing"]:
        console.print(Text(f"  {sentence}", style="dim"))
