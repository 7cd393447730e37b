from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.report import read_result
from kvbench.report.tables.treatments import treatments as treatments_table
from tests.analysis.test_summary import GROUPS
from tests.builders.results import Case, build
from tests.builders.screens import shown_table
from tests.report.tables.shown import texts

if TYPE_CHECKING:
    from pathlib import Path


def test_what_starts_a_group_at_another_concurrency_shows_no_change(tmp_path: Path) -> None:
    """Its change would be that of the load."""
    case = Case(treatments=GROUPS, baseline="base_1", lengths=["10k"], repeats=3, published=None)
    table = treatments_table(read_result.read(build(case, tmp_path)))
    changes = {row["treatment"]: row["user_rate_change"] for row in texts(table)}
    assert [name for name, text in changes.items() if text == "\u2013"] == ["base_1", "base_4"]


def test_a_narrow_matrix_has_every_figure_in_two_parts(tmp_path: Path) -> None:
    """A cut-off cell could lose its unit: "1.20 s" and "1.20 ms" would look the same."""
    treatments: dict[str, Any] = {
        f"recompute_beside_{number}": {"cache": "off", "concurrency": number, "against": "recompute"}
        for number in (4, 8, 16)
    }
    treatments["recompute"] = {"cache": "off", "concurrency": 1}
    folder = build(Case(treatments=treatments, repeats=3, published=None), tmp_path)
    table = treatments_table(read_result.read(folder))
    assert table is not None
    wide, narrow = shown_table(table, 220), shown_table(table, 80)
    assert "continued" in narrow
    assert "continued" not in wide
    assert max(map(len, narrow.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in narrow
    for row in texts(table):
        assert all(word in narrow for text in row.values() for word in text.split())
