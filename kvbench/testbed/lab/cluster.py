"""Makes, uses, removes and finds again the whole lab.

Everything is named by a prefix and lies in one marked folder, and the namespaces know that folder, so that `down`
removes all of it whatever has happened to those who made it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

from kvbench.errors import HostError
from kvbench.testbed.lab.gluster import check_storage, mount_points, mounted, start_storage, unmount
from kvbench.testbed.lab.network import (
    CLIENTS,
    PREFIX,
    address,
    cap,
    check_permitted,
    folder_of,
    labs,
    namespaces,
    unwire,
    wire,
)
from kvbench.testbed.lab.sshd import check_sshd, start_every_sshd
from kvbench.testbed.neighbors.agent_host import starting_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

MARKER = ".kvbench-lab.json"


def up(
    folder: Path,
    *,
    rate_bytes_per_s: float | None = 125e6,
    prefix: str = PREFIX,
    with_sshd: bool = True,
    shared_storage: bool = False,
    owned: bool = False,
) -> Path:
    """Build the lab in a new or marked folder; return its hosts file. The uplink is uncapped without a rate.

    `owned`: it belongs to this process, and `sweep` removes it only once the process is gone.

    Raises:
        HostError: not root, a program is missing, the kernel lacks something, the lab is up already, or the folder is
            somebody else's.

    """
    check_permitted(prefix)
    if with_sshd:
        check_sshd()
    if shared_storage:
        check_storage(folder)
    if namespaces(prefix):
        raise HostError(f"a lab named {prefix} is up already", "Take it down first: kvbench lab down.")
    _claim(folder, prefix, owned=owned)
    try:
        wire(folder, prefix)
        if rate_bytes_per_s is not None:
            cap(prefix, rate_bytes_per_s)
        if shared_storage:
            start_storage(folder, prefix)
        if with_sshd:
            start_every_sshd(folder, prefix)
        targets = {client: _target(folder, client, shared=shared_storage) for client in CLIENTS}
        hosts = folder / "hosts.yaml"
        hosts.write_text(_hosts_text(folder, prefix, targets, with_sshd=with_sshd))
    except BaseException:
        down(folder, prefix=prefix)
        raise
    return hosts


def down(folder: Path | None = None, *, prefix: str = PREFIX) -> list[str]:
    """Unmount, end every process in the lab's namespaces, delete them, and remove its folder; return what was removed.

    Without a folder it is the one that the lab's bridge names.

    Raises:
        HostError: not root, or the folder does not carry the lab's marker.

    """
    check_permitted(prefix)
    known = folder_of(prefix)
    folders = {path.resolve() for path in (folder, known) if path is not None and path.exists()}
    for path in folders:
        _check_ours(path, prefix, must=path != known)
        unmount(path)
    removed = unwire(prefix)
    for path in folders:
        if mounted(path):
            raise HostError(f"something is mounted below {path}", "Unmount it, then take the lab down again.")
        if (path / MARKER).is_file():
            shutil.rmtree(path)
            removed.append(str(path))
    return removed


@contextlib.contextmanager
def standing(
    folder: Path,
    *,
    rate_bytes_per_s: float | None = 125e6,
    prefix: str = PREFIX,
    with_sshd: bool = True,
    shared_storage: bool = False,
) -> Iterator[Path]:
    """Have a lab while the context is open; gives its hosts file. Without sshd it is a token-bucket link.

    Raises:
        HostError: as `up`.

    """
    options: dict[str, Any] = {"with_sshd": with_sshd, "shared_storage": shared_storage}
    hosts = up(folder, rate_bytes_per_s=rate_bytes_per_s, prefix=prefix, owned=True, **options)
    try:
        yield hosts
    finally:
        down(folder, prefix=prefix)


def shared_mount(folder: Path, host: str) -> Path | None:
    """Return where a host of the lab sees the shared storage, None where the lab has none."""
    point = mount_points(folder).get(host)
    return point if point in mounted(folder) else None


def sweep(prefixes: Collection[str] | None = None) -> tuple[list[str], list[str]]:
    """Take down every lab whose maker is gone; return what was removed, and the prefixes of those still in use.

    A lab that was not `owned` belongs to nobody and is removed. With `prefixes` others are left alone.
    """
    removed: list[str] = []
    kept: list[str] = []
    for prefix in labs():
        if prefixes is not None and prefix not in prefixes:
            continue
        if _owner_lives(folder_of(prefix)):
            kept.append(prefix)
        else:
            removed += down(prefix=prefix)
    return removed, kept


def _claim(folder: Path, prefix: str, *, owned: bool) -> None:
    if not re.fullmatch(r"[\w./+@-]+", str(folder.resolve())):
        raise HostError(f"the path of {folder} holds unusual characters", "Use letters, digits, dots and dashes.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise HostError(f"{folder} is not a plain directory", "Name a new folder for the lab.")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise HostError(f"{folder} holds files of somebody else", "Name a new folder for the lab.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = {"pid": os.getpid(), "pid_start": starting_time(os.getpid())} if owned else {}
    (folder / MARKER).write_text(json.dumps({"made_by": "kvbench", "prefix": prefix, "owner": owner}) + "\n")


def _check_ours(folder: Path, prefix: str, *, must: bool) -> None:
    """Refuse a folder without the marker, or with that of another lab; the one that a bridge names may lack it."""
    try:
        marked = json.loads((folder / MARKER).read_text())["prefix"]
    except (OSError, ValueError, KeyError, TypeError):
        if not must:
            return
        raise HostError(
            f"{folder} does not carry the lab's marker", "Name the folder that `lab up` was given."
        ) from None
    if marked != prefix:
        raise HostError(f"{folder} belongs to the lab {marked}", "Name the folder that `lab up` was given.")


def _owner_lives(folder: Path | None) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((folder / MARKER).read_text())["owner"] if folder is not None else {}
        return bool(owner) and starting_time(owner["pid"]) == owner["pid_start"]
    return False


def _target(folder: Path, client: str, *, shared: bool) -> Path:
    """Make a side client's target: on its own view of the shared storage, or on this machine's disk."""
    root = mount_points(folder)[client] if shared else folder.resolve()
    target = root / "targets" / client
    target.mkdir(parents=True, exist_ok=True)
    return target


def _hosts_text(folder: Path, prefix: str, targets: dict[str, Path], *, with_sshd: bool) -> str:
    """Return the lab as a hosts file: by SSH out of the GPU client's namespace, or by namespace."""

    def reach(name: str) -> str:
        return f"ssh: {{host: {address(name)}}}" if with_sshd else f"netns: {prefix}{name}"

    root = folder.resolve()
    shared = f"{{user: root, key: {root}/ssh/client, known_hosts: {root}/ssh/known_hosts, from_netns: {prefix}gpu}}"
    lines = [f"ssh: {shared}"] if with_sshd else []
    lines.append("side_clients:")
    lines += [f"  {c}: {{{reach(c)}, directory: {path}, interface: eth0}}" for c, path in targets.items()]
    ports = ", ".join(str(5201 + number) for number in range(len(CLIENTS)))
    lines.append(f"iperf3: {{address: {address('sto')}, ports: [{ports}], server: {{{reach('sto')}}}}}")
    return "\n".join(lines) + "\n"
