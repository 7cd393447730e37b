"""Two results side by side: facts before figures, planted slowdowns, one result twice, questions that differ, gates."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from kvbench import compare, gates, summary
from kvbench.errors import ResultError
from kvbench.importers import write_result as imports
from kvbench.report.tables import comparison
from kvbench.result import differences
from kvbench.result.record_files import read_plan, write_plan
from kvbench.scenario import plan
from tests.builders.results import FACTS, Case, build
from tests.builders.worlds import make_scenario
from tests.cli.test_cli import SCENARIO, kvbench, one_sentence_with_remedy

if TYPE_CHECKING:
    import subprocess

LENGTHS = ["10k", "130k"]
BASE = Case(lengths=LENGTHS)
EXPORT = Path("tests/data/vllm_bench/concurrency_2.json")


def later(**changes: Any) -> Case:
    """Another result of the same scenario: its requests spread in another order."""
    return Case(**{"lengths": LENGTHS, "shift": 4, "folder": "20251122T200000Z", **changes})


def compared(tmp_path: Path, other: Case, base: Case = BASE, **options: Any) -> dict[str, Any]:
    return compare.compare(build(base, tmp_path), build(other, tmp_path), **options)


def figure(found: dict[str, Any], metric: str, treatment: str, length: int | None = None) -> dict[str, Any]:
    (one,) = [
        one
        for one in found["figures"]
        if (one["metric"], one["treatment"], one["length"]) == (metric, treatment, length)
    ]
    return dict(one)


def printed(found: dict[str, Any], width: int = 100) -> str:
    text = io.StringIO()
    comparison.print_comparison(found, Console(width=width, file=text))
    return text.getvalue()


# -- slowdowns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slower", "margin", "word"),
    [
        (1.0, 0.05, "equivalent within 5 %"),
        (1.03, 0.05, "equivalent within 5 %"),
        (1.03, 0.01, "slower"),
        (1.10, 0.05, "slower"),
        (1.50, 0.05, "slower"),
        (0.80, 0.05, "faster"),
    ],
)
def test_a_planted_slowdown_is_found_with_its_size(slower: float, margin: float, word: str, tmp_path: Path) -> None:
    found = compared(tmp_path, later(slower={"g4": slower}), margin=margin)
    for length in (10_000, 130_000):
        one = figure(found, "ttft_p50", "g4", length)
        assert one["low"] < slower < one["high"]
        assert one["ratio"] == pytest.approx(slower, rel=0.005)
        assert one["word"] == word, one["reason"]
        assert figure(found, "ttft_p50", "recompute", length)["word"] == f"equivalent within {100 * margin:g} %"
    assert found["facts"] == []


def test_a_rate_falls_where_a_time_grows(tmp_path: Path) -> None:
    """One request a run, so that the whole load is its latency."""
    found = compared(tmp_path, later(lengths=["130k"], slower={"recompute": 1.5}), Case(lengths=["130k"]))
    rate, time = (figure(found, name, "recompute") for name in ("requests_per_s", "total_time"))
    assert time["ratio"] == pytest.approx(1.5, rel=0.01)
    assert rate["ratio"] == pytest.approx(1 / time["ratio"])
    assert (rate["word"], time["word"]) == ("slower", "slower")


def test_the_columns_divide_to_the_ratio_beside_them(tmp_path: Path) -> None:
    """Medians over all rounds need not: the ratio is of the rounds' own medians."""
    found = compared(tmp_path, later(jitter=0.3, slower={"g4": 1.3}), Case(lengths=LENGTHS, jitter=0.3))
    shown = [one for one in found["figures"] if one["ratio"] is not None]
    assert len(shown) > 10
    for one in shown:
        base, other = one["over_rounds"]
        assert other / base == pytest.approx(one["ratio"])
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert one["other"]["value"] / one["base"]["value"] != pytest.approx(one["ratio"], rel=1e-4)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_the_terminal(width: int, tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["kernel"], facts["paths"]["g4"]["mount_options"] = "6.14.2-a-rather-long-version", "rw,nobarrier" * 9
    treatments = {"recompute": {"cache": "off"}, "prewarmed_with_g4_again": {"cache": {"warm": "g4"}}}
    base = Case(lengths=LENGTHS, treatments=treatments, published=None)
    text = printed(compared(tmp_path, later(treatments=treatments, published=None, facts=facts), base), width)
    assert max(map(len, text.splitlines())) <= width
    assert "within 5 %" in text
    assert ("figure  " in text) == (width >= 100)


def test_noise_shows_no_difference(tmp_path: Path) -> None:
    found = compared(tmp_path, later(jitter=0.3, slower={"g4": 1.03}), Case(lengths=LENGTHS, jitter=0.3))
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert (one["word"], one["reason"]) == ("no difference shown", "the 95 % interval contains 1")


def test_the_larger_noise_floor_of_both_counts(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    base = Case(lengths=LENGTHS, treatments=treatments)
    drifting = later(treatments=treatments, slower={"again": 1.2, "g4": 1.1})
    found = compared(tmp_path, drifting, base)
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert one["noise_floor"] > 1.19
    assert one["low"] > 1
    assert one["word"] == "no difference shown"
    assert one["reason"].startswith("the baseline differs from itself by up to 1.2")
    assert found["same_pairs"] == {"base": [("recompute", "again")], "other": [("recompute", "again")]}


# -- the same result ---------------------------------------------------------------------------------------------------


def test_a_result_is_no_different_from_itself(tmp_path: Path) -> None:
    base = build(BASE, tmp_path)
    found = compare.compare(base, base, asked=[gates.parse("ttft_p50 > 1.0")])
    assert found["same_result"]
    assert {one["word"] for one in found["figures"]} == {"no difference shown"}
    assert {one["ratio"] for one in found["figures"]} == {1.0, None}
    assert [gate["word"] for gate in found["gates"]] == ["passed"]
    text = printed(found)
    assert "A and B are the same result: nothing can differ." in text
    assert "1.000" in text


def test_a_copy_is_the_same_result_and_another_with_equal_facts_is_not(tmp_path: Path) -> None:
    base, copied = build(BASE, tmp_path / "one"), build(BASE, tmp_path / "two")
    assert compare.compare(base, copied)["same_result"]
    assert not compared(tmp_path, later())["same_result"]


# -- facts and questions -----------------------------------------------------------------------------------------------


def test_facts_come_before_figures(tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["kernel"], facts["host"]["load_1min"] = "6.14.2", 7.7
    facts["paths"]["g4"]["mount_options"] = "rw,relatime,nobarrier"
    facts["paths"]["g4"]["queue"]["scheduler"] = "none [mq-deadline]"
    found = compared(tmp_path, later(facts=facts, repeats=4))
    assert [one["name"] for one in found["facts"]] == [
        "host.kernel",
        "paths.g4.mount_options",
        "paths.g4.queue.scheduler",
        "repeats",
    ]
    text = printed(found)
    assert text.index("6.14.2") < text.index("What changed: B over A") < text.index("TTFT P50")
    assert max(map(len, text.splitlines())) <= 100


def test_each_fact_is_told_once_and_state_is_no_fact() -> None:
    disk = {"queue": {"scheduler": "none"}, "free_bytes": 5}
    one: dict[str, Any] = {
        "paths": {"results": {"path": "r", **disk}, "g4": {"path": "kvcache", **disk}},
        "server": {"info": {"instances": 1, "scale": {"time": 8}, "tiers": {"g4": {"files": 0, "path": "/a/kvcache"}}}},
        "driver": {"name": "native"},
        "setting": {"server": {"instances": 1}, "load": {"driver": "native"}},
    }
    other = copy.deepcopy(one)
    for role in ("results", "g4"):
        other["paths"][role] = {**other["paths"][role], "queue": {"scheduler": "mq-deadline"}, "free_bytes": 7}
    tiers = {"g4": {"files": 9, "path": "/b/kvcache"}}
    other["server"]["info"] = {"instances": 4, "scale": {"time": 16}, "tiers": tiers}
    other["driver"]["name"] = other["setting"]["load"]["driver"] = "aiperf"
    other["setting"]["server"]["instances"] = 4
    assert differences.differing_facts(one, other) == [
        ("paths.{g4,results}.queue.scheduler", "none", "mq-deadline"),
        ("setting.load.driver", "native", "aiperf"),
        ("setting.server.instances", 1, 4),
    ]


def test_what_one_side_alone_tells_is_named_in_one_line(tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["gpus"], facts["host"]["microcode"] = "none", "0x1"
    text = printed(compared(tmp_path, later(facts=facts)))
    assert "What differed around them: no fact that both of them tell" in text
    assert "Told by one of them alone: host.gpus, host.microcode (values with --json)" in text


def test_differences_name_what_changed_and_leave_out_what_changes_by_itself() -> None:
    before = {"host": {"kernel": "6.1", "load_1min": 0.1}, "paths": {"g4": {"free_bytes": 1, "file_system": "ext4"}}}
    after = {"host": {"kernel": "6.2", "load_1min": 9.9}, "paths": {"g4": {"free_bytes": 2, "file_system": "xfs"}}}
    assert differences.differences(before, after) == ["host.kernel", "paths.g4.file_system"]
    assert differences.differences(before, before) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": ["10k", "90k"]}, "lengths 10000, 130000 against 10000, 90000"),
        ({"treatments": {"recompute": {"cache": "off"}, "g4": {"cache": "off"}}}, "cache state of g4 warm(g4) against"),
        ({"treatments": {"recompute": {"cache": "off"}}}, "treatments g4, recompute against recompute"),
        ({"scale": {"time": 4, "bytes": 512}}, "scale"),
        ({"scale": None}, "server emulator against external"),
    ],
)
def test_other_questions_are_refused_unless_asked_for(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="asked different questions") as refused:
        compared(tmp_path, later(**changes))
    assert words in refused.value.message
    assert "--anyway" in refused.value.remedy
    found = compared(tmp_path / "again", later(**changes), anyway=True)
    assert found["question"]
    assert figure(found, "ttft_p50", "recompute", 10_000)["ratio"] is not None


OPEN, TURNS = {"request_rate": 3.0}, {"turns": {"count": 2, "new_tokens": 50}}


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({}, {"load": OPEN}, {"load: request_rate"}),
        ({}, {"load": {"draw": "zipf", "requests": 4}}, {"load: draw", "load: requests"}),
        ({"load": {"draw": "zipf", "requests": 4}}, {"load": {"draw": "zipf", "requests": 5}}, {"load: requests"}),
        ({}, {"prompts": {"lengths": [1000, 2000], **TURNS}}, {"turns", "prompts: turns", "lengths"}),
        ({"load": OPEN}, {"load": OPEN}, set()),
    ],
)
def test_what_only_one_plan_asks_for_is_another_question(
    one: dict[str, Any], other: dict[str, Any], names: set[str]
) -> None:
    treatments = {"recompute": {"cache": "off"}, "empty": {"cache": "cold"}}
    plans = [plan.expand(make_scenario(treatments=treatments, **changes)).record() for changes in (one, other)]
    for pair in (plans, plans[::-1]):
        found = differences.differing_questions(*(differences.question_of(made, {}) for made in pair))
        assert {name for name, _, _ in found} == names


