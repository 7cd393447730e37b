"""The plan: rounds, order, salts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kvbench.result import differences, draw_file, record_files
from kvbench.scenario import plan
from tests.builders.worlds import make_scenario

if TYPE_CHECKING:
    from pathlib import Path


def test_each_round_holds_each_treatment_once() -> None:
    laid_out = plan.expand(make_scenario(repeats=6))
    rounds = [laid_out.runs[i : i + 2] for i in range(0, 12, 2)]
    for number, runs in enumerate(rounds, 1):
        assert {run.treatment for run in runs} == {"recompute", "g4"}
        assert {run.repeat for run in runs} == {number}


def test_the_order_within_rounds_varies_and_is_seeded() -> None:
    scenario = make_scenario(repeats=12)
    firsts = Counter(run.treatment for run in plan.expand(scenario).runs[::2])
    assert set(firsts) == {"recompute", "g4"}
    assert plan.expand(scenario) == plan.expand(scenario)
    other = make_scenario(repeats=12, prompts={"lengths": [1000, 2000], "seed": 2})
    assert [r.treatment for r in plan.expand(other).runs] != [r.treatment for r in plan.expand(scenario).runs]


def test_every_run_sends_every_prompt_once() -> None:
    laid_out = plan.expand(make_scenario(prompts={"lengths": [1000, 2000], "per_length": 3}))
    pool = sorted(draw.prompt_id for draw in laid_out.pool)
    assert len(pool) == 6
    for run in laid_out.runs:
        assert sorted(draw.prompt_id for draw in run.draws) == pool
        assert len({draw.request_id for draw in run.draws}) == 6


def test_warm_and_off_send_the_same_texts_and_cold_sends_its_own() -> None:
    treatments = {"off": {"cache": "off"}, "warm": {"cache": {"warm": "g4"}}, "cold": {"cache": "cold"}}
    laid_out = plan.expand(make_scenario(treatments=treatments, baseline="off"))
    keys: dict[str, list[set[str]]] = {name: [] for name in treatments}
    for run in laid_out.runs:
        keys[run.treatment].append({draw.text_key for draw in run.draws})
    pool: set[str] = {draw.text_key for draw in laid_out.pool}
    assert all(texts == pool for texts in keys["off"] + keys["warm"])
    assert not set.intersection(*keys["cold"])
    assert not any(pool & texts for texts in keys["cold"])


def test_an_external_server_gets_texts_of_this_result_only_and_salted_recomputes() -> None:
    scenario = make_scenario(server={"external": {"url": "http://127.0.0.1:1/v1"}}, tiers={})
    one, two = plan.expand(scenario, "A/"), plan.expand(scenario, "B/")
    assert not {d.text_key for d in one.pool} & {d.text_key for d in two.pool}
    recompute = [{d.text_key for d in run.draws} for run in one.runs if run.treatment == "recompute"]
    assert not set.intersection(*recompute)
    assert all("A/" in key for keys in recompute for key in keys)


def test_canaries_are_as_long_as_the_shortest_prompt_and_never_measured() -> None:
    laid_out = plan.expand(make_scenario())
    canary = laid_out.canary(plan.CANARY_FIRST)
    assert canary.isl_target == 1000
    assert canary.text_key not in {draw.text_key for run in laid_out.runs for draw in run.draws}


def drawn(kind: str, requests: int, repeats: int = 2) -> list[plan.RunSpec]:
    treatments = {"off": {"cache": "off"}, "cold": {"cache": "cold"}}
    scenario = make_scenario(
        prompts={"lengths": [1000], "per_length": 10},
        load={"requests": requests, "draw": kind, "concurrency": 4},
        treatments=treatments,
        baseline="off",
        repeats=repeats,
    )
    return list(plan.expand(scenario).runs)


def test_a_drawn_list_belongs_to_its_round() -> None:
    runs = drawn("with_replacement", 200)
    lists = {run.run_id: [draw.prompt_id for draw in run.draws] for run in runs}
    assert lists["r01-off"] == lists["r01-cold"] != lists["r02-off"] == lists["r02-cold"]
    assert {len(draws) for draws in lists.values()} == {200}
    assert len({draw.request_id for run in runs for draw in run.draws}) == 800
    cold = next(run for run in runs if run.run_id == "r01-cold")
    assert len({draw.text_key for draw in cold.draws}) == len(set(lists["r01-cold"])) <= 10


def test_the_kinds_of_draws() -> None:
    without = [draw.prompt_id for draw in drawn("without_replacement", 10)[0].draws]
    assert sorted(without) == sorted(f"p1000-{number}" for number in range(10))
    around = [draw.prompt_id for draw in drawn("round_robin", 25)[0].draws]
    assert around[:12] == [f"p1000-{number % 10}" for number in range(12)]
    counts = Counter(draw.prompt_id for draw in drawn("zipf", 2000, repeats=1)[0].draws)
    assert counts["p1000-0"] > 2 * counts["p1000-4"] > 2 * counts["p1000-9"]  # weights 1, 1/5, 1/10


def test_turns_of_a_conversation_follow_each_other_and_grow() -> None:
    prompts = {"lengths": [100, 200], "per_length": 2, "output_tokens": 8, "turns": {"count": 3, "new_tokens": 50}}
    scenario = make_scenario(prompts=prompts, treatments={"off": {"cache": "off"}}, baseline="off", repeats=1)
    draws = plan.expand(scenario).runs[0].draws
    assert len(draws) == 12
    for start in range(0, 12, 3):
        turns = draws[start : start + 3]
        assert len({turn.conversation_id for turn in turns}) == 1
        assert [turn.turn for turn in turns] == [0, 1, 2]
        first = turns[0].isl_target
        assert [turn.isl_target for turn in turns] == [first, first + 58, first + 116]
    assert plan.expand(scenario).design.lengths == (100, 158, 200, 216, 258, 316)


def test_an_open_loop_is_due_on_a_schedule_of_its_round() -> None:
    def due(arrival: str) -> dict[str, list[float | None]]:
        load = {"request_rate": 10, "arrival": arrival, "concurrency": 4}
        scenario = make_scenario(load=load, prompts={"lengths": [1000], "per_length": 400})
        return {run.run_id: [draw.due_s for draw in run.draws] for run in plan.expand(scenario).runs}

    constant = due("constant")["r01-g4"]
    assert constant[:3] == [0.0, 0.1, 0.2]
    poisson = due("poisson")
    assert poisson["r01-g4"] == poisson["r01-recompute"] != poisson["r02-g4"]
    last = poisson["r01-g4"][-1]
    assert last is not None
    assert 32 < last < 48  # 399 gaps of 0.1 s, standard deviation 2 s


def test_the_draws_are_in_a_file_beside_the_plan_and_the_plan_has_their_counts(tmp_path: Path) -> None:
    prompts = {"lengths": [100, 200], "output_tokens": 8, "turns": {"count": 3, "new_tokens": 50}}
    treatments = {"off": {"cache": "off"}, "empty": {"cache": "cold"}}
    changes: dict[str, Any]
    for changes in ({"prompts": prompts}, {"load": {"draw": "zipf", "requests": 2, "request_rate": 3.0}}):
        made = plan.expand(make_scenario(treatments=treatments, baseline="off", **changes), "salt/")
        draw_file.write_draws(tmp_path, made.draw_rows())
        assert list(draw_file.read_draws(tmp_path)) == list(made.draw_rows())
        record_files.write_plan(tmp_path, made.record())
        kept = record_files.read_plan(tmp_path)
        assert kept == made.record()
        for spec, run in zip(made.runs, kept.runs, strict=True):
            assert run.requests == len(list(spec.draws))
            assert run.requests_by_length == Counter(draw.isl_target for draw in spec.draws)
    assert plan.expand(make_scenario(prompts=prompts, treatments=treatments, baseline="off")).design.turn_of_length == {
        100: 0,
        158: 1,
        216: 2,
        200: 0,
        258: 1,
        316: 2,
    }


def test_a_million_draws_are_made_one_by_one() -> None:
    draws = drawn("with_replacement", 1_000_000)[0].draws
    assert len(draws) == 1_000_000
    first, last = next(iter(draws)), draws[-1]
    assert (first.request_id[:8], last.request_id.split("/")[1][:7]) == ("r01-cold", "999999-")
    assert sum(draws.by_length.values()) == 1_000_000


def test_a_plan_of_version_1_puts_the_same_question(tmp_path: Path) -> None:
    prompts = {"lengths": [100, 200], "output_tokens": 8, "turns": {"count": 3, "new_tokens": 50}}
    treatments = {"off": {"cache": "off"}, "empty": {"cache": "cold"}}
    changes: dict[str, Any]
    for changes in ({}, {"prompts": prompts, "treatments": treatments, "baseline": "off"}):
        made = plan.expand(make_scenario(**changes))
        record_files.write_plan(tmp_path, made.record())
        path = tmp_path / record_files.PLAN
        value = json.loads(path.read_text())
        value["asked"] = {name: item for name, item in value.pop("design").items() if name != "turn_of_length"}
        value["schema_version"], value["pool"] = 1, [asdict(draw) for draw in made.pool]
        for run, spec in zip(value["runs"], made.runs, strict=True):
            run["draws"] = [asdict(draw) for draw in spec.draws]
            del run["requests"], run["requests_by_length"]
        path.write_text(json.dumps(value))
        old = record_files.read_plan(tmp_path)
        assert old == made.record()
        questions = [differences.question_of(one, {}) for one in (old, made.record())]
        assert not differences.differing_questions(*questions)
        assert questions[0] == questions[1]
