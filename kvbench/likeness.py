"""How alike two results are: the question that was put, and the facts of the world that answered it.

Pure: it takes what stands in `plan.json`, `facts.json` and `run.json` and names what differs. Another question
(lengths, treatments, concurrency) means that figures cannot be compared. Other facts (kernel, mount, driver) are what a
comparison is often about, so they are told before any figure.
"""

from __future__ import annotations

from typing import Any

_VOLATILE = {"load_1min", "free_bytes", "scenario", "schema_version", "changed_on_resume"}
_ASKED = ("server", "scale", "lengths", "output_tokens", "concurrency", "concurrencies", "turns")
_NOT_TOLD: tuple[Any, ...] = (None, [], {})
_OWN_PLACE = {"paths.results.path", "server.info.pid", "imported.imported_at"}
_OF_THE_QUESTION = {"setting.server.scale", "server.info.scale"}
_FACTS_OF_PROMPTS, _FACTS_OF_LOAD = ("seed", "tokenizer"), ("driver", "timeout")

Difference = tuple[str, Any, Any]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name the facts that two gatherings disagree on, by their path; what changes by itself does not count."""
    return [name for name, _, _ in differing(before, after)]


def differing(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[Difference]:
    """Return the path of each value that differs, with both values; None where one side has none."""
    found: list[Difference] = []
    for key in sorted({*before, *after} - _VOLATILE):
        one, other, path = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing(one, other, f"{path}.")
        elif one != other:
            found.append((path, one, other))
    return found


def question_of(plan: dict[str, Any], states: dict[str, str | None]) -> dict[str, Any]:
    """Return what was asked, flat; `states` are the cache states that the treatments' runs had.

    What a result does not tell is left out: an import knows neither its lengths nor its server, an older plan lacks
    some names. What a plan with its setting holds as None is told: no request rate is a closed loop, no draw is each
    prompt once.
    """
    asked, setting = plan["asked"], plan["asked"].get("setting", {})
    told = {name.replace("_", " "): asked[name] for name in _ASKED if name in asked}
    if asked.get("imported"):
        told["server"] = None
    for part, facts in (("prompts", _FACTS_OF_PROMPTS), ("load", _FACTS_OF_LOAD)):
        told |= {f"{part}: {name}": value for name, value in setting.get(part, {}).items() if name not in facts}
    for name, definition in asked.get("definitions", {}).items():
        told[f"definition of {name}"] = definition
    question = {name: value for name, value in told.items() if setting or value not in _NOT_TOLD}
    if question.get("scale") is None:
        question.pop("scale", None)  # of an external server it may be full scale, or not known
    question["treatments"] = sorted(asked["treatments"])
    states_told = {f"cache state of {name}": state for name, state in states.items() if state is not None}
    return question | states_told


def differing_questions(one: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    """Return where two questions differ, among what both of them tell; no scale at all is full scale."""
    shared = [name for name in one if name in other]
    found = [(name, one[name], other[name]) for name in shared if one[name] != other[name]]
    scales = (one.get("scale"), other.get("scale"))
    return [*found, ("scale", *scales)] if None in scales and scales != (None, None) else found


def facts_of(facts: dict[str, Any], plan: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Gather what stood around a result: its host, software and paths, its server, its driver and its settings.

    `record` is the `run.json` of its first run.
    """
    asked, driver = plan["asked"], record["driver"]
    setting = {name: value for name, value in asked.get("setting", {}).items() if name not in ("prompts", "load")}
    for part, names in (("prompts", _FACTS_OF_PROMPTS), ("load", _FACTS_OF_LOAD)):
        setting[part] = {name: asked.get("setting", {}).get(part, {}).get(name) for name in names}
    return {
        **{name: value for name, value in facts.items() if name not in _VOLATILE},
        "server": {"model": record["server"]["model"], "info": record["server"].get("info", {})},
        "driver": {name: driver.get(name) for name in ("name", "stamps", "version")},
        "setting": setting,
        "repeats": asked["repeats"],
        "slo": asked["slo"],
    }


def differing_facts(one: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    """Return where the facts of two results differ, without what is each result's own and what the question says."""
    return [found for found in differing(one, other) if found[0] not in _OWN_PLACE | _OF_THE_QUESTION]
