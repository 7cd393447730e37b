"""The summary's arithmetic, on runs whose figures are known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kvbench.report.typed_summary import typed

from kvbench import summary
from kvbench.errors import ResultError
from kvbench.publications import library
from kvbench.report import html, material, typed_summary
from kvbench.report.remarks import time_series_sentences
from kvbench.report.tables.setup import load_text
from kvbench.report.tables.treatments import treatments as treatments_table
from kvbench.report.tables.ttft_by_length import ttft_by_length
from kvbench.report.tables.ttft_full_scale import ttft_full_scale
from kvbench.result.files import read_json, write_json
from kvbench.result.folder import ResultFolder, RunFolder
from kvbench.result.rows import read_rows
from tests.builders.results import Case, build
from tests.builders.screens import shown_summary, shown_table
from tests.builders.worlds import make_scenario
from tests.experiment.test_run import FakeTestbed, execute
from tests.report.tables.shown import texts

if TYPE_CHECKING:
    from pathlib import Path


def rewrite(result: ResultFolder, run_id: str, times: list[float]) -> None:
    """Give the measured requests of a run these TTFTs, in the order of their prompts' lengths."""
    folder = RunFolder(result.path / "runs" / run_id, 1)
    rows, record = read_rows(folder.path), read_json(folder.path / "run.json")
    given = dict(zip((1000, 2000), times, strict=True))
    journal = folder.open_journal()
    for row in rows:
        journal.append(replace(row, ttft_s=given[row.isl_target or 0]) if row.phase == "measure" else row)
    journal.close()
    tiers = {row.request_id: (row.tier or "unproven", "") for row in rows if row.phase == "measure"}
    folder.seal({k: v for k, v in record.items() if k not in ("attempt", "requests")}, tiers)


@pytest.fixture
def result(tmp_path: Path) -> ResultFolder:
    scenario = make_scenario(published="ibm-storage-scale/benchmark-1", repeats=3)
    made = execute(scenario, FakeTestbed(tmp_path / "tier"), tmp_path)
    for repeat, (off, warm) in enumerate(
        [([1.0, 4.0], [0.5, 0.1]), ([1.2, 5.0], [0.4, 0.1]), ([1.1, 6.0], [0.5, 0.2])], 1
    ):
        rewrite(made, f"r{repeat:02d}-recompute", off)
        rewrite(made, f"r{repeat:02d}-g4", warm)
    return made


def cells(result: ResultFolder) -> list[dict[str, Any]]:
    return [row["cells"] for row in summary.summarise(result.path)["lengths"]]


def test_median_and_spread_with_their_n(result: ResultFolder) -> None:
    short, long = cells(result)
    assert {k: short["recompute"][k] for k in ("n", "median_s", "min_s", "max_s")} == {
        "n": 3,
        "median_s": 1.1,
        "min_s": 1.0,
        "max_s": 1.2,
    }
    assert long["g4"]["median_s"] == 0.1


def test_speed_up_is_paired_by_round_with_an_interval_over_rounds(result: ResultFolder) -> None:
    """Rounds 4.0 / 0.1, 5.0 / 0.1, 6.0 / 0.2: mean of logs 3.6674, sd 0.25609, t(2) = 4.302653."""
    _, long = cells(result)
    assert long["g4"]["speed_up"] == pytest.approx((40 * 50 * 30) ** (1 / 3))
    reach = math.exp(4.302653 * 0.25609 / math.sqrt(3))
    assert long["g4"]["speed_up_low"] == pytest.approx(long["g4"]["speed_up"] / reach, rel=1e-3)
    assert long["g4"]["speed_up_high"] == pytest.approx(long["g4"]["speed_up"] * reach, rel=1e-3)
    assert long["g4"]["speed_up_rounds"] == 3
    found = long["g4"]["comparison"]
    assert (found["least"], found["most"]) == (pytest.approx(30), pytest.approx(50))
    assert found["word"] == "faster"
    assert long["recompute"]["speed_up"] is None
    assert long["recompute"]["comparison"] is None


