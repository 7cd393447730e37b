"""Lists every table of a result: its name, what makes it, and where it is shown; terminal and page loop over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvbench.errors import OptionError
from kvbench.report.tables.client import client
from kvbench.report.tables.client_error import client_error
from kvbench.report.tables.imported import imported
from kvbench.report.tables.metrics import metrics
from kvbench.report.tables.neighbor_load import neighbor_load
from kvbench.report.tables.neighbors import neighbors
from kvbench.report.tables.open_loop import open_loop
from kvbench.report.tables.proof import proof
from kvbench.report.tables.published import published
from kvbench.report.tables.published_neighbors import published_neighbors
from kvbench.report.tables.runs import runs
from kvbench.report.tables.setup import setup
from kvbench.report.tables.side_clients import side_clients
from kvbench.report.tables.steps import steps
from kvbench.report.tables.treatments import treatments
from kvbench.report.tables.ttft_by_length import ttft_by_length
from kvbench.report.tables.ttft_full_scale import ttft_full_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvbench.report.report_input import ReportInput
    from kvbench.report.table import Table

Section = Literal["neighbors", "figures", "imported", "proof", "runs", "client", ""]
"""A section of the page; "" for a table that the page shows in another form."""
SECTIONS: tuple[Section, ...] = ("neighbors", "figures", "imported", "proof", "runs", "client")


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table: its name, the function that makes it (None where a result has nothing for it), and its places."""

    name: str
    make: Callable[[ReportInput], Table | None]
    section: Section = ""
    in_terminal: bool = False


TABLES: tuple[TableEntry, ...] = (
    TableEntry("neighbors", neighbors, "neighbors", in_terminal=True),
    TableEntry("neighbor_load", neighbor_load, "neighbors", in_terminal=True),
    TableEntry("published_neighbors", published_neighbors, "neighbors"),
    TableEntry("side_clients", side_clients, "neighbors"),
    TableEntry("ttft_by_length", ttft_by_length, "figures", in_terminal=True),
    TableEntry("ttft_full_scale", ttft_full_scale, "figures", in_terminal=True),
    TableEntry("treatments", treatments, "figures", in_terminal=True),
    TableEntry("metrics", metrics, "figures", in_terminal=True),
    TableEntry("open_loop", open_loop, "figures", in_terminal=True),
    TableEntry("published", published, "figures", in_terminal=True),
    TableEntry("imported", imported, "imported", in_terminal=True),
    TableEntry("proof", proof, "proof", in_terminal=True),
    TableEntry("steps", steps, "proof"),
    TableEntry("runs", runs, "runs"),
    TableEntry("client", client, "client"),
    TableEntry("client_error", client_error, "client"),
    TableEntry("setup", setup),
)


def tables_of(given: ReportInput, *, in_terminal: bool = False, section: Section = "") -> Iterator[Table]:
    """Yield what a result has a table for, in the order of the list: of the terminal, of a section, or all."""
    for entry in TABLES:
        is_asked_for = entry.in_terminal if in_terminal else section in ("", entry.section)
        if is_asked_for and (table := entry.make(given)) is not None:
            yield table


def table_named(name: str, given: ReportInput) -> Table:
    """Return one table.

    Raises:
        OptionError: there is no table of this name, or the result has nothing for it.

    """
    entry = next((entry for entry in TABLES if entry.name == name), None)
    if entry is None:
        raise OptionError(f"there is no table {name}", f"Name one of {', '.join(one.name for one in TABLES)}.")
    table = entry.make(given)
    if table is None:
        names = ", ".join(one.name for one in tables_of(given))
        raise OptionError(f"{given.summary.scenario} has nothing for the table {name}", f"Name one of {names}.")
    return table
