"""The table of a calibration, and what a result says about the calibration attached to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.text import failures_text
from kvbench.result.calibration import least_n, worst_error_s
from kvbench.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvbench.analysis.summary_types import Summary
    from kvbench.report.report_input import ReportInput
    from kvbench.result.calibration_record import CalibrationCell, Spread


def client_error(given: ReportInput) -> Table | None:
    """Return the attached calibration's cells that come nearest to the load; None where none is attached."""
    attached = given.summary.calibration
    return None if attached is None else calibration_table(attached.cells)


def calibration_table(cells: Sequence[CalibrationCell]) -> Table:
    """Return one row for each cell of a calibration: its errors, and what the client and the server spent."""
    busy = any(cell.machine != "idle" for cell in cells)
    has_start = any(cell.start_s is not None for cell in cells)
    columns = (
        Column("driver", "Driver", kind="name", is_key=True),
        *((Column("machine", "Machine", kind="text", is_key=True),) if busy else ()),
        Column("connections", "Conn.", "count", is_key=True),
        Column("prompt_tokens", "Tokens", "length", is_key=True),
        Column("n", "n", "count"),
        Column("error_p50", "Error P50", "s", "lower"),
        Column("error_p90", "Error P90", "s", "lower"),
        Column("error_p99", "Error P99", "s", "lower"),
        Column("error_max", "Error maximum", "s", "lower"),
        Column("upper_bounds", "Upper bounds", "share", "lower"),
        Column("over_server_p50", "Over server P50", "s", "lower"),
        Column("over_server_p99", "Over server P99", "s", "lower"),
        Column("over_server_max", "Over server maximum", "s", "lower"),
        Column("client_cpu", "Client CPU", "share", "lower"),
        Column("server_cpu", "Server CPU", "share", "lower"),
        Column("achieved", "Requests/s", "1/s", "higher"),
        Column("of_offered", "Of offered", "share", "higher"),
        *((Column("start", "Start", "s", "lower"),) if has_start else ()),
    )
    rows = tuple(_row(cell, busy=busy, has_start=has_start) for cell in cells)
    return Table("client_error", "Error of the client", columns, rows, tuple(_notes(cells)))


def _notes(cells: Sequence[CalibrationCell]) -> list[str]:
    notes = [
        "Error: first token as the driver saw it minus the instant at which the server wrote it.",
        "Every answered request is in. Over server: TTFT minus the server's own time. CPU: shares of one core.",
    ]
    if any(cell.n and cell.error_s.p99 is None for cell in cells):
        p90, p99 = least_n("p90"), least_n("p99")
        notes.append(f"A P90 needs n >= {p90}, a P99 n >= {p99}; with fewer the maximum stands for it.")
    return notes


def _row(cell: CalibrationCell, *, busy: bool, has_start: bool) -> Row:
    error, over = cell.error_s, cell.over_server_s
    of_offered = cell.achieved_rps / cell.offered_rps if cell.achieved_rps and cell.offered_rps else None
    return row(
        Cell(cell.driver, mark="key"),
        *((cell.machine,) if busy else ()),
        cell.connections,
        cell.prompt_tokens,
        cell.n,
        *(_order(error, name) for name in ("p50", "p90", "p99", "max")),
        cell.upper_share,
        *(_order(over, name) for name in ("p50", "p99", "max")),
        _of_one_core(cell.client_cpu_s, cell.measured_s),
        _of_one_core(cell.server_cpu_s, cell.measured_s),
        cell.achieved_rps,
        of_offered,
        *((cell.start_s,) if has_start else ()),
    )


def _order(spread: Spread, name: str) -> Cell:
    """Return one order statistic, or why n does not support it."""
    value: float | None = getattr(spread, name)
    if value is not None:
        return Cell(value)
    return Cell(refusal=f"n/a (n={spread.n} < {least_n(name)})" if spread.n else None, mark="quiet")


def _of_one_core(cpu_s: float | None, measured_s: float) -> float | None:
    return cpu_s / measured_s if cpu_s is not None and measured_s else None


def troubles(cells: Sequence[CalibrationCell]) -> Iterator[str]:
    """Yield what went wrong in each cell: requests that failed, and answers without the server's stamp."""
    for cell in cells:
        place = f"{cell.driver}, {cell.connections} connections, {format_count(cell.prompt_tokens)} tokens"
        if cell.failed:
            yield f"failed: {cell.failed} of {place}: {failures_text(cell.failures)}"
        if cell.without_server_stamp:
            yield (
                f"{cell.without_server_stamp} answers of {place} carried no stamp of the server: they are in no figure"
            )


# -- in a sentence -----------------------------------------------------------------------------------------------------


def not_attached(driver: str) -> str:
    """Say that a result carries no calibration, and which command makes one for its driver."""
    return f"no calibration of this host and driver is attached: run kvbench calibrate --driver {driver}"


def sentence(summary: Summary) -> str:
    """Say in one line how wrong the client is, by the calibration that is attached to a result."""
    attached = summary.calibration
    if attached is None:
        return not_attached(summary.driver)
    error_s, name = worst_error_s(attached)
    connections = sorted({cell.connections for cell in attached.cells})
    wanted = sorted({count for count in summary.concurrencies.values() if count is not None})
    nearest = "" if connections == wanted else f", the nearest to {_listed(wanted)}"
    counts = " and ".join(str(cell.n) for cell in attached.cells)
    plural = "s" if connections != [1] else ""
    where = f"calibrated {attached.made[:10]}, {attached.driver}, {_listed(connections)} connection{plural}{nearest}"
    return f"client error ({where}): {name} {error_s * 1e3:.3g} ms; n = {counts}"


def _listed(counts: Sequence[int]) -> str:
    return " and ".join(map(str, counts))