def test_what_an_older_plan_or_an_import_lacks_is_no_difference() -> None:
    new = plan.expand(make_scenario(load=OPEN)).record()
    setting: Any = copy.deepcopy(new.design.setting)
    del setting["load"]["request_rate"]
    older = replace(new, design=replace(new.design, setting=setting, concurrencies={}))
    bare = replace(older, design=replace(older.design, setting={}))
    for plan_ in (older, bare):
        assert not differences.differing_questions(differences.question_of(plan_, {}), differences.question_of(new, {}))


def test_a_closed_loop_against_an_open_one_is_refused_in_words(tmp_path: Path) -> None:
    base = build(BASE, tmp_path)
    other = build(later(), tmp_path)
    made = read_plan(other)
    load: Any = made.design.setting["load"]
    load["request_rate"] = 3.0
    write_plan(other, made)
    with pytest.raises(ResultError, match=r"load: request_rate none against 3\.0"):
        compare.compare(base, other)


def test_results_without_a_treatment_in_common_are_refused(tmp_path: Path) -> None:
    other = later(treatments={"another": {"cache": "off"}}, baseline=None)
    with pytest.raises(ResultError, match="no treatment in common"):
        compared(tmp_path, other, anyway=True)


# -- little data -------------------------------------------------------------------------------------------------------


