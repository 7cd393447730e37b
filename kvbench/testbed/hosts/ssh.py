"""Hosts behind SSH, by asyncssh: known keys only, the user's ssh_config, jump hosts, and a keepalive of 1 s x 3.

A host key that is unknown or wrong is refused, and there is no switch for that. Keys come from files and from the
user's agent; no secret is ever on a command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import re
import shlex
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.errors import HostError
from kvbench.testbed.hosts.local import NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from kvbench.testbed.hosts.file import SshReach
    from kvbench.testbed.hosts.protocol import Process

_CONNECT_S = 5.0
_LOGIN_S = 10.0
_CLONE_NEWNET = 0x40000000


class SshHost:
    """A host behind sshd."""

    def __init__(self, name: str, reach: SshReach) -> None:
        """Keep how it is reached; nothing is opened yet."""
        self.name = name
        self._reach = reach
        self._connection: Any = None

    def describe(self, command: Sequence[str]) -> str:
        """Return the line that OpenSSH would take."""
        to = self._reach.host if self._reach.user is None else f"{self._reach.user}@{self._reach.host}"
        port = [] if self._reach.port is None else ["-p", str(self._reach.port)]
        return shlex.join(["ssh", *port, to, shlex.join(command)])

    async def connect(self) -> None:
        """Open the connection.

        Raises:
            HostError: asyncssh is missing; the host is unreachable or not trusted; we are not let in.

        """
        asyncssh = _load_asyncssh()
        try:
            self._connection = await asyncssh.connect(self._reach.host, **await self._options())
        except asyncssh.HostKeyNotVerifiable as fault:
            raise self._not_trusted(str(fault)) from None
        except asyncssh.PermissionDenied:
            raise HostError(
                f"{self.name}: {self._reach.host} does not let us in",
                "Check `user` and `key` in the hosts file, and the host's authorized_keys.",
            ) from None
        except (OSError, asyncssh.Error, ValueError) as fault:
            reason = str(fault) or f"no answer within {_CONNECT_S:g} s"
            raise HostError(
                f"{self.name}: cannot reach {self._reach.host}: {reason[:200]}",
                "Check the address, that sshd runs there, and the way to it.",
            ) from None

    async def run(self, command: Sequence[str]) -> Process:
        """Start a program; sshd gives it a session of its own.

        Raises:
            HostError: the connection is gone.

        """
        asyncssh = _load_asyncssh()

        try:
            return SshProcess(await self._connection.create_process("exec " + shlex.join(command), encoding=None))
        except (OSError, asyncssh.Error) as fault:
            remedy = "Check that host and its sshd."
            raise HostError(f"{self.name}: cannot start {command[0]}: {fault}", remedy) from None

    async def close(self) -> None:
        """Close the connection; a host that is gone is not waited for."""
        if self._connection is not None:
            self._connection.close()
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._connection.wait_closed(), 2.0)
            self._connection = None

    async def _options(self) -> dict[str, Any]:
        reach = self._reach
        options: dict[str, Any] = {
            "keepalive_interval": 1,
            "keepalive_count_max": 3,
            "connect_timeout": _CONNECT_S,
            "login_timeout": _LOGIN_S,
        }
        given = {"port": reach.port, "username": reach.user, "tunnel": reach.jump}
        options |= {name: value for name, value in given.items() if value is not None}
        if reach.known_hosts is not None:
            options["known_hosts"] = str(reach.known_hosts.expanduser())
        if reach.config is not None:
            options["config"] = [str(reach.config.expanduser())]
        if reach.key is not None:
            options["client_keys"] = [str(reach.key.expanduser())]
        if reach.from_netns is not None:
            address = (reach.host, reach.port or 22)
            options["sock"] = await asyncio.to_thread(_connect_from, reach.from_netns, address)
        return options

    def _not_trusted(self, message: str) -> HostError:
        """Tell a wrong key from an unknown host: the first may be an attack."""
        asyncssh = _load_asyncssh()

        match = re.search(r"for host (\S+)$", message)  # as ssh_config resolved it
        host = match[1] if match else self._reach.host
        file = (self._reach.known_hosts or Path("~/.ssh/known_hosts")).expanduser()
        known: Sequence[Any] = ()
        with contextlib.suppress(OSError, ValueError):
            known = asyncssh.match_known_hosts(str(file), host, "", self._reach.port)[0]
        if known:
            return HostError(
                f"{self.name}: {host} shows another host key than the one in {file}",
                "Find out why the key has changed before you replace that line; it may be another machine.",
            )
        scan = f"ssh-keyscan -p {self._reach.port or 22} {host}"
        return HostError(
            f"{self.name}: the host key of {host} is not in {file}",
            f"Compare the fingerprint of `{scan} | ssh-keygen -lf -` with the host's own, then add it to that file.",
        )


class SshProcess:
    """A program behind sshd with three pipes."""

    def __init__(self, process: Any) -> None:
        """Keep asyncssh's process."""
        self._process = process
        self._lost = ""

    async def send(self, data: bytes) -> None:
        """Write to its stdin; what cannot be sent now waits, so that nobody waits for a dead link."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(data)

    async def line(self) -> bytes:
        """Return the next line of its stdout, empty at the end and when the connection breaks."""
        asyncssh = _load_asyncssh()

        try:
            return bytes(await self._process.stdout.readline())
        except (OSError, asyncssh.Error, asyncio.IncompleteReadError) as fault:
            self._lost = str(fault) or type(fault).__name__
            return b""

    async def end(self, within_s: float) -> str:
        """Close its stdin, wait, and close the channel."""
        asyncssh = _load_asyncssh()

        said = b""
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            self._process.stdin.write_eof()
            said = bytes(await asyncio.wait_for(self._process.stderr.read(), within_s))
        self._process.close()
        return self._lost or said.decode(errors="replace").strip()[-2000:]


def _load_asyncssh() -> ModuleType:
    """Import asyncssh, an optional extra, when the first host is connected.

    Raises:
        HostError: it is not installed.

    """
    try:
        import asyncssh  # noqa: PLC0415
    except ImportError:
        raise HostError("hosts behind SSH need asyncssh", "Install it with `pip install 'kvbench[ssh]'`.") from None
    return asyncssh


def _connect_from(netns: str, address: tuple[str, int]) -> socket.socket:
    """Open a TCP connection from inside a network namespace of this host.

    setns(2) moves one thread only, so this one does it and ends.
    """
    made: list[socket.socket | OSError] = []

    def connect() -> None:
        try:
            with (NAMESPACES / netns).open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {netns}")  # noqa: TRY301
            made.append(socket.create_connection(address, _CONNECT_S))
        except OSError as fault:
            made.append(fault)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    made[0].setblocking(False)  # noqa: FBT003 - its only argument
    return made[0]
