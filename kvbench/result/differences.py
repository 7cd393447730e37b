"""Lists the differences between two results: in their plans, and in the facts of host and software.

Pure: it takes the records of a plan and a run, and what stands in `facts.json`. Another question (lengths, treatments,
concurrency) means that figures cannot be compared. Other facts (kernel, mount, driver) are what a
comparison is often about, so they are told before any figure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.result.plan_record import PlanRecord
    from kvbench.result.run_record import RunRecord
    from kvbench.typed_json import JsonObject

VOLATILE = {
    *("load_1min", "free_bytes", "scenario", "schema_version", "changed_on_resume"),
    *("used_bytes", "files", "pending_writes"),  # what a tier holds at the moment is no fact of the set-up
}
_ASKED = ("server", "scale", "lengths", "output_tokens", "concurrency", "concurrencies", "turns")
_NOT_TOLD: tuple[Any, ...] = (None, [], {})
_OWN_PLACE = {"paths.results.path", "server.info.pid", "imported.imported_at"}
_OF_THE_QUESTION = ("setting.server.scale", "server.info.scale")
_AS_SET = "setting."
_FACTS_OF_PROMPTS, _FACTS_OF_LOAD = ("seed", "tokenizer"), ("driver", "timeout")

Difference = tuple[str, Any, Any]


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Name the facts that two gatherings disagree on, by their path; what changes by itself does not count."""
    return [name for name, _, _ in differing(before, after)]


def differing(before: Mapping[str, object], after: Mapping[str, object], prefix: str = "") -> list[Difference]:
    """Return the path of each value that differs, with both values; None where one side has none."""
    found: list[Difference] = []
    for key in sorted({*before, *after} - VOLATILE):
        one, other, path = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing(one, other, f"{path}.")
        elif one != other:
            found.append((path, one, other))
    return found


def question_of(plan: PlanRecord, states: dict[str, str | None]) -> JsonObject:
    """Return what was asked, flat; `states` are the cache states that the treatments' runs had.

    What a result does not tell is left out: an import knows neither its lengths nor its server, an older plan lacks
    some names. What a plan with its setting holds as None is told: no request rate is a closed loop, no draw is each
    prompt once.
    """
    asked = _as_read(plan.design)
    setting = asked["setting"]
    told = {name.replace("_", " "): asked[name] for name in _ASKED}
    if not plan.design.concurrencies:
        del told["concurrencies"]
    if plan.design.imported:
        told["server"] = None
    for part, facts in (("prompts", _FACTS_OF_PROMPTS), ("load", _FACTS_OF_LOAD)):
        told |= {f"{part}: {name}": value for name, value in setting.get(part, {}).items() if name not in facts}
    for name, definition in asked["definitions"].items():
        told[f"definition of {name}"] = {key: value for key, value in definition.items() if value is not None}
    question = {name: value for name, value in told.items() if setting or value not in _NOT_TOLD}
    if question.get("scale") is None:
        question.pop("scale", None)  # of an external server it may be full scale, or not known
    question["treatments"] = sorted(asked["treatments"])
    states_told = {f"cache state of {name}": state for name, state in states.items() if state is not None}
    return question | states_told


def _as_read(record: object) -> Any:
    """Return a record as it reads back from its file: lists, and names for keys."""
    return json.loads(json.dumps(to_json(record)))


def differing_questions(base: Mapping[str, object], other: Mapping[str, object]) -> list[Difference]:
    """Return where two questions differ, among what both of them tell; no scale at all is full scale."""
    shared = [name for name in base if name in other]
    found = [(name, base[name], other[name]) for name in shared if base[name] != other[name]]
    scales = (base.get("scale"), other.get("scale"))
    return [*found, ("scale", *scales)] if None in scales and scales != (None, None) else found


def facts_of(facts: JsonObject, plan: PlanRecord, record: RunRecord) -> JsonObject:
    """Gather what stood around a result: its host, software and paths, its server, its driver and its settings.

    `record` is that of its first run.
    """
    asked = _as_read(plan.design)
    setting = {name: value for name, value in asked["setting"].items() if name not in ("prompts", "load")}
    for part, names in (("prompts", _FACTS_OF_PROMPTS), ("load", _FACTS_OF_LOAD)):
        setting[part] = {name: asked["setting"].get(part, {}).get(name) for name in names}
    return {
        **{name: value for name, value in facts.items() if name not in VOLATILE},
        "server": {"model": record.server.model, "info": _as_read(record.server)["info"]},
        "driver": {"name": record.driver.name, "stamps": record.driver.stamps, "version": record.driver.version},
        "setting": setting,
        "repeats": plan.design.repeats,
        "slo": asked["slo"],
    }


def differing_facts(base: Mapping[str, object], other: Mapping[str, object]) -> list[Difference]:
    """Return where the facts of two results differ, each once; without what is their own and what the question says.

    What a setting says and the server repeats is told of the setting; what several paths share, of all of them at once.
    """
    facts = [fact for fact in differing(base, other) if not _is_their_own(fact[0])]
    set_ = [(_leaf(name), pair) for name, *pair in facts if name.startswith(_AS_SET)]
    return _by_path(
        [fact for fact in facts if fact[0].startswith(_AS_SET) or (_leaf(fact[0]), [*fact[1:]]) not in set_]
    )


def _is_their_own(name: str) -> bool:
    is_tier_path = name.startswith("server.info.tiers.") and name.endswith(".path")  # its file system is told elsewhere
    return name in _OWN_PLACE or is_tier_path or any(f"{name}.".startswith(f"{one}.") for one in _OF_THE_QUESTION)


def _leaf(name: str) -> str:
    """Return what a fact is of, by whichever part tells it: a driver's name is the driver of the load."""
    last = "driver" if name == "driver.name" else name.rpartition(".")[2]
    return last.removesuffix("_bytes")


def _by_path(facts: list[Difference]) -> list[Difference]:
    """Join what differs alike in several paths, which often lie on one device: `paths.{g4,results}.queue.scheduler`."""
    roles: dict[tuple[str, str], list[str]] = {}
    for name, one, other in facts:
        part, _, rest = name.partition(".")
        role, _, fact = rest.partition(".")
        key = (f"{part}.*.{fact}", f"{one} {other}") if part == "paths" and fact else (name, "")
        roles.setdefault(key, []).append(role)
    values = {name: (one, other) for name, one, other in facts}
    joined = []
    for (pattern, _), own in roles.items():
        first = pattern.replace("*", own[0], 1)
        name = first if len(own) == 1 else pattern.replace("*", f"{{{','.join(own)}}}", 1)
        joined.append((name, *values[first]))
    return joined
