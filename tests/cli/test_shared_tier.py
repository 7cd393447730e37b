"""A slow tier behind faster ones, and a tier that two servers share, from end to end on real emulators and real files.

Only tiers, orders and bytes are asserted, never times.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from kvbench.errors import ScenarioError
from kvbench.result.files import read_json
from kvbench.result.rows import read_rows
from kvbench.scenario import file as scenario_file
from kvbench.testbed.servers.counters import parse_counters
from tests.builders.patience import PATIENCE_S
from tests.cli.test_cli import command, kvbench

if TYPE_CHECKING:
    from collections.abc import Iterator

SCENARIO = """\
name: {name}
question: Which tier serves?
server: {server}
tiers: {tiers}
prompts: {{lengths: [2k, 6k], output_tokens: 4}}
load: {load}
treatments: {treatments}
baseline: recompute
repeats: {repeats}
"""
EMULATOR = "{emulator: {scale: {time: 2, bytes: 512}}}"
WARM = "{recompute: {cache: off}, warm: {cache: {warm: TIER}}}"
DEEP = "{g1: 20MB, g2: 20MB, g3: {path: FOLDER/ssd, capacity: 50MB}, g4: {path: FOLDER/tier, capacity: 50MB}}"
TWO_LEVELS = "{g3: {path: FOLDER/ssd, capacity: 50MB}, g4: {path: FOLDER/tier, capacity: 50MB}}"
ONE_LEVEL = "{g4: {path: FOLDER/tier, capacity: 50MB}}"


def write(folder: Path, **fields: Any) -> Path:
    """A scenario file; FOLDER in it is the test's own folder."""
    given = {"name": "tiers", "server": EMULATOR, "tiers": ONE_LEVEL, "load": "{}", "repeats": 2, **fields}
    path = folder / "scenario.yaml"
    path.write_text(SCENARIO.format(**given).replace("FOLDER", str(folder)))
    return path


def result_of(done: subprocess.CompletedProcess[str]) -> tuple[Path, dict[str, Any]]:
    """The result folder and its summary; a busy machine may make runs suspect, never invalid."""
    assert done.returncode in (0, 3), done.stdout + done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    summed = read_json(folder / "summary.json")
    assert summed["verdict"] != "invalid", [run["reasons"] for run in summed["runs"]]
    return folder, summed


def steps_of(folder: Path, run_id: str) -> dict[str, str]:
    record = read_json(folder / "runs" / run_id / "run.json")
    return {step["name"]: step["evidence"] for step in record["cache"]["steps"]}


@pytest.mark.parametrize(("tiers", "tier"), [(DEEP, "g4"), (DEEP, "g3"), (DEEP, "g2"), (TWO_LEVELS, "g4")])
def test_the_tier_that_is_asked_for_serves_whatever_lies_above_it(tiers: str, tier: str, tmp_path: Path) -> None:
    scenario = write(tmp_path, tiers=tiers, treatments=WARM.replace("TIER", tier))
    folder, summed = result_of(kvbench("run", scenario, "--results", tmp_path / "results"))
    warm = summed["treatments"]["warm"]
    assert warm["tiers"] == {tier: 4}
    assert warm["cache_state"] == f"warm({tier})"
    assert warm["hit_efficiency"] == 1.0
    for repeat in (1, 2):
        record = read_json(folder / "runs" / f"r{repeat:02d}-warm" / "run.json")
        assert record["ledger"]["closes"], record["ledger"]["gap"]
        read = record["ledger"]["read_bytes"]
        assert {name for name, count in read.items() if count} == ({tier} - {"g2"})
        wiped = [step["evidence"] for step in record["cache"]["steps"] if step["name"] == "empty directory"]
        if tier == "g4":  # each round promotes into g3, and the next one empties it again
            assert wiped[-1].startswith("g3: ")
            assert wiped[-1].endswith(" 0 left")
        else:
            assert len(wiped) == (2 if repeat == 1 or tier == "g2" else 0)


def test_a_repeated_prompt_may_be_served_from_where_its_first_touch_promoted_it(tmp_path: Path) -> None:
    load = "{requests: 12, draw: round_robin}"
    scenario = write(tmp_path, tiers=TWO_LEVELS, load=load, treatments=WARM.replace("TIER", "g4"), repeats=1)
    folder, summed = result_of(kvbench("run", scenario, "--results", tmp_path / "results"))
    tiers = summed["treatments"]["warm"]["tiers"]
    assert tiers["g4"] >= 2
    assert sum(tiers.values()) == 12
    assert set(tiers) <= {"g3", "g4", "mixed"}
    assert tiers.get("g3", 0) > 0
    rows = [row for row in read_rows(folder / "runs" / "r01-warm") if row.phase == "measure"]
    first = {prompt: next(row.tier for row in rows if row.prompt_id == prompt) for prompt in ("p2000-0", "p6000-0")}
    assert set(first.values()) == {"g4"}
    reasons = next(run["reasons"] for run in summed["runs"] if run["treatment"] == "warm")
    assert [reason["level"] for reason in reasons if reason["rule"] == "promoted"] == ["note"]


