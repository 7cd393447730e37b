"""What `kvbench plan` and `show --requests` print: labels, working sets, and which prompt a request was."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from kvbench.report import terminal
from kvbench.scenario import file as scenario_file
from kvbench.scenario import plan
from kvbench.scenario.models import Tiers
from tests.builders.worlds import make_scenario
from tests.result.test_folder import row

if TYPE_CHECKING:
    from kvbench.scenario.scenario import Scenario

LLAMA_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def shown(scenario: Scenario, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    terminal.print_plan(plan.expand(scenario), scenario, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def vllm(model: Path | str, **changes: Any) -> Scenario:
    server = {"vllm": {"python": "python", "model": str(model), **changes}}
    return make_scenario(
        server=server,
        tiers={"g3": {"path": "kv", "capacity": "1GB"}},
        treatments={"off": {"cache": "off"}},
        baseline="off",
    )


def test_conversations_and_turns_are_labelled() -> None:
    turns = {"lengths": [1000], "per_length": 3, "turns": {"count": 4, "new_tokens": 100}, "output_tokens": 8}
    scenario = make_scenario(prompts=turns, treatments={"cold": {"cache": "cold"}}, baseline="cold", repeats=1)
    text = shown(scenario)
    assert "conversations" in text
    assert "turns" in text
    assert "requests" not in text
    cells = next(line for line in text.splitlines() if line.startswith("cold ")).split()
    assert cells == ["cold", "1", "3", "12", f"{3 * (4 * 1000 + 6 * 108):,}"]
    assert "requests" in shown(make_scenario())


def test_nothing_is_cut_off_in_a_terminal_of_80_columns() -> None:
    path = Path(__file__).parents[2] / "scenarios" / "multi_turn.yaml"
    text = shown(scenario_file.load(path), 80)
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "conversations" in text
    assert [text.count(f"local_ssd_{size} ") for size in (4, 8, 16)] == [4, 4, 4]  # three rounds and a working set


def test_a_long_name_of_a_treatment_is_put_on_lines_and_not_cut() -> None:
    name = "x" * 60
    text = shown(make_scenario(treatments={name: {"cache": "off"}}, baseline=name, repeats=1), 60)
    table = text.partition("working set")[0]
    assert table.count("x") == 60
    assert "\u2026" not in table


def test_the_working_set_of_a_vllm_follows_from_its_models_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    assert plan.working_set_bytes(vllm(tmp_path)) == 3000 * 131_072
    assert plan.working_set_bytes(vllm(tmp_path, kv_dtype="fp8")) == 3000 * 65_536
    text = shown(vllm(tmp_path))
    assert "working set: 393 MB for 2 prompts" in text
    assert "g3: 1 GB, holds all of it" in text


@pytest.mark.parametrize("config", [None, "{}", "no JSON"])
def test_a_model_that_is_not_here_or_not_understood_has_no_working_set(config: str | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert plan.working_set_bytes(vllm(tmp_path if config else "meta-llama/Llama-3.1-8B")) is None
    assert "working set: not known" in shown(vllm(tmp_path))


def test_the_working_set_of_an_external_server_follows_from_what_is_given() -> None:
    external = {"url": "http://127.0.0.1:1/v1", "kv_bytes_per_token": 1000}
    assert plan.working_set_bytes(make_scenario(server={"external": external}, tiers={})) == 3_000_000
    external.pop("kv_bytes_per_token")
    assert plan.working_set_bytes(make_scenario(server={"external": external}, tiers={})) is None


TURNS = {"lengths": [1600], "per_length": 4, "turns": {"count": 2, "new_tokens": 92}, "output_tokens": 100}
AT_ITS_END = 1600 + 92 + 100 + 100  # the last prompt and its answer
PER_TOKEN = 144


def test_a_conversation_ends_with_its_last_answer() -> None:
    """Room for the last prompt alone is too little: a budget in between overflows, and plan says so."""
    cold = {"cold": {"cache": "cold"}}
    scenario = make_scenario(prompts=TURNS, treatments=cold, baseline="cold", load={"concurrency": 3})
    assert plan.working_set_bytes(scenario) == 4 * AT_ITS_END * PER_TOKEN
    without = plan.working_set_bytes(make_scenario(prompts={**TURNS, "turns": None}))
    assert without == 4 * 1600 * PER_TOKEN  # of a prompt nothing is asked for again but itself
    for g1, told in (
        (3 * AT_ITS_END * PER_TOKEN, "nothing overflows"),
        (3 * (AT_ITS_END - 100) * PER_TOKEN, "43.2 kB"),
    ):
        text = shown(scenario.model_copy(update={"tiers": Tiers(g1=g1)}))
        assert told in text
        assert ("nothing overflows" in text) == (told == "nothing overflows")
        assert {"treatment", "held", "expected"} <= set(text.split())


def test_of_several_gpus_nothing_is_promised() -> None:
    server = {"emulator": {"scale": {"time": 8, "bytes": 512}, "instances": 4}}
    g1 = 3 * AT_ITS_END * PER_TOKEN  # of each GPU
    scenario = make_scenario(
        server=server,
        prompts=TURNS,
        tiers={"g1": g1, "g4": {"path": "kvcache", "capacity": "1GB"}},
        treatments={"three": {"cache": "cold", "concurrency": 3}, "many": {"cache": "cold", "concurrency": 13}},
        baseline=None,
    )
    text = " ".join(shown(scenario).split())
    assert "nothing overflows" not in text
    assert "817 kB 1 GB not known" in text
    assert "at least 272 kB overflow, read from g4" in text
    assert "Each of 4 GPUs has a g1 of its own" in text
    alone = make_scenario(server=server, tiers={"g1": g1}, treatments={"off": {"cache": "off"}}, baseline="off")
    assert "g1: 817 kB on each of 4 GPUs, one holds all of it" in shown(alone)
    assert "cannot show what offloading does" not in shown(alone)


def test_the_bound_of_an_empty_start_is_told_where_one_is_asked_for() -> None:
    load = {"requests": 8, "draw": "round_robin", "concurrency": 2}
    without = shown(make_scenario(load=load))
    assert "round 1: 8 requests, 2 distinct prompts\n" in without
    assert "times as fast" not in without
    arms = {"recompute": {"cache": "off"}, "empty": {"cache": "cold"}}
    told = shown(make_scenario(load=load, treatments=arms))
    assert "2 distinct prompts: from an empty start at most 4.00 times as fast as recomputing" in " ".join(told.split())


def test_a_request_is_shown_with_its_prompt_and_turn() -> None:
    console = Console(file=io.StringIO(), width=100)
    terminal.print_requests({"r01-g4": [row(0)]}, console)
    assert isinstance(console.file, io.StringIO)
    assert f"  {row(0).prompt_id}, " in console.file.getvalue()
