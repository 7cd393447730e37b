"""The summary's arithmetic, on runs whose figures are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import dataset, summary
from kvbench.analysis.dataset import read_requests
from kvbench.analysis.summary_types import Summary
from kvbench.errors import ResultError
from kvbench.importers import write_result as imports
from kvbench.result.files import write_json
from kvbench.result.plan_record import Slo
from kvbench.result.record_files import read_plan, read_run, write_plan, write_run
from kvbench.result.run_record import Step
from kvbench.typed_json import from_json, to_json
from tests.builders.requests import rows_of
from tests.builders.results import Case, build, write_requests

if TYPE_CHECKING:
    from kvbench.analysis.summary_types import JudgedRatio, LengthCell

OFF = ([1.0, 4.0], [1.2, 5.0], [1.1, 6.0])
WARM = ([0.5, 0.1], [0.4, 0.1], [0.5, 0.2])
CASE = Case(lengths=["1k", "2k"], repeats=3)
EXAMPLE = Path("results/examples/vllm-gpu-fs/20261121T224531Z")


def rewrite(result: Path, run_id: str, times: list[float]) -> None:
    """Give the requests of a run these TTFTs, in the order of their prompts' lengths."""
    folder, given = result / "runs" / run_id, dict(zip((1000, 2000), times, strict=True))
    rows = rows_of(folder)
    write_requests(folder, [replace(row, ttft_s=given[row.isl_target or 0]) for row in rows])


@pytest.fixture
def result(tmp_path: Path) -> Path:
    made = build(CASE, tmp_path)
    for repeat, (off, warm) in enumerate(zip(OFF, WARM, strict=True), 1):
        rewrite(made, f"r{repeat:02d}-recompute", off)
        rewrite(made, f"r{repeat:02d}-g4", warm)
    return made


def cells(result: Path) -> list[dict[str, LengthCell]]:
    return [row.cells for row in summary.summarise(result).lengths]


def ratio_of(cell: LengthCell) -> JudgedRatio:
    assert cell.comparison is not None
    return cell.comparison


def test_median_and_spread_with_their_n(result: Path) -> None:
    short, long = cells(result)
    found = short["recompute"]
    assert (found.n, found.median_s, found.min_s, found.max_s) == (3, 1.1, 1.0, 1.2)
    assert long["g4"].median_s == 0.1


def test_speed_up_is_paired_by_round_with_an_interval_over_rounds(result: Path) -> None:
    """Rounds 4.0 / 0.1, 5.0 / 0.1, 6.0 / 0.2: mean of logs 3.6674, sd 0.25609, t(2) = 4.302653."""
    _, long = cells(result)
    found = ratio_of(long["g4"])
    assert found.ratio == pytest.approx((40 * 50 * 30) ** (1 / 3))
    assert found.ratio is not None
    reach = math.exp(4.302653 * 0.25609 / math.sqrt(3))
    assert found.low == pytest.approx(found.ratio / reach, rel=1e-3)
    assert found.high == pytest.approx(found.ratio * reach, rel=1e-3)
    assert (found.rounds, found.word) == (3, "faster")
    assert [found.least, found.most] == pytest.approx([30, 50])
    assert long["recompute"].comparison is None


def test_holm_counts_every_length_against_the_baseline(result: Path) -> None:
    found = [ratio_of(cell["g4"]) for cell in cells(result)]
    plain = sorted(one.p_value or 0.0 for one in found)
    assert sorted(one.p_holm or 0.0 for one in found) == pytest.approx([2 * plain[0], max(2 * plain[0], plain[1])])


def test_two_rounds_give_a_ratio_and_no_interval(tmp_path: Path) -> None:
    made = build(replace(CASE, repeats=2), tmp_path)
    for repeat in (1, 2):
        rewrite(made, f"r{repeat:02d}-recompute", [1.0, 4.0])
        rewrite(made, f"r{repeat:02d}-g4", [0.5, 0.1])
    _, long = cells(made)
    found = ratio_of(long["g4"])
    assert found.ratio == pytest.approx(40)
    assert (found.low, found.refusal) == (None, "n/a (rounds=2 < 3)")
    assert found.rounds_needed is None
    assert long["g4"].rank is not None
    assert long["g4"].rank.sentence.startswith("all 2 of g4 are below all 2 of recompute; so few values cannot")


