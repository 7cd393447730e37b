"""Matches the side clients of a hosts file with the generator of a scenario, and checks both.

Everything that can be wrong without asking a host is found here, before anything is connected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from kvbench.errors import HostError
from kvbench.testbed.hosts.open_host import open_host
from kvbench.testbed.neighbors.agent_client import BOOTSTRAP
from kvbench.testbed.neighbors.agent_host import PROTOCOL
from kvbench.testbed.neighbors.generator import Start
from kvbench.testbed.neighbors.registry import generator_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kvbench.scenario.neighbors import NeighborSpec
    from kvbench.testbed.hosts.file import Fabric, HostsFile, Reach
    from kvbench.typed_json import JsonObject


class GoFields(TypedDict, total=False):
    """The fields of the order `go` but its time: a command, where its bytes are counted, the port of a far end."""

    command: list[str]
    count: str
    listens: int


@dataclass(frozen=True)
class Place:
    """One agent's place: a side client, or the far end of one side client's fabric load (`is_server`)."""

    name: str
    reach: Reach
    spec: NeighborSpec
    directory: str | None = None
    interface: str | None = None
    weight: float = 1.0
    fabric: Fabric | None = None
    port: int = 0
    is_server: bool = False

    def check(self, hello: JsonObject) -> None:
        """Refuse a host without the generator.

        Raises:
            HostError: the generator is missing or too old.

        """
        if hello.get("protocol") != PROTOCOL:
            raise HostError(f"{self.name}: its agent speaks another protocol", "Use one version of kvbench.")
        if finding := generator_of(self.spec).preflight(self.spec.keys, hello):
            sentence, remedy = finding
            raise HostError(f"{self.name}: {sentence}", remedy)

    def preparation(self, run: str) -> dict[str, object]:
        """Return the fields of the order `prepare`."""
        order = {
            "run": run,
            "sample_s": self.spec.sample,
            "max_runtime_s": self.spec.max_runtime,
            "interface": self.interface,
        }
        generator = generator_of(self.spec)
        if generator.layout is None:
            return order
        layout = generator.layout(self.spec.keys)
        target = {"directory": self.directory, "need_bytes": layout.need_bytes, "direct": layout.direct}
        return {**order, **target, "layout": layout.command}

    def start(self, rate_bytes_per_s: float | None, hello: JsonObject) -> GoFields:
        """Return the fields of the order `go` but its time."""
        spec, generator = self.spec, generator_of(self.spec)
        if self.is_server and self.fabric is not None and generator.far_end is not None:
            return {"command": generator.far_end(self.fabric, self.port), "count": "", "listens": self.port}
        version = str(hello.get(generator.key))
        start = Start(rate_bytes_per_s, spec.max_runtime, spec.sample, version, self.fabric, self.port)
        work = generator.start(spec.keys, start)
        return {"command": work.command, "count": work.count}


@dataclass(frozen=True)
class Placement:
    """A spec and all places that it needs."""

    spec: NeighborSpec
    places: tuple[Place, ...]

    @property
    def clients(self) -> tuple[Place, ...]:
        """The side clients alone."""
        return tuple(place for place in self.places if not place.is_server)


def placement_of(spec: NeighborSpec, hosts: HostsFile, tier_paths: Iterable[Path] = ()) -> Placement:
    """Put a spec and a hosts file together; `tier_paths` are the server's own directories, which no neighbour loads.

    Raises:
        HostError: a side client is not in the file, has no directory for fio or the server's, or iperf3 has no far end.

    """
    generator = generator_of(spec)
    names = spec.clients or tuple(hosts.side_clients)
    for name in names:
        if name not in hosts.side_clients:
            known = ", ".join(hosts.side_clients)
            raise HostError(f"there is no side client {name} in the hosts file", f"It names {known}.")
        if generator.layout is not None and hosts.side_clients[name].directory is None:
            raise HostError(f"{name} has no directory for {generator.key}", "Add `directory` to it in the hosts file.")
        _check_apart(name, hosts.side_clients[name].directory, tier_paths)
    fabric = hosts.iperf3 if generator.far_end is not None else None
    if generator.far_end is not None and fabric is None:
        raise HostError(
            f"{generator.key} has no far end", "Add `iperf3: {address: ..., ports: [...]}` to the hosts file."
        )
    ports = dict(zip(names, fabric.ports, strict=False)) if fabric is not None else {}
    places = []
    for name in names:
        entry = hosts.side_clients[name]
        directory = str(entry.directory) if entry.directory is not None and generator.layout is not None else None
        load = {"interface": entry.interface, "weight": entry.weight}
        places.append(Place(name, entry, spec, directory, **load, fabric=fabric, port=ports.get(name, 0)))  # type: ignore[arg-type]
    if fabric is not None and fabric.server is not None:
        server = fabric.server
        places += [Place(f"server-{p}", server, spec, fabric=fabric, port=p, is_server=True) for p in ports.values()]
    return Placement(spec, tuple(places))


def _check_apart(name: str, directory: Path | None, tier_paths: Iterable[Path]) -> None:
    """Refuse a target in the server's KV directory, by its text too: another host may have mounted it there as well."""
    for tier in tier_paths:
        for target in () if directory is None else {directory, directory.resolve()}:
            if {tier.absolute(), tier.resolve()} & {target, *target.parents}:
                text = f"{name}: {directory} is in the server's own KV directory"
                raise HostError(text, "Name another directory on the same storage, such as one beside it.")


def commands(placement: Placement) -> list[str]:
    """Return every line that would be run on a host, for a dry run; rates are filled in at the start."""
    lines, generator = [], generator_of(placement.spec)
    for place in placement.places:
        lines.append(open_host(place.name, place.reach).describe(BOOTSTRAP))
        folder = f"{place.directory}/.kvbench/<run id>.{place.name}.0"
        works = [place.start(None, {"iperf3": "iperf 3.12"})["command"]]
        if generator.layout is not None:
            works.insert(0, generator.layout(placement.spec.keys).command)
        lines += ["  " + " ".join(word.replace("{folder}", folder) for word in work) for work in works]
    return lines