def test_two_rounds_have_no_interval_but_ranks(tmp_path: Path) -> None:
    found = compared(tmp_path, later(repeats=2, slower={"g4": 1.5}), Case(lengths=LENGTHS, repeats=8))
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert one["ratio"] == pytest.approx(1.5, rel=0.01)
    assert (one["low"], one["word"], one["reason"]) == (None, "too few rounds", "fewer than 3 rounds (8 and 2)")
    assert one["rank"]["sentence"].startswith("all 2 of B are above all 8 of A")
    text = printed(found)
    assert "Each TTFT of B is above each of A, in these runs alone: g4 10k (n=8 and 2), g4 130k (n=8 and 2)." in text
    assert "recompute 10k" not in text.split("Each TTFT")[1]
    assert "no difference" not in text


def test_a_treatment_without_a_valid_run_cannot_be_compared(tmp_path: Path) -> None:
    broken = later(failing=tuple(f"r{number:02d}-g4" for number in range(1, 6)))
    found = compared(tmp_path, broken, asked=[gates.parse("ttft_p50@g4 > 1.05")])
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert (one["ratio"], one["word"], one["reason"]) == (None, "cannot be compared", "B has no figure")
    assert found["gates"][0]["word"] == "cannot be judged"
    assert figure(found, "ttft_p50", "recompute", 130_000)["word"] == "equivalent within 5 %"


