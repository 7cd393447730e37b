"""The testbed: all of the world that a scenario needs, as one context that is torn down in reverse.

Everything that can be refused is refused here, before the first request: a driver that is not there, a tier path in
memory or without write permission, an endpoint that does not answer, a side client that cannot be reached or trusted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kvbench import facts, lab, plan, store
from kvbench.errors import StorageError
from kvbench.load.native import NativeDriver
from kvbench.load.target import Target
from kvbench.neighbor_spec import LocalClients
from kvbench.result.run_record import BottleneckRecord
from kvbench.scenario_models import Tiers
from kvbench.servers import tier_directory
from kvbench.servers.endpoint import plain_url
from kvbench.servers.registry import KINDS
from kvbench.units import format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kvbench.hosts import HostsFile
    from kvbench.load.aiperf import AiperfDriver
    from kvbench.neighbor_spec import Neighbors
    from kvbench.neighbors.bottleneck import Cap
    from kvbench.neighbors.loads import Loads
    from kvbench.scenario import Scenario
    from kvbench.scenario_models import Treatment
    from kvbench.servers.endpoint import Endpoint
    from kvbench.servers.kind import ServerKind

_SPARE = 1.1  # headers, padding and the canaries


@dataclass(frozen=True)
class Testbed:
    """What stands ready for the runs of one scenario, and is torn down when `stand_up` ends.

    `attached` is the server that somebody else runs, if any; `kept` holds servers that take long to start and therefore
    serve all runs that need one like them: one with its cache off, and one for each set of tiers. `cap` is the read
    limit that a server of ours comes under, `loads` are the neighbours, `bottleneck` is what a result says of it.
    """

    scenario: Scenario
    attached: Endpoint | None
    stack: contextlib.ExitStack
    kept: dict[str, Endpoint] = field(default_factory=dict)
    held: list[Path] = field(default_factory=list)
    cap: Cap | None = None
    loads: Loads | None = None
    bottleneck: BottleneckRecord | None = None

    @property
    def kind(self) -> ServerKind:
        """The kind of the scenario's server."""
        return KINDS[self.scenario.server.kind]

    @contextlib.contextmanager
    def serving(
        self, treatment: Treatment, folder: Path
    ) -> Iterator[tuple[Endpoint, NativeDriver, NativeDriver | AiperfDriver]]:
        """Give a server, a driver to probe and prime it, and the driver that measures, for the length of one run.

        Probing and priming are always native: they are many single requests, and each start of AIPerf takes seconds.
        What the server and AIPerf write goes into the run's `folder`.
        """
        with contextlib.ExitStack() as stack:
            endpoint = self.attached or self._start(stack, folder / "logs", treatment)
            stack.enter_context(_watched(endpoint))
            target = Target(endpoint.url, self.scenario.load.api, endpoint.api_key, endpoint.ca_file)
            try:
                native = stack.enter_context(NativeDriver(target, timeout_s=self.scenario.load.timeout))
                yield endpoint, native, self._measuring(native, target, folder)
            except KeyboardInterrupt:
                # What follows is bounded and stops the server: a second Ctrl-C must not leave it running.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                raise

    @contextlib.contextmanager
    def another(self, treatment: Treatment, folder: Path) -> Iterator[tuple[Endpoint, NativeDriver]]:
        """Give a second server that shares g4 with the one that is measured, and a driver to it, to prime the tier."""
        kind, keys = self.kind, self.scenario.server.keys
        with contextlib.ExitStack() as stack:
            if kind.attach_primer is not None and self.attached is not None:
                endpoint = kind.attach_primer(keys, self.attached.model)
            else:
                assert kind.serve is not None  # noqa: S101 - the scenario refuses it elsewhere
                tiers = Tiers(g4=(treatment.tiers or self.scenario.tiers).g4)
                serving = kind.serve(keys, tiers, folder / "logs" / "primer.log", cache_on=True, shared=True)
                endpoint = stack.enter_context(serving)
            stack.enter_context(_watched(endpoint))
            target = Target(endpoint.url, self.scenario.load.api, endpoint.api_key, endpoint.ca_file)
            yield endpoint, stack.enter_context(NativeDriver(target, timeout_s=self.scenario.load.timeout))

    def _measuring(self, native: NativeDriver, target: Target, folder: Path) -> NativeDriver | AiperfDriver:
        if self.scenario.load.driver == "native":
            return native
        from kvbench.load import aiperf  # noqa: PLC0415 - the native driver shall start without it

        return aiperf.AiperfDriver(target, folder / "aiperf", timeout_s=self.scenario.load.timeout)

    def limits(self) -> list[str]:
        """Say what cannot be proven on a server that somebody else runs, for what its scenario leaves out."""
        if self.attached is None:
            return []
        found = []
        counters = self.attached.scrape()
        if counters.local_hits is None:
            url = plain_url(self.attached.metrics_url)
            found.append(f"no request's tier can be proven: {url} shows no hit counters (server.external.metrics_url)")
        if counters.process_read_bytes is None:
            found.append("bytes cannot be told from page-cache hits: server.external.pid is not given")
        if self.attached.tier_path is None:
            found.append("what the tier holds cannot be seen: server.external.tier_path is not given")
        if not (self.scenario.server.keys.bytes_per_token or self.attached.info.get("kv_bytes_per_token")):
            found.append("bytes read cannot be held against hits: server.external.kv_bytes_per_token is not given")
        return found

    def _start(self, stack: contextlib.ExitStack, logs: Path, treatment: Treatment) -> Endpoint:
        """Start a fresh server for this run alone, or the one that serves all runs with its tiers.

        Raises:
            ServerError: it did not get ready, or the one that earlier runs have used has died since.

        """
        kind, keys = self.kind, self.scenario.server.keys
        tiers, cache_on = treatment.tiers or self.scenario.tiers, treatment.cache != "off"
        for tier in tiers.directories.values():
            if tier.path not in self.held:
                self.held.append(tier.path)
                self.stack.enter_context(_held(tier.path))
        assert kind.serve is not None  # noqa: S101 - what is not started is attached
        log, sharing = logs / f"{kind.key}.log", {"shared": self.scenario.shares_g4} if keys.shares_g4 else {}
        if kind.fresh_for_each_run:
            endpoint = stack.enter_context(kind.serve(keys, tiers, log, cache_on=cache_on, **sharing))
            if self.cap is not None and endpoint.pid is not None:
                self.cap.add(endpoint.pid)
            return endpoint
        alike = f"{cache_on} {tiers.model_dump_json() if cache_on else ''}"
        if alike not in self.kept:
            serving = kind.serve(keys, tiers, log, cache_on=cache_on, **sharing)
            self.kept[alike] = self.stack.enter_context(serving)
        kept = self.kept[alike].started
        if kept is not None and (error := kept.death("between two runs")) is not None:
            raise error  # told and not replaced: a server that dies of what it is asked is a finding
        return self.kept[alike]


