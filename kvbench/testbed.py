"""The testbed: all of the world that a scenario needs, as one context that is torn down in reverse.

Everything that can be refused is refused here, before the first request: a driver that is not there, a tier path in
memory or without write permission, an endpoint that does not answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench import facts, plan, store
from kvbench.errors import ServerError, StorageError
from kvbench.load.native import NativeDriver
from kvbench.load.target import Target
from kvbench.servers import emulator, external, tier_directory, vllm
from kvbench.servers.endpoint import plain_url
from kvbench.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.load.aiperf import AiperfDriver
    from kvbench.scenario import Scenario
    from kvbench.scenario_models import Treatment, VllmSpec
    from kvbench.servers.endpoint import Endpoint

_SPARE = 1.1  # headers, padding and the canaries


@dataclass(frozen=True)
class Testbed:
    """What stands ready for the runs of one scenario, and is torn down when `stand_up` ends.

    `attached` is the server that somebody else runs, if any; `kept` holds servers that take long to start and therefore
    serve all runs that need one like them: one with its cache off, and one for each set of tiers.
    """

    scenario: Scenario
    attached: Endpoint | None
    stack: contextlib.ExitStack
    kept: dict[str, Endpoint] = field(default_factory=dict)
    held: list[Path] = field(default_factory=list)

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
            target = Target(endpoint.url, self.scenario.load.api, endpoint.api_key, endpoint.ca_file)
            try:
                native = stack.enter_context(NativeDriver(target, timeout_s=self.scenario.load.timeout))
                yield endpoint, native, self._measuring(native, target, folder)
            except KeyboardInterrupt:
                # What follows is bounded and stops the server: a second Ctrl-C must not leave it running.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                raise

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
        return found

    def _start(self, stack: contextlib.ExitStack, logs: Path, treatment: Treatment) -> Endpoint:
        """Start a fresh emulator for this run alone, or the one vLLM of its kind."""
        server, tiers, cache_on = self.scenario.server, treatment.tiers or self.scenario.tiers, treatment.cache != "off"
        for tier in tiers.directories.values():
            if tier.path not in self.held:
                self.held.append(tier.path)
                self.stack.enter_context(store.locked(tier.path, "the tier"))
        if server.emulator is not None:
            log = logs / "emulator.log"
            return stack.enter_context(emulator.serve(server.emulator, tiers, log, cache_on=cache_on))
        assert server.vllm is not None  # noqa: S101 - a scenario has exactly one server
        kind = f"{cache_on} {tiers.model_dump_json() if cache_on else ''}"
        if kind not in self.kept:
            serving = vllm.serve(server.vllm, tiers, logs / "vllm.log", cache_on=cache_on)
            self.kept[kind] = self.stack.enter_context(serving)
        return self.kept[kind]


@contextlib.contextmanager
def stand_up(scenario: Scenario) -> Iterator[Testbed]:
    """Check what the scenario needs and attach to what is already running; stop in the end what was started.

    Raises:
        DriverError: the driver is not available.
        StorageError: a tier path cannot serve as a disk tier.
        ServerError: there is no vLLM where the scenario says.
        EndpointError: the external server cannot be used.

    """
    if scenario.load.driver == "aiperf":
        from kvbench.load import aiperf  # noqa: PLC0415

        aiperf.find()
    for name, tier in scenario.directories.items() if scenario.server.external is None else ():
        _check_tier_path(name, tier.path)
        _check_free_space(name, tier.path, scenario)
    if scenario.server.vllm is not None:
        _check_vllm(scenario.server.vllm)
    if scenario.server.emulator is not None:
        _check_profile(scenario.server.emulator.profile)
    attached = external.attach(scenario.server.external) if scenario.server.external is not None else None
    if attached is not None:
        Target(
            attached.url, scenario.load.api, attached.api_key, attached.ca_file
        )  # refuses what the driver cannot drive
    with contextlib.ExitStack() as stack:
        yield Testbed(scenario, attached, stack)


def _check_profile(name: str) -> None:
    """Refuse a profile that is not shipped; a file was read with the scenario."""
    if Path(name).suffix in (".yaml", ".yml"):
        return
    profiles = Path(__file__).parent / "emulator" / "profiles"
    known = sorted(path.stem for path in profiles.glob("*.yaml"))
    if name not in known:
        raise ServerError(f"the emulator has no profile {name}", f"Use one of {', '.join(known)}, or a YAML file.")


def _check_vllm(spec: VllmSpec) -> None:
    if not os.access(spec.python, os.X_OK):
        raise ServerError(
            f"there is no Python at {spec.python} to run vLLM with",
            "Make the environment (`make real-cpu` makes one for CPUs), or set server.vllm.python.",
        )
    if spec.offloading_spec is not None and not spec.offloading_spec.file.is_file():
        raise ServerError(f"there is no file {spec.offloading_spec.file}", "Set server.vllm.offloading_spec.file.")


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
