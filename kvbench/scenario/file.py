"""Reads a scenario file (YAML 1.2, so `off` is a string) and names file and line of every fault.

`load` is the only function that reads a scenario. Everything is checked before anything starts. A fault that an option
of the command line has brought in is blamed on the option, and not on a line of the file.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from kvbench import strict_yaml
from kvbench.errors import OverrideError, ScenarioError
from kvbench.scenario.scenario import Scenario
from kvbench.strict_yaml import Fault, locate, plain

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.strict_yaml import Tree


_KIND = strict_yaml.Kind("a scenario", "Start from a scenario file such as scenarios/quick.yaml.", "docs/scenarios.md")


@dataclass(frozen=True, slots=True)
class _Option:
    """What the command line changes: how it was written, and the key that it sets."""

    text: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the values of a scenario came from: a file, and options that changed some of them."""

    path: Path
    tree: Tree
    options: tuple[_Option, ...] = ()
    model: type[Scenario] = Scenario

    def error(self, fault: Fault) -> ScenarioError:
        """Return the error for a fault, with the option or else the line that is to blame."""
        option = self._blamed(tuple(map(str, fault.where)))
        if option is not None:
            return OverrideError(f"{option}: {fault.sentence}", fault.remedy)
        return ScenarioError(fault.sentence, fault.remedy, path=self.path, line=fault.line)

    def _blamed(self, where: tuple[str, ...]) -> str | None:
        """Return the option that sets the key; another only where the file has no such line, or no fault by itself."""
        for option in reversed(self.options):
            if where[: len(option.keys)] == option.keys:
                return option.text
        is_in_file = locate(self.tree.nodes, where)[0] is not None
        if not self.options or (is_in_file and not _is_sound(self.path, self.model)):
            return None
        nearest = max(self.options, key=lambda option: _shared(option.keys, where))
        return nearest.text if _shared(nearest.keys, where) else ", ".join(option.text for option in self.options)


def load(
    path: Path,
    overrides: tuple[str, ...] = (),
    endpoint: str | None = None,
    driver: str | None = None,
    model: type[Scenario] = Scenario,
) -> Scenario:
    """Read and check a scenario file; `overrides` are `a.b=c` texts whose values are YAML.

    `model` is `scenario.model_with` the keys of all registered servers and generators.

    `endpoint` is the URL of a server that takes the place of the scenario's own, `driver` the load driver.

    Raises:
        ScenarioError: unreadable file, YAML fault, unknown or mistyped key, values that contradict one another.
        OverrideError: the same, where an override, the endpoint or the driver brought it in.

    """
    tree = _read(path)
    nodes = tree.nodes
    options = [_apply_override(nodes, override) for override in overrides]
    if driver is not None:
        option = _apply_override(nodes, f"load.driver={driver}")
        options.append(_Option(f"--driver {driver}", option.keys))
    if endpoint is not None:
        given = nodes.get("server")
        external = given.get("external") if isinstance(given, dict) else None
        nodes["server"] = {"external": {**(plain(external) or {}), "url": endpoint}}
        options.append(_Option("--endpoint", ("server", "external", "url")))
    source = _Source(path, tree, tuple(options), model)
    try:
        scenario = strict_yaml.check(tree, model)
    except Fault as fault:
        raise source.error(fault) from None
    if scenario.server.external is not None and scenario.server.external.ca_file is not None:
        _check_ca_file(scenario.server.external.ca_file, source)
    return scenario


def _read(path: Path) -> Tree:
    try:
        return strict_yaml.parse(strict_yaml.read(path, _KIND), str(path), _KIND)
    except Fault as fault:
        raise ScenarioError(fault.sentence, fault.remedy, path=path, line=fault.line) from None


def _is_sound(path: Path, model: type[Scenario]) -> bool:
    """Tell whether a file by itself, without options, is a scenario."""
    try:
        strict_yaml.check(_read(path), model)
    except Fault:
        return False
    return True


def _shared(first_path: tuple[str, ...], second_path: tuple[str, ...]) -> int:
    """Return how many keys two paths have in common from their beginning."""
    count = 0
    for first, second in zip(first_path, second_path, strict=False):
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
        sentence = f"`server.external.ca_file`: {ca_file} {reason}"
        remedy = "Name a file of certificates in PEM form; its path is relative to where kvbench is started."
        raise source.error(source.tree.fault(("server", "external", "ca_file"), sentence, remedy)) from None


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
