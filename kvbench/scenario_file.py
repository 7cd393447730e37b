"""A scenario file: YAML 1.2 (so that `off` is a word) into a checked `Scenario`, with file and line for every fault.

`load` is the only function that reads a scenario. Everything is checked before anything starts. A fault that an option
of the command line has brought in is blamed on the option, and not on a line of the file.
"""

from __future__ import annotations

import difflib
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kvbench.errors import OverrideError, ScenarioError
from kvbench.neighbor_spec import Bottleneck, FioJob, Iperf3Flow, LocalClients, Neighbors, NeighborSpec, Target
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
    nearest,
)
from kvbench.yaml_tree import locate, plain

if TYPE_CHECKING:
    from pathlib import Path


_PLAIN = {  # pydantic's words for what a person who writes YAML has done
    "too_short": "this list needs at least one item",
    "tuple_type": "this must be a list, such as [10k, 130k]",
    "model_type": "this must be a mapping of keys",
    "model_attributes_type": "this must be a mapping of keys",
}


@dataclass(frozen=True, slots=True)
class _Option:
    """What the command line changes: how it was written, and the key that it sets."""

    said: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the values of a scenario came from: a file, and options that changed some of them."""

    path: Path
    tree: CommentedMap
    options: tuple[_Option, ...]

    def error(self, where: tuple[str | int, ...], sentence: str, remedy: str) -> ScenarioError:
        """Return the error for a fault at a key, with the option or else the line that is to blame."""
        option = self._blamed(tuple(map(str, where)))
        if option is not None:
            return OverrideError(f"{option}: {sentence}", remedy)
        return ScenarioError(sentence, remedy, path=self.path, line=locate(self.tree, where)[0])

    def _blamed(self, where: tuple[str, ...]) -> str | None:
        """Return the option that sets the key; another only where the file has no such line, or no fault by itself."""
        for option in reversed(self.options):
            if where[: len(option.keys)] == option.keys:
                return option.said
        is_in_file = locate(self.tree, where)[0] is not None
        if not self.options or (is_in_file and not _is_sound(self.path)):
            return None
        nearest = max(self.options, key=lambda option: _shared(option.keys, where))
        return nearest.said if _shared(nearest.keys, where) else ", ".join(option.said for option in self.options)


def load(
    path: Path, overrides: tuple[str, ...] = (), endpoint: str | None = None, driver: str | None = None
) -> Scenario:
    """Read and check a scenario file; `overrides` are `a.b=c` texts whose values are YAML.

    `endpoint` is the URL of a server that takes the place of the scenario's own, `driver` the load driver.

    Raises:
        ScenarioError: unreadable file, YAML fault, unknown or mistyped key, values that contradict one another.
        OverrideError: the same, where an override, the endpoint or the driver brought it in.

    """
    tree = _read_yaml(path)
    options = [_apply_override(tree, override) for override in overrides]
    if driver is not None:
        option = _apply_override(tree, f"load.driver={driver}")
        options.append(_Option(f"--driver {driver}", option.keys))
    if endpoint is not None:
        given = tree.get("server")
        external = given.get("external") if isinstance(given, dict) else None
        tree["server"] = {"external": {**(plain(external) or {}), "url": endpoint}}
        options.append(_Option("--endpoint", ("server", "external", "url")))
    source = _Source(path, tree, tuple(options))
    try:
        scenario = Scenario.model_validate(plain(tree))
    except ValidationError as fault:
        raise _first_error(fault, source) from None
    if scenario.server.external is not None and scenario.server.external.ca_file is not None:
        _check_ca_file(scenario.server.external.ca_file, source)
    return scenario


def _is_sound(path: Path) -> bool:
    """Tell whether a file by itself, without options, is a scenario."""
    try:
        Scenario.model_validate(plain(_read_yaml(path)))
    except ValidationError:
        return False
    return True


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many keys two paths have in common from their beginning."""
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count


def _check_ca_file(ca_file: Path, source: _Source) -> None:
    """Refuse a file without certificates here, where its line is known."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except OSError as fault:
        reason = "holds no certificate" if isinstance(fault, ssl.SSLError) else "cannot be read"
        raise source.error(
            ("server", "external", "ca_file"),
            f"`server.external.ca_file`: {ca_file} {reason}",
            "Name a file of certificates in PEM form; its path is relative to where kvbench is started.",
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


def _apply_override(tree: CommentedMap, override: str) -> _Option:
    said, (keys, equals, value) = f"--set {override}", override.partition("=")
    if not equals or not keys:
        raise OverrideError(f"{said} is not of the form a.b=c", "Write for example --set repeats=3.")
    *parents, last = keys.split(".")
    node: Any = tree
    for key in parents:
        child = node.get(key) if isinstance(node, dict) else None
        if child is None:
            child = node[key] = CommentedMap()
        if not isinstance(child, dict):
            raise OverrideError(f"{said}: {key} is not a mapping", "Name the key by its full path.")
        node = child
    try:
        node[last] = plain(YAML(typ="rt").load(value)) if value else None
    except YAMLError:
        remedy = "Write the value as in a scenario file, in quotes for the shell: --set 'prompts.lengths=[1k, 2k]'."
        raise OverrideError(f"{said}: {value} is not YAML", remedy) from None
    return _Option(said, (*parents, last))


def _first_error(fault: ValidationError, source: _Source) -> ScenarioError:
    """Turn pydantic's first complaint into one sentence with the line or the option that is to blame."""
    found = fault.errors()
    error = next(
        (one for one in found if one["type"] == "extra_forbidden"), found[0]
    )  # a typo explains what is missing
    cause = error.get("ctx", {}).get("error")
    where = cause.where if isinstance(cause, Contradiction) else error["loc"]
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        near = difflib.get_close_matches(key, _known_keys(), n=1)
        remedy = f"Did you mean `{near[0]}`?" if near else "Remove the key, or look it up in docs/scenarios.md."
        return source.error(where, f"unknown key `{key}`", remedy)
    if error["type"] == "missing":
        missing = ".".join(str(key) for key in error["loc"])
        return source.error(where, f"`{missing}` is missing", f"Add `{missing}`.")
    plain = _PLAIN.get(error["type"], error["msg"][:1].lower() + error["msg"][1:])
    sentence = str(cause) if cause is not None else f"{plain} (got {error.get('input')!r})"
    remedy = getattr(cause, "remedy", None) or "Mend this value; docs/scenarios.md lists what each key takes."
    if error["type"] == "literal_error":
        remedy = nearest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    return source.error(where, f"`{locate(source.tree, where)[1] or 'scenario'}`: {sentence}", remedy)


def _known_keys() -> list[str]:
    keys: set[str] = set()
    models: list[type[BaseModel]] = [Scenario, ServerSpec, EmulatorSpec, ExternalSpec, Scale, Tiers, PathTier]
    models += [VllmSpec, OffloadingSpec]
    models += [Prompts, Load, Treatment, Warm, Slo]
    models += [Neighbors, NeighborSpec, LocalClients, FioJob, Iperf3Flow, Target, Bottleneck]
    for model in models:
        keys |= set(model.model_fields)
    return sorted(keys)