def test_a_cell_refuses_what_its_n_cannot_support(result: Path) -> None:
    short, _ = cells(result)
    figures = short["recompute"].ttft
    assert (figures["p50"].value, figures["p50"].refusal) == (1.1, "n/a (n=3 < 5)")
    assert (figures["p95"].value, figures["p95"].refusal) == (None, "n/a (n=3 < 59)")
    assert (figures["p99"].value, figures["p99"].refusal) == (None, "n/a (n=3 < 299)")


def test_two_treatments_of_one_definition_are_the_noise_floor(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    made = build(replace(CASE, treatments=treatments), tmp_path)
    for repeat, again in enumerate([1.0, 1.3, 0.9], 1):
        rewrite(made, f"r{repeat:02d}-recompute", [1.0, 1.0])
        rewrite(made, f"r{repeat:02d}-again", [again, again])
        rewrite(made, f"r{repeat:02d}-g4", [0.90 + 0.001 * repeat, 0.2])
    summed = summary.summarise(made)
    short, long = (row.cells for row in summed.lengths)
    assert (summed.same_pairs, summed.same_pair_rounds) == ((("recompute", "again"),), 3)
    found = ratio_of(short["g4"])
    assert found.noise_floor is not None
    assert found.noise_floor > 1.3  # the farther end of the A/A interval
    assert found.low is not None
    assert found.low > 1
    assert found.word == "no difference shown"  # 1.11x is within the floor
    assert "differs from itself" in found.reason
    assert ratio_of(long["g4"]).word == "faster"
    assert ratio_of(long["again"]).word == "no difference shown"


def test_full_scale_stands_beside_and_never_instead(result: Path) -> None:
    short, _ = cells(result)
    assert short["recompute"].median_s == 1.1
    assert short["recompute"].full_scale_median_s == pytest.approx(8.8)


def test_published_figures_are_held_against_the_scaled_curve(result: Path) -> None:
    short, _ = cells(result)
    found = short["g4"]
    assert found.published_s == pytest.approx(0.1616 + 3.1417e-6 * 1000)
    assert found.published_s is not None
    assert found.published_kind == "derived"
    assert found.published_ratio == pytest.approx(0.5 / (found.published_s / 8))


def test_an_invalid_run_leaves_no_trace_in_the_figures(result: Path) -> None:
    folder = result / "runs" / "r02-g4"
    record = read_run(folder)
    steps = (*record.cache.steps, Step("prove warm", "failed", "it was not"))
    write_run(folder, replace(record, cache=replace(record.cache, steps=steps)))
    summed = summary.summarise(result)
    cell = summed.lengths[0].cells["g4"]
    assert (cell.n, ratio_of(cell).rounds, summed.verdict) == (2, 2, "invalid")
    assert (summed.treatments["g4"].runs_used, summed.treatments["g4"].runs) == (2, 3)


def test_the_share_of_failed_requests_is_of_all_that_were_sent(tmp_path: Path) -> None:
    """All four requests of the g4 runs are in the share, though the run that failed one is invalid and not used."""
    summed = summary.summarise(build(replace(CASE, repeats=2, failing=("r01-g4",)), tmp_path))
    item = summed.treatments["g4"]
    assert (item.runs_used, item.requests, item.sent, item.failures) == (1, 2, 4, {"cut": 1})


def test_requests_without_proof_are_counted_and_give_no_figure(tmp_path: Path) -> None:
    summed = summary.summarise(build(replace(CASE, unproven=("r01-g4",)), tmp_path))
    cell = summed.lengths[0].cells["g4"]
    assert (cell.n, cell.unproven, cell.tiers) == (2, 1, {"unproven": 1, "g4": 2})
    assert summed.treatments["g4"].metrics["requests_per_s"].n == 2


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
    assert summed.baselines == {"base_1": None, "g4_1": "base_1", "base_4": None, "g4_4": "base_4"}
    assert not any(summed.treatments["base_4"].comparisons.values())
    assert summed.headline == "requests_per_s"
    against: dict[str, Any] = {**GROUPS, "g4_4": {**GROUPS["g4_4"], "against": "g4_1"}}
    other = summary.summarise(build(replace(case, name="sweep", treatments=against), tmp_path))
    assert other.baselines["base_4"] == "base_1"
    compared = other.treatments["base_4"].comparisons["ttft_mean"]
    assert compared is not None
    assert compared.ratio is not None


def test_turns_stand_beside_their_lengths(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}}
    turns = {"count": 3, "new_tokens": 2000}
    case = Case(treatments=treatments, lengths=["10k"], per_length=2, turns=turns, repeats=3, published=None)
    summed = summary.summarise(build(case, tmp_path))
    assert [(row.isl, row.turn) for row in summed.lengths] == [(10_000, 0), (12_008, 1), (14_016, 2)]
    plain = summary.summarise(build(Case(name="plain", lengths=["10k"], repeats=1), tmp_path))
    assert {row.turn for row in plain.lengths} == {None}


