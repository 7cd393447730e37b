"""What each side client did at each level, over all runs that are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row

if TYPE_CHECKING:
    from kvbench.analysis.neighbor_types import SideClientSummary
    from kvbench.report.report_input import ReportInput


def side_clients(given: ReportInput) -> Table | None:
    """Return one row for each side client of each level; None without neighbours."""
    impact = given.summary.neighbors
    if impact is None:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("host", "Side client", kind="name", is_key=True),
        Column("runs", "Runs", "count"),
        Column("delivered_bytes_per_s", "Delivered", "bytes/s"),
        Column("coverage", "Least coverage", "share"),
        Column("clock_error", "Clock error", "s", "lower"),
        Column("device_bytes_per_s", "Its device counted", "bytes/s"),
        Column("device", "Device", kind="text"),
        Column("direct", "O_DIRECT", kind="text"),
        Column("scheduler", "Scheduler", kind="text"),
        Column("version", "Generator", kind="text"),
    )
    before = [None, *(one.treatment for one in impact.hosts)]
    rows = tuple(_row(one, is_first=one.treatment != last) for one, last in zip(impact.hosts, before, strict=False))
    notes = (
        "Means over runs that are used; the clock error is the largest.",
        "Coverage: the least share of a window at 90 % of the target.",
        (
            "The device counter is the host's own: side clients on one disk see the bytes of all of them, and a device"
            " marked shared is in the server's own machine and holds its bytes too."
        ),
    )
    return Table("side_clients", "Side clients", columns, rows, notes)


def _row(client: SideClientSummary, *, is_first: bool) -> Row:
    facts = (client.direct, client.scheduler, client.version)
    known = [None if value is None else str(value) for value in facts]
    return row(
        Cell(client.treatment, mark="key" if is_first else "repeated"),
        client.host,
        client.runs,
        Cell(client.delivered_bytes_per_s),
        Cell(client.coverage),
        Cell(client.clock_error_s),
        Cell(client.device_bytes_per_s),
        client.device + (", shared" if client.device_shared_with_server else ""),
        *(Cell(value, refusal="not known" if value is None else None) for value in known),
        mark="begin" if is_first else "",
    )
