"""The hosts file: which side clients there are, how each is reached, and where its load goes.

    ssh: {known_hosts: ~/.ssh/known_hosts}          # what all `ssh` entries share; may be missing
    side_clients:
      c1: {ssh: {host: c1.example, user: bench}, directory: /mnt/g4/bench, interface: eth1}
      c2: {netns: lab-c2, directory: /srv/bench}
      c3: {local: true, directory: /srv/bench}
    iperf3: {address: 192.0.2.11, ports: [5201, 5202, 5203], server: {ssh: {host: storage.example}}}

Without `iperf3.server` somebody else runs `iperf3 -s` on each port. Unknown keys are errors, with file and line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from kvbench.errors import HostError
from kvbench.yaml_tree import locate, plain

Port = Annotated[int, Field(ge=1, le=65535)]
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


class _Strict(BaseModel):
    """Unknown keys are errors, and a value does not change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SshReach(_Strict):
    """How a host behind sshd is reached; what is missing comes from the user's ssh_config.

    `jump` is a host to go through, `from_netns` the network namespace of this host that the connection starts in.
    """

    host: Annotated[str, Field(min_length=1)]
    port: Port | None = None
    user: str | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    config: Path | None = None
    jump: str | None = None
    from_netns: str | None = None


class Reach(_Strict):
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


class Fabric(_Strict):
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


class HostsFile(_Strict):
    """All side clients by name, and the far end of the fabric."""

    side_clients: Annotated[dict[Annotated[str, Field(pattern=rf"^{_NAME}$")], Entry], Field(min_length=1)]
    iperf3: Fabric | None = None

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
        tree = YAML(typ="rt").load(path.read_text())
    except (OSError, UnicodeDecodeError) as fault:
        reason = (fault.strerror or "").lower() if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise HostError(
            f"{path}: cannot read it: {reason}", "Name a hosts file; docs/neighbors.md shows one."
        ) from None
    except MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise HostError(f"{path}:{line}: not YAML: {fault.problem}", "Mend the syntax in this line.") from None
    try:
        return HostsFile.model_validate(_with_shared_ssh(plain(tree)))
    except ValidationError as fault:
        raise _first_error(fault, tree, path) from None


def _with_shared_ssh(tree: Any) -> Any:
    """Give every `ssh` entry what the file says for all of them."""
    if not isinstance(tree, dict) or not isinstance(tree.get("ssh"), dict):
        return tree
    shared = tree["ssh"]
    rest = {key: value for key, value in tree.items() if key != "ssh"}
    clients, fabric = rest.get("side_clients"), rest.get("iperf3")
    entries = list(clients.values()) if isinstance(clients, dict) else []
    entries.append(fabric.get("server") if isinstance(fabric, dict) else None)
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("ssh"), dict):
            entry["ssh"] = {**shared, **entry["ssh"]}
    return rest


def _first_error(fault: ValidationError, tree: Any, path: Path) -> HostError:
    """Turn pydantic's first complaint into one sentence with the line that is to blame; a typo explains the rest."""
    found = fault.errors()
    error = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    line, trail = locate(tree, error["loc"])
    where = f"{path}:{line}"
    if error["type"] == "extra_forbidden":
        remedy = "Remove the key, or look it up in docs/neighbors.md."
        return HostError(f"{where}: unknown key `{error['loc'][-1]}`", remedy)
    if error["type"] == "missing":
        missing = ".".join(str(key) for key in error["loc"])
        return HostError(f"{where}: `{missing}` is missing", f"Add `{missing}`; docs/neighbors.md shows a hosts file.")
    sentence = re.sub(r"^Value error, ", "", error["msg"])
    remedy = "Mend this value; docs/neighbors.md shows a hosts file."
    return HostError(f"{where}: `{trail or 'the file'}`: {sentence[:1].lower()}{sentence[1:]}", remedy)
