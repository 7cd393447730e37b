"""What `kvbench plan` and `show --requests` print: labels, working sets, and which prompt a request was."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from kvbench import plan
from kvbench.report import tables
from tests.test_store import row
from tests.worlds import make_scenario

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.scenario import Scenario

LLAMA_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def shown(scenario: Scenario) -> str:
    console = Console(file=io.StringIO(), width=100)
    tables.print_plan(plan.expand(scenario), scenario, console)
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
    assert "turns in all" in text
    assert "requests" not in text
    cells = next(line for line in text.splitlines() if "r01-cold" in line).replace("\u2502", " ").split()
    assert cells[2:] == ["1", "3", "12", f"{3 * (4 * 1000 + 6 * 108):,}"]
    assert "requests" in shown(make_scenario())


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


def test_a_request_is_shown_with_its_prompt_and_turn() -> None:
    console = Console(file=io.StringIO(), width=100)
    tables.print_requests({"r01-g4": [row(0)]}, console)
    assert isinstance(console.file, io.StringIO)
    assert f"  {row(0).prompt_id}, " in console.file.getvalue()
