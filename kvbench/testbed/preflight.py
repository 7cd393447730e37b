"""Checks before anything starts whether a scenario can run here: server, tier paths, free space."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from kvbench.drivers.target import Target
from kvbench.errors import StorageError
from kvbench.scenario import plan
from kvbench.testbed.servers import tier_directory
from kvbench.testbed.servers.registry import KINDS
from kvbench.this_host import facts
from kvbench.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.servers.endpoint import Endpoint

_SPARE = 1.1  # headers, padding and the canaries


def check_all(scenario: Scenario) -> Endpoint | None:
    """Check the driver, the tiers and the server; return the one that somebody else runs."""
    if scenario.load.driver == "aiperf":
        from kvbench.drivers import aiperf  # noqa: PLC0415

        aiperf.find()
    for name, tier in scenario.directories.items() if scenario.server.keys.is_started else ():
        _check_tier_path(name, tier.path)
        _check_free_space(name, tier.path, scenario)
    kind, keys = KINDS[scenario.server.kind], scenario.server.keys
    if kind.check is not None:
        kind.check(keys)
    attached = kind.attach(keys) if kind.attach is not None else None
    if attached is not None:
        Target(
            attached.url, scenario.load.api, attached.api_key, attached.ca_file
        )  # refuses what the driver cannot drive
    if kind.attach_primer is not None and attached is not None and scenario.shares_g4:
        kind.attach_primer(keys, attached.model)
    return attached


def _check_tier_path(tier: str, path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise StorageError(f"{tier} path {path} is not a directory", "Name a directory, never a device or a link.")
    parent = facts.nearest_existing(path)
    if facts.lives_in_memory(path):
        raise StorageError(
            f"{tier} path {path} is on a file system in memory, where a disk tier would prove nothing",
            f"Set tiers.{tier}.path to a directory on a disk.",
        )
    if path.is_dir() and any(path.iterdir()):
        tier_directory.check_marker(path)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(
            f"{tier} path {path} cannot be written", f"Set tiers.{tier}.path to a folder that you may write."
        )
    if parent != path.absolute():
        _check_creation(tier, path, parent)


def _check_creation(tier: str, path: Path, parent: Path) -> None:
    """Try to make a directory beside one that is to be made: a right to write says nothing of /proc."""
    try:
        with tempfile.TemporaryDirectory(prefix=".kvbench-", dir=parent):
            pass
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise StorageError(
            f"{tier} path {path} cannot be used: nothing can be created in {parent} ({reason})",
            f"Set tiers.{tier}.path to a directory on a disk that takes files.",
        ) from None


def _check_free_space(tier: str, path: Path, scenario: Scenario) -> None:
    """Refuse a disk that cannot take the working set; files of an earlier result count as free, since they go first."""
    need = (plan.working_set_bytes(scenario) or 0.0) * _SPARE
    parent = facts.nearest_existing(path)
    free = facts.path_facts(path)["free_bytes"] + sum(
        tier_directory.listing(parent).values() if parent == path.absolute() else ()
    )
    if free < need:
        raise StorageError(
            f"{tier} path {path} has {format_size(free)} free, the scenario's prompts take {format_size(need)}",
            "Free some space there, name another path, or send fewer or shorter prompts.",
        )
