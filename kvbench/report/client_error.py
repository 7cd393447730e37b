"""The instrument's own error, shown: a calibration's table, and what a result says of the one attached to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.calibration import PERCENTILES, least_n, worst_error_s
from kvbench.report.grid import NOTHING, Cell, Column, Grid, line, percent
from kvbench.result.calibration_record import CalibrationExcerpt
from kvbench.typed_json import from_json
from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

_ORDER = ("p50", "p90", "p99", "max")


def print_calibration(made: dict[str, Any], console: Console) -> None:
    """Print a calibration: for each cell its errors, and what the client and the server spent."""
    cells = made["cells"]
    error = "Client error in microseconds: first token as the driver saw it minus the server's stamp"
    console.print(_table(error, ("n", *_ORDER, "upper\nbounds"), cells, _error_cells))
    spent = "What it cost: TTFT over the server's own time in microseconds, shares of one core"
    headings = ("over\np50", "over\np99", "client\nCPU", "server\nCPU", "req/s", "of\noffered", "start\ns")
    console.print(_table(spent, headings, cells, _cost_cells))
    if any(cell["n"] and None in (cell["error_s"][name] for name in PERCENTILES) for cell in made["cells"]):
        console.print(f"n/a: {needed_text()}; the maximum stands for it", style="dim")
    for cell in made["cells"]:
        if cell["failed"]:
            causes = ", ".join(f"{count} {cause}" for cause, count in cell["failures"].items())
            console.print(Text(f"failed: {cell['failed']} of {_place(cell)}: {causes}", style="red"))
        if cell["without_server_stamp"]:
            missing = f"{cell['without_server_stamp']} answers of {_place(cell)} carried no stamp of the server"
            console.print(Text(f"{missing}: they are in no figure", style="yellow"))


def _table(
    title: str,
    headings: Sequence[str],
    cells: list[dict[str, Any]],
    figures: Callable[[dict[str, Any]], list[str]],
) -> Table:
    """Lay out one row for each cell: its place, then its figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    busy = any(cell["machine"] != "idle" for cell in cells)
    table.add_column("driver", no_wrap=True)
    for heading in (*(["machine"] if busy else []), "conn.", "tokens", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in cells:
        place = [cell["driver"], *([cell["machine"]] if busy else []), str(cell["connections"])]
        table.add_row(*place, format_count(cell["prompt_tokens"]), *figures(cell))
    return table


def _error_cells(cell: dict[str, Any]) -> list[str]:
    return [str(cell["n"]), *(microseconds(cell["error_s"], name) for name in _ORDER), _share(cell["upper_share"])]


def _cost_cells(cell: dict[str, Any]) -> list[str]:
    return [
        microseconds(cell["over_server_s"], "p50"),
        microseconds(cell["over_server_s"], "p99"),
        _share(cpu_share(cell, "client_cpu_s")),
        _share(cpu_share(cell, "server_cpu_s")),
        "-" if cell["achieved_rps"] is None else f"{cell['achieved_rps']:.1f}",
        _share(_of_offered(cell)),
        "-" if cell["start_s"] is None else f"{cell['start_s']:.3f}",
    ]


def cpu_share(cell: dict[str, Any], side: str) -> float | None:
    """Return the processor time of one side as a share of one core, from the first send to the last token."""
    return cell[side] / cell["measured_s"] if cell[side] is not None and cell["measured_s"] else None


def _of_offered(cell: dict[str, Any]) -> float | None:
    """Return the achieved rate as a share of what a client without cost of its own would reach."""
    return cell["achieved_rps"] / cell["offered_rps"] if cell["achieved_rps"] and cell["offered_rps"] else None


def microseconds(figures: dict[str, Any], name: str) -> str:
    """Write one order statistic in whole microseconds; say why there is none."""
    if figures[name] is not None:
        return f"{figures[name] * 1e6:,.0f}"
    return "n/a" if figures["n"] else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}" if value < 0.095 else f"{value:.0%}"


def needed_text() -> str:
    """Say how many requests the percentiles of a calibration need."""
    return "a p90 needs n >= {}, a p99 n >= {}".format(*(least_n(name) for name in ("p90", "p99")))


def _place(cell: dict[str, Any]) -> str:
    return f"{cell['driver']}, {cell['connections']} connections, {format_count(cell['prompt_tokens'])} tokens"


# -- in a result ------------------------------------------------------------------------------------------------------


def not_attached(driver: str) -> str:
    """Say that a result carries no calibration, and which command makes one for its driver."""
    return f"no calibration of this host and driver is attached: run kvbench calibrate --driver {driver}"


def sentence(summary: dict[str, Any]) -> str:
    """Say in one line how wrong the client is, by the calibration that is attached to a result."""
    told = summary.get("calibration")
    if told is None:
        return not_attached(summary.get("driver", "native"))
    error_s, name = worst_error_s(from_json(CalibrationExcerpt, told, "the calibration"))
    connections = sorted({cell["connections"] for cell in told["cells"]})
    asked = sorted(set(summary["concurrencies"].values()))
    nearest = "" if connections == asked else f", the nearest to {_listed(asked)}"
    rows = " and ".join(str(cell["n"]) for cell in told["cells"])
    plural = "s" if connections != [1] else ""
    where = f"calibrated {told['made'][:10]}, {told['driver']}, {_listed(connections)} connection{plural}{nearest}"
    return f"client error ({where}): {name} {error_s * 1e3:.3g} ms; n = {rows}"


def _listed(counts: Sequence[int]) -> str:
    return " and ".join(map(str, counts))


def calibration_grid(summary: dict[str, Any]) -> Grid | None:
    """Show the attached calibration's cells that come nearest to the scenario; None where none is attached."""
    told = summary.get("calibration")
    if told is None:
        return None
    columns = (
        Column("Connections"),
        Column("Prompt tokens"),
        Column("n"),
        *(Column(f"Error {name}") for name in _ORDER),
        Column("Upper bounds"),
        Column("TTFT over the server's own, p50"),
        Column("max"),
    )
    return Grid(columns, tuple(_grid_line(cell) for cell in told["cells"]))


def _grid_line(cell: dict[str, Any]) -> Any:
    errors, over = cell["error_s"], cell["over_server_s"]
    return line(
        str(cell["connections"]),
        format_count(cell["prompt_tokens"]),
        str(cell["n"]),
        *(_refused(cell, name) if errors[name] is None else _duration(errors[name]) for name in _ORDER),
        NOTHING if cell["upper_share"] is None else percent(round(cell["upper_share"], 4)),
        _duration(over["p50"]),
        _duration(over["max"]),
    )


def _refused(cell: dict[str, Any], name: str) -> Cell:
    return Cell("n/a", f"n = {cell['n']} < {least_n(name)}", "quiet")


def _duration(seconds: float) -> str:
    """Write a difference of two clocks, which may be below zero."""
    return f"-{format_duration(-seconds)}" if seconds < 0 else format_duration(seconds)
