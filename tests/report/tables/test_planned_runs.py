from __future__ import annotations

from kvbench.report.tables.planned_runs import planned_runs
from kvbench.scenario import plan
from tests.builders.worlds import make_scenario
from tests.report.tables.shown import cells


def test_a_row_for_each_run_with_what_it_sends() -> None:
    laid_out = plan.expand(make_scenario())
    table = planned_runs(laid_out, has_turns=False)
    assert [row["treatment"].value for row in cells(table)] == [run.treatment for run in laid_out.runs]
    assert {(row["requests"].value, row["prompt_tokens"].value) for row in cells(table)} == {(2, 3000)}
    assert table.notes == ()
    assert "conversations" in [column.name for column in planned_runs(laid_out, has_turns=True).columns]
