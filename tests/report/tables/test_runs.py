from __future__ import annotations

from dataclasses import replace

from kvbench.report.tables.client import client
from kvbench.report.tables.imported import imported, origin
from kvbench.report.tables.runs import runs
from kvbench.report.tables.setup import asked, groups, load_text, reproduction, setup
from kvbench.result.plan_record import OpenLoop, PlannedRun
from kvbench.result.verdict import Reason
from tests.builders import summaries
from tests.builders.report_inputs import report_input, request
from tests.report.tables.shown import cells, texts


def test_planned_runs_are_all_there_and_an_invalid_one_is_struck() -> None:
    reason = Reason("invalid", "failures", "3 requests failed", "Look at the log.")
    given = report_input(summaries.summary(runs=(summaries.run(verdict="invalid", reasons=(reason,), ok=17),)))
    plan = replace(given.plan, runs=(*given.plan.runs, PlannedRun("r2-warm", "warm", 2)))
    given = replace(given, plan=plan)
    table = runs(given)
    first, second = texts(table)
    assert first["reasons"] == "left out of all figures. invalid: 3 requests failed"
    assert (first["answered"], first["requests"]) == ("17", "20")
    assert table.rows[0].mark == "struck"
    assert second["verdict"] == "not done"
    assert cells(table)[1]["answered"].value is None


def test_the_client_is_measured_over_answered_requests() -> None:
    requests = [request(send_lag_s=1e-3), request(send_lag_s=3e-3), request(status="timeout", send_lag_s=9.0)]
    requests += [request(ttft_bound="upper", send_lag_s=2e-3, receive_lag_s=None)]
    off, warm = cells(client(report_input(requests=requests)))
    assert warm["send_lag_median"].value == 2e-3
    assert warm["send_lag_max"].value == 3e-3
    assert warm["upper_bounds"].value == 1 / 3
    assert warm["overrun"].value == 2.42e-5 / 0.0242
    assert off["send_lag_median"].refusal == "not known"
    assert off["overrun"].refusal == "not reported"


def test_an_import_is_counted_as_its_tool_reports_it() -> None:
    assert imported(report_input()) is None
    unknown = summaries.ledger(cached_tokens=None)
    about = {"export": "AIPerf's records", "tool_version": None, "file": "profile.jsonl", "missing": ["the cache"]}
    run = summaries.run(failures={"timeout": 2}, ok=18, ledger=unknown)
    one = summaries.summary(imported=about, runs=(run,), treatments={"warm": summaries.treatment()})
    (row,) = texts(imported(report_input(one)))
    assert row["failed"] == "2 timeout"
    assert row["cached_tokens"] == "not reported"
    assert row["hit_rate"] == "not known"
    assert origin(one) == "AIPerf's records, version not known, profile.jsonl"


def test_the_setup_has_every_group_of_facts() -> None:
    given = report_input()
    assert [title for title, _ in groups(given)] == ["Result", "Software", "Server of run r1-recompute", "Host"]
    assert ("memory", "64 GB (64,000,000,000 B)") in groups(given)[3][1]
    assert texts(setup(given))[0] == {"group": "Result", "fact": "scenario", "value": "tiers"}
    assert ("Load", "native driver, concurrency 1") in asked(given)
    assert reproduction(given) == ("tiers.yaml", "kvbench run tiers.yaml", "")


def test_the_load_names_the_rates_of_open_loops() -> None:
    one = summaries.summary(open_loops={"warm": OpenLoop(5.0, "poisson")}, concurrencies={"warm": 8, "recompute": 1})
    assert load_text(one) == "open loop, requests due at 5/s poisson for warm, at most concurrency 1, 8"
