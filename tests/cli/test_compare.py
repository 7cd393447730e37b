"""The command `kvbench compare` from end to end: its exit codes, its gates, and a slowdown that is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.analysis import summary
from kvbench.result.record_files import read_plan
from tests.analysis.test_result_comparison import BASE, later
from tests.builders.results import build
from tests.cli.test_cli import SCENARIO, kvbench, one_sentence_with_remedy

if TYPE_CHECKING:
    import subprocess


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
    assert summary.summarise(folders[1]).model == "gpt-oss-120b"
    done = kvbench("compare", *folders, "--json", "--fail-if", "ttft_p50@recompute/12k > 1.2")
    found = json.loads(done.stdout)
    assert not found["same_result"]
    assert "setting.server.profile" in {one["name"] for one in found["facts"]}
    place = ("ttft_p50", "recompute", 12_000)
    (one,) = [one for one in found["figures"] if (one["metric"], one["treatment"], one["length"]) == place]
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
