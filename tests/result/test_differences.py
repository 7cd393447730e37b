"""How two plans and the facts around them differ: what counts as another question, and what is no difference."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from kvbench.result import differences
from kvbench.scenario import plan
from tests.builders.worlds import make_scenario


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


def test_differences_name_what_changed_and_leave_out_what_changes_by_itself() -> None:
    before = {"host": {"kernel": "6.1", "load_1min": 0.1}, "paths": {"g4": {"free_bytes": 1, "file_system": "ext4"}}}
    after = {"host": {"kernel": "6.2", "load_1min": 9.9}, "paths": {"g4": {"free_bytes": 2, "file_system": "xfs"}}}
    assert differences.differences(before, after) == ["host.kernel", "paths.g4.file_system"]
    assert differences.differences(before, before) == []


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
