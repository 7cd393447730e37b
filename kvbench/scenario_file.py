"""A scenario file: YAML 1.2 (so that `off` is a word) into a checked `Scenario`, with file and line for every fault.

`load` is the only function that reads a scenario. Everything is checked before anything starts.
"""

from __future__ import annotations

import difflib
import ssl
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from kvbench.errors import ScenarioError
from kvbench.scenario import Contradiction, Scenario
from kvbench.scenario_models import (
    EmulatorSpec,
    ExternalSpec,
    Load,
    OffloadingSpec,
    PathTier,
    Prompts,
    Scale,
    ServerSpec,
    Slo,
    Tiers,
    Treatment,
    VllmSpec,
    Warm,
)

if TYPE_CHECKING:
    from pathlib import Path


_PLAIN = {  # pydantic's words for what a person who writes YAML has done
    "too_short": "this list needs at least one item",
    "tuple_type": "this must be a list, such as [10k, 130k]",
    "model_type": "this must be a mapping of keys",
    "model_attributes_type": "this must be a mapping of keys",
    "string_pattern_mismatch": "this does not have the right form",
}


def load(path: Path, overrides: tuple[str, ...] = (), endpoint: str | None = None) -> Scenario:
    """Read and check a scenario file; `overrides` are `a.b=c` texts whose values are YAML.

    `endpoint` is the URL of a server that takes the place of the scenario's own.

    Raises:
        ScenarioError: unreadable file, YAML fault, unknown or mistyped key, values that contradict one another.

    """
    tree = _read_yaml(path)
    for override in overrides:
        _apply_override(tree, override)
    if endpoint is not None:
        given = tree.get("server")
        external = given.get("external") if isinstance(given, dict) else None
        tree["server"] = {"external": {**(_plain(external) or {}), "url": endpoint}}
    try:
        scenario = Scenario.model_validate(_plain(tree))
    except ValidationError as fault:
        raise _first_error(fault, tree, path) from None
    if scenario.server.external is not None and scenario.server.external.ca_file is not None:
        _check_ca_file(scenario.server.external.ca_file, tree, path)
    return scenario


def _check_ca_file(ca_file: Path, tree: CommentedMap, path: Path) -> None:
    """Refuse a file without certificates here, where its line is known."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except OSError as fault:
        reason = "holds no certificate" if isinstance(fault, ssl.SSLError) else "cannot be read"
        line, _ = _locate(tree, ("server", "external", "ca_file"))
        raise ScenarioError(
            f"`server.external.ca_file`: {ca_file} {reason}",
            "Name a file of certificates in PEM form; its path is relative to where kvbench is started.",
            path=path,
            line=line,
        ) from None


def _read_yaml(path: Path) -> CommentedMap:
    try:
        tree = YAML(typ="rt").load(path.read_text())
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        remedy = "Name a scenario file, such as scenarios/quick.yaml."
        raise ScenarioError(f"cannot read it: {reason}", remedy, path=path) from None
    except MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else None
        raise ScenarioError(
            f"not YAML: {fault.problem}", "Mend the syntax in this line.", path=path, line=line
        ) from None
    if not isinstance(tree, CommentedMap):
        raise ScenarioError("a scenario is a mapping of keys", "Start from scenarios/quick.yaml.", path=path)
    return tree


def _apply_override(tree: CommentedMap, override: str) -> None:
    keys, equals, value = override.partition("=")
    if not equals or not keys:
        raise ScenarioError(f"--set {override} is not of the form a.b=c", "Write for example --set repeats=3.")
    *parents, last = keys.split(".")
    node: Any = tree
    for key in parents:
        child = node.get(key) if isinstance(node, dict) else None
        if child is None:
            child = node[key] = CommentedMap()
        if not isinstance(child, dict):
            raise ScenarioError(f"--set {override}: {key} is not a mapping", "Name the key by its full path.")
        node = child
    node[last] = _plain(YAML(typ="rt").load(value)) if value else None


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def _first_error(fault: ValidationError, tree: CommentedMap, path: Path) -> ScenarioError:
    """Turn pydantic's first complaint into one sentence with the line that is to blame."""
    found = fault.errors()
    error = next(
        (one for one in found if one["type"] == "extra_forbidden"), found[0]
    )  # a typo explains what is missing
    cause = error.get("ctx", {}).get("error")
    where = cause.where if isinstance(cause, Contradiction) else error["loc"]
    line, trail = _locate(tree, where)
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        near = difflib.get_close_matches(key, _known_keys(), n=1)
        remedy = f"Did you mean `{near[0]}`?" if near else "Remove the key, or look it up in docs/scenarios.md."
        return ScenarioError(f"unknown key `{key}`", remedy, path=path, line=line)
    if error["type"] == "missing":
        missing = ".".join(str(key) for key in error["loc"])
        return ScenarioError(f"`{missing}` is missing", f"Add `{missing}`.", path=path, line=line)
    plain = _PLAIN.get(error["type"], error["msg"][:1].lower() + error["msg"][1:])
    sentence = str(cause) if cause is not None else f"{plain} (got {error.get('input')!r})"
    remedy = "Mend this value; docs/scenarios.md lists what each key takes."
    return ScenarioError(f"`{trail}`: {sentence}", remedy, path=path, line=line)


def _locate(tree: CommentedMap, where: tuple[str | int, ...]) -> tuple[int | None, str]:
    """Follow a location as far as the file goes; return its 1-based line and the path that was followed."""
    node: Any = tree
    line: int | None = 1
    trail: list[str] = []
    for key in where:
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1 if key in (node.lc.data or {}) else None
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1
        else:
            break
        trail.append(str(key))
        node = node[key]
    return line, ".".join(trail) or "scenario"


def _known_keys() -> list[str]:
    keys: set[str] = set()
    models: list[type[BaseModel]] = [Scenario, ServerSpec, EmulatorSpec, ExternalSpec, Scale, Tiers, PathTier]
    models += [VllmSpec, OffloadingSpec]
    models += [Prompts, Load, Treatment, Warm, Slo]
    for model in models:
        keys |= set(model.model_fields)
    return sorted(keys)