def _watched(endpoint: Endpoint) -> AbstractContextManager[None]:
    """Watch over the life of a server of ours; what somebody else runs is theirs to explain."""
    return endpoint.started.watched() if endpoint.started is not None else contextlib.nullcontext()


@contextlib.contextmanager
def _held(tier: Path) -> Iterator[None]:
    """Hold a tier's directory for this process, and leave nothing in it unless the runs are broken off.

    What was primed is needed by whoever goes on with them.
    """
    with store.locked(tier, "the tier"):
        yield
        tier_directory.clear(tier)


@contextlib.contextmanager
def stand_up(scenario: Scenario) -> Iterator[Testbed]:
    """Check what the scenario needs and attach to what is already running; stop in the end what was started.

    Raises:
        DriverError: the driver is not available.
        StorageError: a tier path cannot serve as a disk tier.
        ServerError: there is no vLLM where the scenario says.
        EndpointError: the external server cannot be used.
        HostError: a side client cannot be used, or a link cannot be made.

    """
    with contextlib.ExitStack() as stack:
        hosts = _make_link(scenario, stack)
        attached = _check_all(scenario)
        yield _with_neighbors(Testbed(scenario, attached, stack), hosts)


def _make_link(scenario: Scenario, stack: contextlib.ExitStack) -> Path | None:
    """Make the link that a scenario asks for; the tier and the side clients lie behind it. Return its hosts file."""
    asked = scenario.bottleneck
    if asked is None or asked.link is None:
        return None
    link = lab.standing(asked.folder, rate_bytes_per_s=asked.link, with_sshd=False, shared_storage=True)
    return stack.enter_context(link)


def _with_neighbors(bed: Testbed, lab_hosts: Path | None) -> Testbed:
    """Make the read limit and bring the side clients, where the scenario has them."""
    asked, bottleneck = bed.scenario.neighbors, bed.scenario.bottleneck
    if asked is None and bottleneck is None:
        return bed
    from kvbench.neighbors.bottleneck import capped  # noqa: PLC0415 - most scenarios have no neighbours
    from kvbench.neighbors.loads import Loads, folders_of  # noqa: PLC0415

    paths, cap, told = [tier.path for tier in bed.scenario.directories.values()], None, None
    if bottleneck is not None and bottleneck.disk is not None:
        cap = bed.stack.enter_context(capped(facts.nearest_existing(_tier_under_test(bed.scenario)), bottleneck.disk))
        told = cap.record()
    elif bottleneck is not None:
        reason = f"a token-bucket link between network namespaces of {format_rate(bottleneck.link or 0.0)}"
        told = BottleneckRecord("link", bottleneck.link, "tbf", reason)
    if asked is None:
        return replace(bed, cap=cap, bottleneck=told)
    link = bottleneck.link if bottleneck is not None else None
    if asked.local is not None:
        bed.stack.enter_context(folders_of(asked.local))
    loads = bed.stack.enter_context(Loads(asked, _side_clients(asked, lab_hosts), cap, link, paths))
    return replace(bed, cap=cap, loads=loads, bottleneck=told)


def _tier_under_test(scenario: Scenario) -> Path:
    """Return the directory that disturbed treatments are served from; with a bottleneck there is one."""
    noisy = [name for name, treatment in scenario.treatments.items() if treatment.disturbance is not None]
    tier = scenario.path_tier_of((noisy or list(scenario.treatments))[0])
    found = scenario.directories
    return (found[tier] if tier in found else next(iter(found.values()))).path


def _side_clients(asked: Neighbors, lab_hosts: Path | None) -> HostsFile:
    from kvbench import hosts  # noqa: PLC0415
    from kvbench.neighbors.loads import hosts_of_this_machine  # noqa: PLC0415

    file = lab_hosts or asked.hosts
    return hosts.load(file) if file is not None else hosts_of_this_machine(asked.local or LocalClients())


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
    from kvbench.neighbors.loads import commands_of  # noqa: PLC0415

    return commands_of(asked, _side_clients(asked, None), [tier.path for tier in scenario.directories.values()])


def _check_all(scenario: Scenario) -> Endpoint | None:
    """Check the driver, the tiers and the server; return the one that somebody else runs."""
    if scenario.load.driver == "aiperf":
        from kvbench.load import aiperf  # noqa: PLC0415

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
