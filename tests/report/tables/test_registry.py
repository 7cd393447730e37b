from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from kvbench.errors import OptionError
from kvbench.report.render import FORMATS
from kvbench.report.render.to_html import to_html
from kvbench.report.render.to_rich import to_rich
from kvbench.report.tables.registry import TABLES, table_named, tables_of
from kvbench.result.plan_record import Scale
from tests.builders import summaries
from tests.builders.report_inputs import report_input

if TYPE_CHECKING:
    from kvbench.report.table import Table

FULL = summaries.summary(
    treatments={
        "recompute": summaries.treatment(),
        "warm": summaries.treatment(open_loop=summaries.open_loop()),
        "noisy": summaries.treatment(),
    },
    concurrencies={"recompute": 1, "warm": 8, "noisy": 8},
    scale=Scale(100, 100),
    calibration=summaries.calibration(),
    published_table=summaries.published_table(),
    neighbors=summaries.neighbor_impact(),
)


def test_each_table_has_the_name_of_its_entry() -> None:
    given = report_input(FULL)
    made = {entry.name: entry.make(given) for entry in TABLES}
    assert {name for name, table in made.items() if table is None} == {"imported", "published_neighbors"}
    assert all(name == table.name for name, table in made.items() if table is not None)


@pytest.mark.parametrize("table", list(tables_of(report_input(FULL))), ids=lambda table: table.name)
def test_each_table_is_shown_in_every_form_and_fits(table: Table) -> None:
    assert to_html(table)
    assert all(form(table) for form in FORMATS.values())
    for width in (60, 80, 100, 160):
        written = io.StringIO()
        console = Console(width=width, file=written, color_system=None)
        for part in to_rich(table, width):
            console.print(part)
        assert max(map(len, written.getvalue().splitlines())) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in written.getvalue()


def test_columns_have_names_of_their_own() -> None:
    for table in tables_of(report_input(FULL)):
        names = [column.name for column in table.columns]
        assert len(names) == len(set(names)), table.name


def test_sections_and_the_terminal_show_what_their_entries_say() -> None:
    given = report_input()
    assert [table.name for table in tables_of(given, section="runs")] == ["runs"]
    assert [table.name for table in tables_of(given, in_terminal=True)] == ["ttft_by_length", "metrics", "proof"]


def test_a_table_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(OptionError, match="there is no table metric"):
        table_named("metric", report_input())
    with pytest.raises(OptionError, match="tiers has nothing for the table neighbors"):
        table_named("neighbors", report_input())
