"""No honest server may be called a liar: small scenarios of every shape, drawn by a seed, on the real emulator.

Each runs through the emulator's own process, the real driver and real files. Whatever a busy machine does to times is
excused by name in `honest_worlds.EXCUSED`; every other reason is a server called a liar for nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.builders.honest_worlds import EXCUSED, complaints, run_through, scenario_of
from tests.builders.worlds import make_scenario

SEEDS = 50


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_honest_server_is_believed(seed: int, tmp_path: Path) -> None:
    scenario = scenario_of(seed, tmp_path)
    summed = run_through(scenario, tmp_path)
    assert not complaints(summed)
    assert {run.verdict for run in summed.runs} <= {"valid", "suspect"}
    for name, treatment in scenario.treatments.items():
        item = summed.treatments[name]
        assert item.requests == item.sent > 0
        assert "unproven" not in item.tiers
        if treatment.cache == "off":
            assert set(item.tiers) == {"recompute"}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_server_that_moves_files_down_is_believed(concurrency: int, tmp_path: Path) -> None:
    """Files that G3 drops are read to be written to G4: device reads that serve no request."""
    scenario = make_scenario(
        name="moves",
        server={"emulator": {"scale": {"time": 24, "bytes": 512}, "write_policy": "back"}},
        tiers={
            "g1": 0,
            "g3": {"path": str(tmp_path / "disk"), "capacity": "3MB"},
            "g4": {"path": str(tmp_path / "tier"), "capacity": "60MB"},
        },
        prompts={"lengths": [6000], "per_length": 8, "output_tokens": 4},
        load={"concurrency": concurrency, "requests": 24, "draw": "round_robin"},
        treatments={"off": {"cache": "off"}, "cold": {"cache": "cold"}},
        baseline="off",
        repeats=1,
        published=None,
    )
    summed = run_through(scenario, tmp_path)
    assert not complaints(summed)
    tiers = summed.treatments["cold"].tiers
    assert "unproven" not in tiers
    assert tiers["recompute"] >= 8  # what waits for room below is not to be found meanwhile
    ledger = json.loads(next(tmp_path.glob("**/r01-cold/run.json")).read_text())["ledger"]
    assert ledger["moved_bytes"] > 1_000_000
    assert ledger["closes"]


def test_the_seeds_ask_for_everything() -> None:
    """What is drawn covers the cache states, the tiers, the lists, the loops and the rules of writing."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        scenario = scenario_of(seed, Path("folder"))
        emulator, turns = scenario.server.emulator, scenario.prompts.turns
        assert emulator is not None
        for name, one in scenario.treatments.items():
            seen[one.warm_tier or str(one.cache)] += 1
            seen |= Counter({tier: 1 for tier, value in scenario.tiers_of(name).model_dump().items() if value})
            seen[f"concurrency {'1' if scenario.concurrency_of(name) == 1 else 'above'}"] += 1
        seen[f"draw {scenario.load.draw}"] += 1
        seen["open loop" if scenario.load.request_rate else "closed loop"] += 1
        seen[f"history {turns.history if turns is not None else None}"] += 1
        seen[scenario.load.api] += 1
        seen[scenario.prompts.form] += 1
        seen[f"write {emulator.write_policy}"] += 1
        seen["several instances" if emulator.instances > 1 else "one instance"] += 1
        seen["late writes" if emulator.write_delay else "writes at once"] += 1
        seen["admits late" if emulator.admit_after_hits > 1 else "admits at once"] += 1
        seen["answers compared" if scenario.check_answers else "answers not compared"] += 1
    wanted = {"off", "cold", "g1", "g2", "g3", "g4", "concurrency 1", "concurrency above", "open loop", "closed loop"}
    wanted |= {f"draw {kind}" for kind in (None, "with_replacement", "without_replacement", "zipf", "round_robin")}
    wanted |= {"history recorded", "history live", "write through", "write back", "several instances", "late writes"}
    wanted |= {"admits late", "answers compared", "chat", "completions", "text", "token_ids"}
    assert not wanted - set(seen)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tiers": {}, "treatments": {"empty": {"cache": "cold"}}, "baseline": "empty"}, "no tier has any capacity"),
        ({"check_answers": True, "prompts": {"lengths": [1000], "temperature": 0.7}}, "by chance above temperature 0"),
    ],
)
def test_what_no_honest_server_could_show_is_refused_beforehand(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_scenario(**changes)


def test_what_is_excused_is_no_word_on_the_server() -> None:
    """The excused rules are those of the client, of the host and of comparing times; every other rule is asserted."""
    page = Path("docs/protocol.md").read_text()
    table = page[page.index("**Is it what was asked for?**") : page.index("**Can it be?**")]
    about_the_server = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    assert not (about_the_server - {"promoted"}) & EXCUSED