def test_holm_counts_every_length_against_the_baseline(result: ResultFolder) -> None:
    found = [cell["g4"]["comparison"] for cell in cells(result)]
    plain = sorted(one["p_value"] for one in found)
    assert sorted(one["p_holm"] for one in found) == pytest.approx([2 * plain[0], max(2 * plain[0], plain[1])])


def test_two_rounds_give_a_ratio_and_no_interval(tmp_path: Path) -> None:
    made = execute(make_scenario(repeats=2), FakeTestbed(tmp_path / "tier"), tmp_path)
    for repeat in (1, 2):
        rewrite(made, f"r{repeat:02d}-recompute", [1.0, 4.0])
        rewrite(made, f"r{repeat:02d}-g4", [0.5, 0.1])
    _, long = cells(made)
    assert (long["g4"]["speed_up"], long["g4"]["speed_up_low"]) == (pytest.approx(40), None)
    assert long["g4"]["comparison"]["refusal"] == "n/a (rounds=2 < 3)"
    assert long["g4"]["comparison"]["rounds_needed"] is None
    assert long["g4"]["rank"]["sentence"].startswith("all 2 of g4 are below all 2 of recompute; so few values cannot")


def test_a_cell_refuses_what_its_n_cannot_support(result: ResultFolder) -> None:
    short, _ = cells(result)
    figures = short["recompute"]["ttft"]
    assert (figures["p50"]["value"], figures["p50"]["refusal"]) == (1.1, "n/a (n=3 < 5)")
    assert (figures["p95"]["value"], figures["p95"]["refusal"]) == (None, "n/a (n=3 < 59)")
    assert (figures["p99"]["value"], figures["p99"]["refusal"]) == (None, "n/a (n=3 < 299)")