def test_a_result_that_is_not_finished_is_invalid_and_says_what_it_has(tmp_path: Path) -> None:
    missing = build(replace(CASE, missing=("r03-g4",)), tmp_path)
    (missing / "runs" / "r03-g4").mkdir()
    (missing / "runs" / "r03-g4" / "requests.jsonl").write_text("a journal is never summarised\n")
    summed = summary.summarise(missing)
    assert (summed.complete, summed.verdict, len(summed.runs), summed.runs_planned) == (False, "invalid", 5, 6)
    none = replace(CASE, name="none", missing=(*(run.run_id for run in summed.runs), "r03-g4"))
    with pytest.raises(ResultError, match="no finished run yet"):
        summary.summarise(build(none, tmp_path))


def test_an_import_has_rows_for_the_lengths_that_it_counted_and_is_never_valid(tmp_path: Path) -> None:
    made = imports.import_result("vllm", Path("tests/data/vllm_bench/concurrency_2.json"), tmp_path, "import")
    summed = summary.summarise(made)
    assert (summed.verdict, summed.same_pairs) == ("suspect", ())
    assert summed.imported is not None
    requests = dataset.read(made).runs[0].answered
    assert [row.isl for row in summed.lengths] == sorted(requests["isl"].unique())
    assert sum(cell.n for row in summed.lengths for cell in row.cells.values()) == len(requests)


def test_a_summary_is_the_same_after_it_was_written_as_json() -> None:
    summed = summary.summarise(EXAMPLE)
    assert from_json(Summary, to_json(summed), "summary.json") == summed


def test_texts_and_fields_of_later_versions_are_read_only_where_they_are_asked_for() -> None:
    folder = EXAMPLE / "runs" / "r01-g3"
    assert "tier_evidence" not in read_requests(folder)
    shown = read_requests(folder, ("request_id", "tier_evidence"))
    assert list(shown) == ["request_id", "tier_evidence", "length"]
    assert len(shown) == len(dataset.read_requests(folder))


def test_slo_attainment_counts_a_scale_models_times_at_full_scale(tmp_path: Path) -> None:
    made = build(replace(CASE, repeats=1), tmp_path)
    plan = read_plan(made)
    write_plan(made, replace(plan, design=replace(plan.design, slo=Slo(ttft=1.0))))
    rewrite(made, "r01-g4", [0.124, 0.126])  # times 8: 0.992 s and 1.008 s
    assert summary.summarise(made).treatments["g4"].slo_attainment == 0.5


def test_the_overrun_shown_is_the_one_that_is_judged(tmp_path: Path) -> None:
    """A tenth of a short request and nothing of a long one: a mean of 5 %, though a thousandth of all time."""
    made = build(Case(lengths=["10k", "130k"], repeats=1), tmp_path)
    run = made / "runs" / "r01-recompute"
    shares = {10_000: 0.1, 130_000: 0.0}
    rows = [replace(row, server_overrun_s=shares[row.isl_target or 0] * (row.ttft_s or 0.0)) for row in rows_of(run)]
    write_requests(run, rows)
    summed = summary.summarise(made)
    assert summed.treatments["recompute"].overrun_share == pytest.approx(0.05)
    (reason,) = [one for run in summed.runs for one in run.reasons if one.rule == "overrun"]
    assert "5.0%" in reason.text


def test_a_result_whose_host_changed_between_sessions_is_suspect(result: Path) -> None:
    write_json(result / "facts.json", {"changed_on_resume": ["host.kernel"]})
    summed = summary.summarise(result)
    assert summed.facts_changed == ("host.kernel",)
    assert summed.verdict == "suspect"


def test_a_treatment_whose_tiers_were_not_proven_has_no_figure(tmp_path: Path) -> None:
    summed = summary.summarise(build(replace(CASE, unproven=("r01-g4", "r02-g4", "r03-g4")), tmp_path))
    cell = summed.lengths[0].cells["g4"]
    assert (cell.n, cell.median_s, cell.unproven, cell.comparison) == (0, None, 3, None)
    assert summed.verdict == "suspect"


def test_a_folder_that_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError):
        summary.summarise(tmp_path)