def test_many_at_a_time_from_a_slow_tier_behind_all_others(tmp_path: Path) -> None:
    load = "{concurrency: 4, requests: 16, draw: with_replacement}"
    scenario = write(tmp_path, tiers=DEEP, load=load, treatments=WARM.replace("TIER", "g4"), repeats=1)
    _, summed = result_of(kvbench("run", scenario, "--results", tmp_path / "results"))
    tiers = summed["treatments"]["warm"]["tiers"]
    assert "unproven" not in tiers
    assert "recompute" not in tiers
    assert tiers["g4"] >= 2


# -- two servers, one tier --------------------------------------------------------------------------------------------

OWN_AND_ANOTHER = (
    "{recompute: {cache: off}, own: {cache: {warm: g4}},"
    " another: {cache: {warm: g4, primed_by: another}, against: own}}"
)


def test_what_one_emulator_writes_another_one_serves(tmp_path: Path) -> None:
    scenario = write(tmp_path, treatments=OWN_AND_ANOTHER)
    folder, summed = result_of(kvbench("run", scenario, "--results", tmp_path / "results"))
    for name in ("own", "another"):
        item = summed["treatments"][name]
        assert item["tiers"] == {"g4": 4}
        assert item["read_bytes"] == pytest.approx(item["expected_read_bytes"], rel=0.01)
        assert item["read_bytes"] > 0
    steps = steps_of(folder, "r01-another")
    assert steps["primed by another"].endswith("the one that is measured nothing")
    assert "primed by another" not in steps_of(folder, "r01-own")
    assert (folder / "runs" / "r01-another" / "logs" / "primer.log").exists()


@contextmanager
def sharing(tier: Path) -> Iterator[tuple[str, int]]:
    """A server of somebody else that shares the tier: its URL and its pid."""
    options = ["--time", "2", "--bytes", "512", "--g4-path", str(tier), "--g4-capacity", "50MB", "--g4-shared"]
    process = subprocess.Popen(
        command("serve", "--port", "0", *options), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        yield str(told["url"]), int(told["pid"])
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        process.stdout.close()


def written_bytes(url: str) -> float:
    return parse_counters(httpx.get(f"{url.removesuffix('/v1')}/metrics").text).write_bytes["g4"]


def test_what_a_server_of_somebody_else_writes_another_one_serves(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    with sharing(tier) as (first, _), sharing(tier) as (second, pid):
        server = f"{{external: {{url: '{second}', primer_url: '{first}', pid: {pid}, tier_path: {tier}}}}}"
        treatments = "{recompute: {cache: off}, another: {cache: {warm: g4, primed_by: another}}}"
        scenario = write(tmp_path, server=server, tiers="{}", treatments=treatments)
        folder, summed = result_of(kvbench("run", scenario, "--results", tmp_path / "results"))
        assert written_bytes(first) > 0
    item = summed["treatments"]["another"]
    assert item["tiers"] == {"g4": 4}
    assert item["hit_efficiency"] == 1.0
    assert item["read_bytes"] == pytest.approx(item["expected_read_bytes"], rel=0.01)
    if item["process_read_bytes"] is not None:
        assert item["process_read_bytes"] == pytest.approx(item["read_bytes"], rel=0.01)
    assert steps_of(folder, "r01-another")["primed by another"].endswith("the one that is measured nothing")


REFUSED = [
    ("{emulator: {}}", "{warm: g4, primed_by: nobody}", "itself or another"),
    ("{emulator: {}}", "{warm: g3, primed_by: another}", "is for g4"),
    ("{vllm: {python: python, model: some/model}}", "{warm: g4, primed_by: another}", "start both yourself"),
    ("{external: {url: 'http://a:1/v1'}}", "{warm: g4, primed_by: another}", "needs server.external.primer_url"),
    ("{external: {url: 'http://a:1/v1', primer_url: 'http://b:1/v1'}}", "{warm: g4}", "nobody would ask it"),
    ("{external: {url: 'http://a:1/v1', primer_url: 'b'}}", "{warm: g4}", "is not a URL"),
]


@pytest.mark.parametrize(("server", "cache", "words"), REFUSED, ids=[row[2] for row in REFUSED])
def test_a_primer_that_cannot_be_is_refused(server: str, cache: str, words: str, tmp_path: Path) -> None:
    treatments = f"{{recompute: {{cache: off}}, warm: {{cache: {cache}}}}}"
    with pytest.raises(ScenarioError, match=words):
        scenario_file.load(
            write(tmp_path, server=server, tiers=TWO_LEVELS if "g3" in cache else ONE_LEVEL, treatments=treatments)
        )


def test_vllm_has_one_file_tier(tmp_path: Path) -> None:
    server = "{vllm: {python: python, model: some/model}}"
    path = write(tmp_path, server=server, tiers=TWO_LEVELS, treatments=WARM.replace("TIER", "g4"))
    with pytest.raises(ScenarioError, match="g3 or g4, not both"):
        scenario_file.load(path)