def test_two_treatments_of_one_definition_are_the_noise_floor(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    scenario = make_scenario(treatments=treatments, repeats=3)
    made = execute(scenario, FakeTestbed(tmp_path / "tier"), tmp_path)
    for repeat, again in enumerate([1.0, 1.3, 0.9], 1):
        rewrite(made, f"r{repeat:02d}-recompute", [1.0, 1.0])
        rewrite(made, f"r{repeat:02d}-again", [again, again])
        rewrite(made, f"r{repeat:02d}-g4", [0.90 + 0.001 * repeat, 0.2])
    summed = summary.summarise(made.path)
    short, long = (row["cells"] for row in summed["lengths"])
    assert summed["same_pairs"] == [("recompute", "again")]
    floor = short["g4"]["comparison"]["noise_floor"]
    assert floor > 1.3  # the farther end of the A/A interval
    assert short["g4"]["comparison"]["low"] > 1
    assert short["g4"]["comparison"]["word"] == "no difference shown"  # 1.11x is within the floor
    assert "differs from itself" in short["g4"]["comparison"]["reason"]
    assert long["g4"]["comparison"]["word"] == "faster"
    assert long["again"]["comparison"]["word"] == "no difference shown"


def test_slo_attainment_counts_a_scale_models_times_at_full_scale(tmp_path: Path) -> None:
    made = execute(make_scenario(slo={"ttft": "1s"}, repeats=1), FakeTestbed(tmp_path / "tier"), tmp_path)
    rewrite(made, "r01-g4", [0.124, 0.126])  # times 8: 0.992 s and 1.008 s
    assert summary.summarise(made.path)["treatments"]["g4"]["slo_attainment"] == 0.5


def test_full_scale_stands_beside_and_never_instead(result: ResultFolder) -> None:
    short, _ = cells(result)
    assert short["recompute"]["median_s"] == 1.1
    assert short["recompute"]["full_scale_median_s"] == pytest.approx(8.8)


def test_published_figures_are_held_against_the_scaled_curve(result: ResultFolder) -> None:
    short, _ = cells(result)
    assert short["g4"]["published_s"] == pytest.approx(0.1616 + 3.1417e-6 * 1000)
    assert short["g4"]["published_kind"] == "derived"
    assert short["g4"]["published_ratio"] == pytest.approx(0.5 / (short["g4"]["published_s"] / 8))


def test_an_invalid_run_leaves_no_trace_in_the_figures(result: ResultFolder) -> None:
    path = result.path / "runs" / "r02-g4"
    record = read_json(path / "run.json")
    record["cache"]["steps"].append({"name": "prove warm", "outcome": "failed", "evidence": "it was not"})
    write_json(path / "run.json", record)
    summed = summary.summarise(result.path)
    cell = summed["lengths"][0]["cells"]["g4"]
    assert cell["n"] == 2
    assert cell["speed_up_rounds"] == 2
    assert summed["verdict"] == "invalid"
    assert (summed["treatments"]["g4"]["runs_used"], summed["treatments"]["g4"]["runs"]) == (2, 3)


def test_the_share_of_failed_requests_is_of_all_that_were_sent(tmp_path: Path) -> None:
    """All four requests of the g4 runs are in the share, though the run that failed one is invalid and not used."""
    build(Case(lengths=["10k", "130k"], repeats=2, failing=("r01-g4",)), tmp_path)
    summed = summary.summarise(next(tmp_path.glob("*/*")))
    item = summed["treatments"]["g4"]
    assert (item["runs_used"], item["requests"], item["sent"], item["failures"]) == (1, 2, 4, {"cut": 1})
    assert item["sent"] == 4


GROUPS = {
    "base_1": {"cache": "off", "concurrency": 1},
    "g4_1": {"cache": {"warm": "g4"}, "concurrency": 1, "against": "base_1"},
    "base_4": {"cache": "off", "concurrency": 4},
    "g4_4": {"cache": {"warm": "g4"}, "concurrency": 4, "against": "base_4"},
}


def test_what_starts_a_group_at_another_concurrency_has_no_change(tmp_path: Path) -> None:
    """Its change would be that of the load; where nothing is compared with it, the load is the question."""
    case = Case(treatments=GROUPS, baseline="base_1", lengths=["10k"], repeats=3, published=None)
    summed = summary.summarise(build(case, tmp_path))
    assert summed["baselines"] == {"base_1": None, "g4_1": "base_1", "base_4": None, "g4_4": "base_4"}
    table = treatments_table(typed_summary.read(next(tmp_path.glob("*/*"))))
    changes = {row["treatment"]: row["user_rate_change"] for row in texts(table)}
    assert [name for name, text in changes.items() if text == "\u2013"] == ["base_1", "base_4"]
    assert not any(summed["treatments"]["base_4"]["comparisons"].values())
    sweep = Case(treatments={**GROUPS, "g4_4": {**GROUPS["g4_4"], "against": "g4_1"}}, baseline="base_1")
    other = summary.summarise(build(replace(sweep, name="sweep", lengths=["10k"], published=None), tmp_path))
    assert other["baselines"]["base_4"] == "base_1"
    assert other["treatments"]["base_4"]["comparisons"]["ttft_mean"]["ratio"] is not None


def test_turns_stand_beside_their_lengths(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}}
    turns = {"count": 3, "new_tokens": 2000}
    case = Case(treatments=treatments, lengths=["10k"], per_length=2, turns=turns, repeats=3, published=None)
    folder = build(case, tmp_path)
    summed = summary.summarise(folder)
    assert [(row["isl"], row["turn"]) for row in summed["lengths"]] == [(10_000, 0), (12_008, 1), (14_016, 2)]
    one = material.read(folder)
    given = typed_summary.read(folder)
    for table in (ttft_by_length(given), ttft_full_scale(given)):
        rows = [list(row.values())[:3] for row in texts(table)]
        assert rows[::2] == [["10k", "1", "recompute"], ["12,008", "2", "recompute"], ["14,016", "3", "recompute"]]
    held = read_json(folder / "plan.json")
    held["runs"][0]["draws"][0] |= {"isl_target": 12_008}  # an older scenario could give one length to two turns
    assert summary._turns_by_length(held) == {10_000: 0, 14_016: 2}
    text = html.render(one)
    assert "Measured, over the time of a run" not in text  # turns share their beginnings


