"""Reads the hosts file: the side clients, how each is reached, and where its load goes.

    ssh: {known_hosts: ~/.ssh/known_hosts}          # what all `ssh` entries share; may be missing
    side_clients:
      c1: {ssh: {host: c1.example, user: bench}, directory: /mnt/g4/bench, interface: eth1}
      c2: {netns: lab-c2, directory: /srv/bench}
      c3: {local: true, directory: /srv/bench}
    iperf3: {address: 192.0.2.11, ports: [5201, 5202, 5203], server: {ssh: {host: storage.example}}}

Without `iperf3.server` somebody else runs `iperf3 -s` on each port. Unknown keys are errors, with file and line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from kvbench import strict_yaml
from kvbench.errors import HostError
from kvbench.strict_yaml import Strict

if TYPE_CHECKING:
    from collections.abc import Collection

    from kvbench.typed_json import JsonObject

Port = Annotated[int, Field(ge=1, le=65535)]
_KIND = strict_yaml.Kind("a hosts file", "Name a hosts file; docs/neighbors.md shows one.", "docs/neighbors.md")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


class SharedSsh(Strict):
    """What all `ssh` entries of a file share; what is missing comes from the user's ssh_config.

    `jump` is a host to go through, `from_netns` the network namespace of this host that the connection starts in.
    """

    host: Annotated[str, Field(min_length=1)] | None = None
    port: Port | None = None
    user: str | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    config: Path | None = None
    jump: str | None = None
    from_netns: str | None = None


class SshReach(SharedSsh):
    """How a host behind sshd is reached."""

    host: Annotated[str, Field(min_length=1)]


class Reach(Strict):
    """How a host is reached: `local: true`, `netns: NAME` or `ssh: {...}`; exactly one of them."""

    local: bool = False
    netns: Annotated[str, Field(pattern=rf"^{_NAME}$")] | None = None
    ssh: SshReach | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.local + (self.netns is not None) + (self.ssh is not None) != 1:
            raise ValueError("give exactly one of `local: true`, `netns` and `ssh`")
        return self


class Entry(Reach):
    """A side client: how it is reached, the directory that fio loads, and the interface that is counted.

    Without `interface` all interfaces but `lo` are counted. `weight` is its share of the load.
    """

    directory: Path | None = None
    interface: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("directory")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and (not path.is_absolute() or ":" in str(path)):
            raise ValueError("a target is an absolute path without a colon")
        return path


class Fabric(Strict):
    """The far end of iperf3: an address, one port for each side client, and where the servers are started."""

    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$")]
    ports: Annotated[tuple[Port, ...], Field(min_length=1)]
    server: Reach | None = None

    @field_validator("ports")
    @classmethod
    def _distinct(cls, ports: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ports)) != len(ports):
            raise ValueError("one iperf3 server takes one client, so each port may stand here once")
        return ports


class HostsFile(Strict):
    """All side clients by name, and the far end of the fabric."""

    ssh: SharedSsh | None = None
    side_clients: Annotated[dict[Annotated[str, Field(pattern=rf"^{_NAME}$")], Entry], Field(min_length=1)]
    iperf3: Fabric | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_shared_ssh(cls, tree: Any) -> Any:
        """Give every `ssh` entry what the file says for all of them, where the entry does not say it itself."""
        return _with_shared(tree, SharedSsh.model_fields)

    @model_validator(mode="after")
    def _enough_ports(self) -> Self:
        if self.iperf3 is not None and len(self.iperf3.ports) < len(self.side_clients):
            raise ValueError(f"{len(self.side_clients)} side clients need as many iperf3 ports")
        return self


def load(path: Path) -> HostsFile:
    """Read and check a hosts file.

    Raises:
        HostError: it cannot be read, is not YAML, or holds what no host can be made of; with file and line.

    """
    try:
        return strict_yaml.load(path, _KIND, HostsFile)
    except strict_yaml.Fault as fault:
        raise HostError(fault.message, fault.remedy) from None


def _with_shared(tree: Any, known: Collection[str]) -> Any:
    if not isinstance(tree, dict) or not isinstance(tree.get("ssh"), dict):
        return tree
    shared = {key: value for key, value in tree["ssh"].items() if key in known}  # others are refused where they stand
    clients, fabric = tree.get("side_clients"), tree.get("iperf3")
    entries = clients if isinstance(clients, dict) else {}
    found = dict(tree)
    if entries:
        found["side_clients"] = {name: _entry(entry, shared) for name, entry in entries.items()}
    if isinstance(fabric, dict) and "server" in fabric:
        found["iperf3"] = {**fabric, "server": _entry(fabric["server"], shared)}
    return found


def _entry(entry: Any, shared: JsonObject) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("ssh"), dict):
        return {**entry, "ssh": {**shared, **entry["ssh"]}}
    return entry
