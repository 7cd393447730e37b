"""The plan: rounds, order, salts."""

from __future__ import annotations

from collections import Counter

from kvbench import plan
from tests.worlds import make_scenario


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