def test_a_length_without_turns_has_no_column_for_them(tmp_path: Path) -> None:
    folder = build(Case(lengths=["10k"], repeats=1), tmp_path)
    summed = summary.summarise(folder)
    assert {row["turn"] for row in summed["lengths"]} == {None}
    assert "turn" not in [column.name for column in ttft_by_length(typed_summary.read(folder)).columns]


def test_an_empty_start_is_told_by_quarters(result: ResultFolder) -> None:
    """Nine slices do not divide by four: each quarter is the rate of its own slices."""
    summed = summary.summarise(result.path)
    assert list(time_series_sentences(typed(summed))) == []
    course = {
        "run_id": "r01-g4",
        "round": 1,
        "slice_s": 2.0,
        "answered": [2, 2, 4, 4, 8, 8, 8, 8, 8],
        "answered_per_s": [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0],
        "hit_rate": [None, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        "distinct_prompts": [1, 2, 3, 4, 5, 6, 7, 8, 9],
    }
    none = {"n": 0, "median_s": None, "hit_rate": None}
    touches = {"first_touch": none, "repeat_touch": none, "changes": []}
    item = {**summed["treatments"]["g4"], "touches": touches, "courses": [course, course]}
    told = {**summed, "treatments": {"g4": item}}
    (text,) = time_series_sentences(typed(told))
    rates, hits, prompts = text.split("; ")
    assert rates == "g4 by quarters of its time: 1.00, 2.00, 4.00, 4.00 answers/s"
    assert (hits, prompts) == ("hit rate so far 10, 20, 50, 70 %", "distinct prompts so far 2, 4, 7, 9")
    item["courses"] = [{**course, "hit_rate": None}]
    assert "hit rate" not in next(time_series_sentences(typed(told)))


def test_the_load_is_told_of_every_treatment(tmp_path: Path) -> None:
    treatments = {
        "recompute": {"cache": "off", "concurrency": 1},
        "again": {"cache": "off", "concurrency": 8, "against": "recompute"},
        "g4": {"cache": {"warm": "g4"}, "concurrency": 4, "against": "recompute"},
    }
    made = build(Case(treatments=treatments, lengths=["10k"], repeats=3, published=None), tmp_path)
    summed = summary.summarise(made)
    assert load_text(typed(summed)) == "concurrency 1, 4, 8"
    loop = {"request_rate": 2.5, "arrival": "poisson"}
    rate = {**summed, "open_loops": dict.fromkeys(treatments, loop)}
    assert load_text(typed(rate)) == "open loop, requests due at 2.5/s poisson, at most concurrency 1, 4, 8"
    some = {**summed, "open_loops": {"g4": {**loop, "arrival": "constant"}, "again": loop}}
    rates = "requests due at 2.5/s constant, 2.5/s poisson for g4, again"
    assert load_text(typed(some)) == f"open loop, {rates}, at most concurrency 1, 4, 8"
    text = shown_summary(typed_summary.read(made), 160)
    assert "driver native, concurrency 1, 4, 8, scale model" in text
    assert summed["headline"] == "requests_per_s"
    told = " ".join(text.split())
    assert "Throughput is" in told.replace("\u00a0", " ")
    assert "Storage rate" not in told  # of requests that wait for one another


def test_a_narrow_matrix_has_every_figure_in_two_parts(tmp_path: Path) -> None:
    """A cut-off cell could lose its unit: "1.20 s" and "1.20 ms" would look the same."""
    treatments: dict[str, Any] = {
        f"recompute_beside_{number}": {"cache": "off", "concurrency": number, "against": "recompute"}
        for number in (4, 8, 16)
    }
    treatments["recompute"] = {"cache": "off", "concurrency": 1}
    folder = build(Case(treatments=treatments, repeats=3, published=None), tmp_path)
    table = treatments_table(typed_summary.read(folder))
    assert table is not None
    wide, narrow = shown_table(table, 220), shown_table(table, 80)
    assert "continued" in narrow
    assert "continued" not in wide
    assert max(map(len, narrow.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in narrow
    for row in texts(table):
        assert all(word in narrow for text in row.values() for word in text.split())


def test_the_overrun_shown_is_the_one_that_is_judged(tmp_path: Path) -> None:
    """A tenth of a short request and nothing of a long one: a mean of 5 %, though a thousandth of all time."""
    made = build(Case(lengths=["10k", "130k"], repeats=1), tmp_path)
    run = made / "runs" / "r01-recompute"
    folder = RunFolder(run, 1)
    rows, record = read_rows(run), read_json(run / "run.json")
    journal = folder.open_journal()
    for row in rows:
        over = 0.1 * (row.ttft_s or 0.0) if row.isl_target == 10_000 else 0.0
        journal.append(replace(row, server_overrun_s=over))
    journal.close()
    tiers = {row.request_id: (row.tier or "unproven", "") for row in rows}
    folder.seal({k: v for k, v in record.items() if k not in ("attempt", "requests")}, tiers)
    summed = summary.summarise(made)
    assert summed["treatments"]["recompute"]["overrun_share"] == pytest.approx(0.05)
    (reason,) = [one for one in summed["runs"][0]["reasons"] + summed["runs"][1]["reasons"] if one["rule"] == "overrun"]
    assert "5.0%" in reason["text"]


def test_an_unfinished_result_is_never_valid(result: ResultFolder) -> None:
    (result.path / "runs" / "r03-g4" / "run.json").unlink()
    summed = summary.summarise(result.path)
    assert not summed["complete"]
    assert summed["verdict"] == "invalid"
    assert len(summed["runs"]) == 5


def test_a_result_whose_host_changed_between_sessions_is_suspect(result: ResultFolder) -> None:
    result.write_json("facts.json", {"changed_on_resume": ["host.kernel"]})
    summed = summary.summarise(result.path)
    assert summed["facts_changed"] == ["host.kernel"]
    assert summed["verdict"] == "suspect"


def test_a_request_whose_tier_was_not_proven_gives_no_figure(result: ResultFolder) -> None:
    for repeat in (1, 2, 3):
        folder = RunFolder(result.path / "runs" / f"r{repeat:02d}-g4", 1)
        rows, record = read_rows(folder.path), read_json(folder.path / "run.json")
        journal = folder.open_journal()
        for row in rows:
            journal.append(replace(row, tier="unproven") if row.phase == "measure" else row)
        journal.close()
        folder.seal({k: v for k, v in record.items() if k not in ("attempt", "requests")}, {})
    cell = cells(result)[0]["g4"]
    assert (cell["n"], cell["median_s"], cell["unproven"], cell["speed_up"]) == (0, None, 3, None)
    assert summary.summarise(result.path)["verdict"] == "suspect"


def test_a_result_without_any_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError):
        summary.summarise(tmp_path)


def test_the_published_ends_are_on_the_derived_curves() -> None:
    document = library.load("ibm-storage-scale/benchmark-1")
    for curve in document.curves.values():
        for tokens, value in curve.printed.items():
            derived = library.PublishedCurve("x", {}, curve.derived).at(tokens)[0]
            assert derived == pytest.approx(value, rel=0.002)
            assert curve.at(tokens) == (value, "printed")
    assert document.speed_up[130_000] == 56
    printed = document.curves["recompute"].at(130_000)[0] / document.curves["g4"].at(130_000)[0]
    assert printed == pytest.approx(56, abs=0.5)


@pytest.mark.parametrize("reference", ["nobody/benchmark-1", "ibm-storage-scale/benchmark-9"])
def test_unknown_publications_are_refused(reference: str) -> None:
    with pytest.raises(ResultError):
        library.load(reference)
