"""Makes what disturbs the runs of a scenario: the link or the read limit that all share, and the neighbours.

It is imported only for a scenario that has one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.result.run_record import BottleneckRecord
from kvbench.scenario.neighbors import LocalClients
from kvbench.testbed import lab
from kvbench.testbed.hosts import file as hosts_file
from kvbench.testbed.neighbors.neighbor_loads import Loads, commands_of, folders_of, hosts_of_this_machine
from kvbench.testbed.neighbors.read_limit import capped
from kvbench.this_host import facts
from kvbench.units import format_rate

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from kvbench.scenario.neighbors import Neighbors
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.hosts.file import HostsFile
    from kvbench.testbed.neighbors.read_limit import Cap


@dataclass(frozen=True, slots=True)
class Disturbance:
    """The read limit that a server of ours comes under, the neighbours, and what a result says of the bottleneck."""

    cap: Cap | None
    loads: Loads | None
    bottleneck: BottleneckRecord | None


def make_link(scenario: Scenario, stack: contextlib.ExitStack) -> Path | None:
    """Make the link that a scenario asks for; the tier and the side clients lie behind it. Return its hosts file."""
    asked = scenario.bottleneck
    if asked is None or asked.link is None:
        return None
    link = lab.standing(asked.folder, rate_bytes_per_s=asked.link, with_sshd=False, shared_storage=True)
    return stack.enter_context(link)


def make(scenario: Scenario, lab_hosts: Path | None, stack: contextlib.ExitStack) -> Disturbance:
    """Make the read limit and bring the side clients, where the scenario has them; `stack` removes them.

    Raises:
        HostError: a side client cannot be used.

    """
    asked, bottleneck = scenario.neighbors, scenario.bottleneck
    paths, cap, record = [tier.path for tier in scenario.directories.values()], None, None
    if bottleneck is not None and bottleneck.disk is not None:
        cap = stack.enter_context(capped(facts.nearest_existing(_tier_under_test(scenario)), bottleneck.disk))
        record = cap.record()
    elif bottleneck is not None:
        reason = f"a token-bucket link between network namespaces of {format_rate(bottleneck.link or 0.0)}"
        record = BottleneckRecord("link", bottleneck.link, "tbf", reason)
    if asked is None:
        return Disturbance(cap, None, record)
    link = bottleneck.link if bottleneck is not None else None
    if asked.local is not None:
        stack.enter_context(folders_of(asked.local))
    loads = stack.enter_context(Loads(asked, _side_clients(asked, lab_hosts), cap, link, paths))
    return Disturbance(cap, loads, record)


def _tier_under_test(scenario: Scenario) -> Path:
    """Return the directory that disturbed treatments are served from; with a bottleneck there is one."""
    noisy = [name for name, treatment in scenario.treatments.items() if treatment.disturbance is not None]
    tier = scenario.path_tier_of((noisy or list(scenario.treatments))[0])
    found = scenario.directories
    return (found[tier] if tier in found else next(iter(found.values()))).path


def _side_clients(asked: Neighbors, lab_hosts: Path | None) -> HostsFile:
    file = lab_hosts or asked.hosts
    return hosts_file.load(file) if file is not None else hosts_of_this_machine(asked.local or LocalClients())


def remote_commands(scenario: Scenario) -> list[str]:
    """Return every line that would be run on side clients, for a dry run; nothing is made or connected.

    Raises:
        HostError: the hosts file is wrong, or does not fit the loads.

    """
    asked = scenario.neighbors
    if asked is None:
        return []
    if asked.hosts is None and asked.local is None:
        return ["in the namespaces behind the link, which are made when it starts"]
    return commands_of(asked, _side_clients(asked, None), [tier.path for tier in scenario.directories.values()])
