"""Starts everything that a scenario needs, as one context that stops it in reverse order.

Everything that can be refused is refused here, before the first request: a driver that is not there, a tier path in
memory or without write permission, an endpoint that does not answer, a side client that cannot be reached or trusted.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvbench.drivers.target import Target
from kvbench.result.files import locked
from kvbench.scenario.models import Tiers
from kvbench.testbed.preflight import check_all
from kvbench.testbed.servers import tier_directory
from kvbench.testbed.servers.endpoint import plain_url
from kvbench.testbed.servers.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kvbench.drivers.aiperf import AiperfDriver
    from kvbench.drivers.native import NativeDriver
    from kvbench.result.run_record import BottleneckRecord
    from kvbench.scenario.models import Treatment
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.neighbors.neighbor_loads import Loads
    from kvbench.testbed.neighbors.read_limit import Cap
    from kvbench.testbed.servers.endpoint import Endpoint
    from kvbench.testbed.servers.kind import ServerKind


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
                native = stack.enter_context(self._native(target))
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
            yield endpoint, stack.enter_context(self._native(target))

    def _native(self, target: Target) -> NativeDriver:
        from kvbench.drivers.native import NativeDriver  # noqa: PLC0415 - a scenario is checked without a driver

        return NativeDriver(target, timeout_s=self.scenario.load.timeout)

    def _measuring(self, native: NativeDriver, target: Target, folder: Path) -> NativeDriver | AiperfDriver:
        if self.scenario.load.driver == "native":
            return native
        from kvbench.drivers import aiperf  # noqa: PLC0415 - the native driver shall start without it

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
    with locked(tier, "the tier"):
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
        if scenario.neighbors is None and scenario.bottleneck is None:
            yield Testbed(scenario, check_all(scenario), stack)
            return
        from kvbench.testbed import disturbance  # noqa: PLC0415 - most scenarios have no neighbours

        lab_hosts = disturbance.make_link(scenario, stack)
        attached = check_all(scenario)
        made = disturbance.make(scenario, lab_hosts, stack)
        yield Testbed(scenario, attached, stack, cap=made.cap, loads=made.loads, bottleneck=made.bottleneck)
