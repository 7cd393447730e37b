"""Neighbours and bottlenecks in a scenario: what is understood, and every contradiction with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvbench.errors import ScenarioError
from kvbench.scenario import file as scenario_file
from kvbench.scenario import plan
from kvbench.scenario.neighbors import Target

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: noisy
question: How much does it lose?
server: {emulator: {scale: {time: 8, bytes: 512}}}
tiers: {g4: {path: kvcache, capacity: 1GB}}
prompts: {lengths: [10k]}
bottleneck: {disk: 300MB/s}
neighbors:
  local: {clients: 2}
  loads:
    storage: {fio: {size: 64MB}}
    fabric: {iperf3: {}}
treatments:
  quiet: {cache: {warm: g4}}
  noisy: {cache: {warm: g4}, neighbors: {storage: {fraction: 0.63}}}
  worst: {cache: {warm: g4}, neighbors: {fabric: unlimited}}
baseline: quiet
"""
LINK = GOOD.replace("{disk: 300MB/s}", "{link: 1Gbit/s}").replace("  local: {clients: 2}\n", "")
LINK = LINK.replace("path: kvcache", "path: kvlab/g4/gpu/kv")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    return path


def test_neighbours_are_understood_and_stand_in_the_plan(tmp_path: Path) -> None:
    asked = scenario_file.load(write(tmp_path, GOOD))
    assert asked.treatments["quiet"].disturbance is None
    assert asked.treatments["noisy"].disturbance == ("storage", Target(fraction=0.63))
    load, target = asked.treatments["worst"].disturbance or ("", Target(fraction=1))
    assert (load, target.unlimited) == ("fabric", True)
    design = plan.expand(asked).design
    setting: Any = design.setting
    assert design.definitions["noisy"]["neighbors"] == {"storage": {"aggregate": None, "fraction": 0.63}}
    assert setting["bottleneck"]["disk"] == 300e6
    assert setting["neighbors"]["loads"]["storage"]["fio"]["size"] == 64_000_000


def test_a_link_brings_its_own_side_clients(tmp_path: Path) -> None:
    asked = scenario_file.load(write(tmp_path, LINK))
    assert asked.bottleneck is not None
    assert asked.bottleneck.link == 125e6


FAULTS = [
    ("{storage: {fraction: 0.63}}", "{disk: {fraction: 0.63}}", 14, "disk is not one of the loads"),
    ("{storage: {fraction: 0.63}}", "{storage: {fraction: 63}}", 14, "less than or equal to 1"),
    ("{storage: {fraction: 0.63}}", "{storage: {fraction: 0.5, aggregate: 1GB/s}}", 14, "not both"),
    ("{storage: {fraction: 0.63}}", "{}", 14, "at least one item"),
    ("{fabric: unlimited}", "{storage: unlimited}", 11, "no treatment uses the load fabric"),
    ("  local: {clients: 2}\n", "", 7, "nobody says where the side clients are"),
    ("local: {clients: 2}", "local: {clients: 0}", 8, "greater than or equal to 1"),
    ("local: {clients: 2}", "local: {}\n  hosts: h.yaml", 7, "not both"),
    ("{disk: 300MB/s}", "{}", 6, "exactly one of `disk` and `link`"),
    ("{disk: 300MB/s}", "{disk: fast}", 6, "not a rate"),
    ("tiers: {g4: {path: kvcache, capacity: 1GB}}", "tiers: {g1: 1GB}", 13, "does not give any capacity"),
    ("{iperf3: {}}", "{iperf3: {}, fio: {}}", 11, "exactly one generator"),
    ("fio: {size: 64MB}", "fio: {size: 64MB, options: {filename: /dev/sda}}", 10, "only shape a load"),
]


@pytest.mark.parametrize(("old", "new", "line", "sentence"), FAULTS)
def test_every_fault_has_its_line(old: str, new: str, line: int, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ScenarioError) as error:
        scenario_file.load(path)
    assert sentence in error.value.message
    assert error.value.line == line


LINK_FAULTS = [
    ("kvlab/g4/gpu/kv", "kvcache", "the lab's shared storage"),
    ("  loads:", "  local: {}\n  loads:", "the side clients are its own"),
    ("{emulator: {scale: {time: 8, bytes: 512}}}", "{external: {url: http://127.0.0.1:1/v1}}", "around the emulator"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), LINK_FAULTS)
def test_a_link_refuses_what_it_cannot_go_with(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        scenario_file.load(write(tmp_path, LINK.replace(old, new)))


def test_neighbours_of_nobody_are_refused(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("neighbors:")] + GOOD[GOOD.index("treatments:") :]
    with pytest.raises(ScenarioError, match="no `neighbors` block"):
        scenario_file.load(write(tmp_path, text))