def test_imported_results_are_compared_with_what_they_have(tmp_path: Path) -> None:
    made = [imports.import_result("vllm", EXPORT, tmp_path, f"import-{number}") for number in (1, 2)]
    found = compare.compare(made[0], made[1])
    assert [one["name"] for one in found["question"]] == []
    ttft = [one for one in found["figures"] if one["metric"] == "ttft_p50"]
    assert all(one["length"] is None and one["is_length"] for one in ttft)
    assert all(one["ratio"] == pytest.approx(1.0) for one in ttft)
    json.dumps(found)
    assert "imported from vllm" in printed(found)


# -- the command -------------------------------------------------------------------------------------------------------


def run_compare(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return kvbench("compare", *arguments, "--results", tmp_path)


def test_the_command_and_its_exit_codes(tmp_path: Path) -> None:
    base, other = build(BASE, tmp_path), build(later(slower={"g4": 1.1}), tmp_path)
    done = run_compare(tmp_path, base.name, "ttft-sweep")  # a scenario's name is its newest result
    assert done.returncode == 0, done.stderr
    assert "slower" in done.stdout
    as_json = run_compare(tmp_path, base, other, "--json", "--margin", "0.2")
    found = json.loads(as_json.stdout)
    assert found["schema_version"] == 2
    assert {one["word"] for one in found["figures"] if one["metric"] == "ttft_p50"} == {"equivalent within 20 %"}
    gated = run_compare(tmp_path, base, other, "--fail-if", "ttft_p50 > 1.05", "--fail-if", "ttft_p50 > 2")
    assert gated.returncode == 4
    assert "gate ttft_p50 > 1.05: tripped" in gated.stdout
    assert "gate ttft_p50 > 2: passed" in gated.stdout
    assert run_compare(tmp_path, base, other, "--fail-if", "ttft_p50 > 2").returncode == 0
    for usage in (["--fail-if", "ttft > 1"], ["--margin", "none"], ["--margin", "0"]):
        assert run_compare(tmp_path, "nowhere", "nowhere", *usage).returncode == 2, usage
    assert "no result called nowhere" in one_sentence_with_remedy(run_compare(tmp_path, base, "nowhere"))
    third = build(later(lengths=["10k"], folder="20251123T200000Z"), tmp_path)
    assert "asked different questions" in one_sentence_with_remedy(run_compare(tmp_path, base, third))
    assert run_compare(tmp_path, base, third, "--anyway").returncode == 0


def test_a_slower_profile_is_found_from_end_to_end(tmp_path: Path) -> None:
    """The second result's server takes twice as long to compute; its profile is a file of the scenario's own."""
    shipped = next(Path("kvbench/emulator/profiles").glob("gpt-oss-120b*.yaml")).read_text()
    slow = tmp_path / "slow.yaml"
    slow.write_text(
        shipped.replace("value: 4.136e-5", "value: 8.272e-5").replace("value: 1.5836e-9", "value: 3.1672e-9")
    )
    scenario = tmp_path / "small.yaml"
    scenario.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")).replace("repeats: 2", "repeats: 3"))
    folders = []
    for changes in ([], ["--set", f"server.emulator.profile={slow}"]):
        done = kvbench("run", scenario, *changes, "--results", tmp_path / "results")
        assert done.returncode in (0, 3), done.stderr
        folders.append(Path(done.stdout.splitlines()[-1]))
    assert summary.summarise(folders[1])["model"] == "gpt-oss-120b"
    done = kvbench("compare", *folders, "--json", "--fail-if", "ttft_p50@recompute/12k > 1.2")
    found = json.loads(done.stdout)
    assert not found["same_result"]
    assert "setting.server.profile" in {one["name"] for one in found["facts"]}
    one = figure(found, "ttft_p50", "recompute", 12_000)
    assert one["ratio"] > 1.2  # the model says 2
    assert (one["word"], done.returncode) == ("slower", 4)
    assert read_plan(folders[0]).design.definitions["g4"]["cache"] == {"warm": "g4"}


def test_a_profile_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")))
    nowhere = kvbench("check", scenario, "--set", f"server.emulator.profile={tmp_path}/none.yaml")
    assert "none.yaml: cannot read it" in one_sentence_with_remedy(nowhere, 2)
    (tmp_path / "odd.yaml").write_text("- a list\n")
    odd = kvbench("check", scenario, "--set", f"server.emulator.profile={tmp_path}/odd.yaml")
    assert "odd.yaml:1: a profile is a mapping of keys" in one_sentence_with_remedy(odd, 2)
