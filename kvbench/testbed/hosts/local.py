"""This host, and network namespaces on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.testbed.hosts.protocol import Process

MOST_LINE_BYTES = 1 << 24  # one line holds a whole document of fio's
NAMESPACES = Path("/run/netns")


class LocalHost:
    """This host; with `netns` inside one of its network namespaces."""

    def __init__(self, name: str, netns: str | None = None) -> None:
        """Name it; nothing is started yet."""
        self.name = name
        self._netns = netns

    def describe(self, command: Sequence[str]) -> str:
        """Return the line that would be run."""
        return shlex.join(self._whole(command))

    async def connect(self) -> None:
        """Check that the namespace is there and may be entered.

        Raises:
            HostError: it does not exist, or we are not root.

        """
        if self._netns is None:
            return
        if not (NAMESPACES / self._netns).exists():
            raise HostError(f"{self.name}: there is no network namespace {self._netns}", "See `ip netns list`.")
        if os.geteuid() != 0:
            raise HostError(f"{self.name}: only root may enter a network namespace", "Start kvbench as root.")

    async def run(self, command: Sequence[str]) -> Process:
        """Start a program in a session of its own.

        Raises:
            HostError: it cannot be started.

        """
        try:
            process = await asyncio.create_subprocess_exec(
                *self._whole(command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MOST_LINE_BYTES,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
        except OSError as fault:
            reason = (fault.strerror or str(fault)).lower()
            raise HostError(f"{self.name}: cannot start {command[0]}: {reason}", f"Install {command[0]}.") from None
        return LocalProcess(process)

    async def close(self) -> None:
        """Nothing is held."""

    def _whole(self, command: Sequence[str]) -> list[str]:
        # `ip netns exec` would hide mounts made later behind a mount namespace of its own
        return [*([] if self._netns is None else ["nsenter", f"--net={NAMESPACES / self._netns}"]), *command]


class LocalProcess:
    """A program of ours with three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Read its stderr from the start, so that it never blocks on it."""
        assert process.stdin is not None  # noqa: S101 - three pipes were asked for
        assert process.stdout is not None  # noqa: S101 - as above
        assert process.stderr is not None  # noqa: S101 - as above
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._stderr = asyncio.create_task(_tail(process.stderr))

    async def send(self, data: bytes) -> None:
        """Write to its stdin."""
        with contextlib.suppress(ConnectionError):
            self._stdin.write(data)
            await self._stdin.drain()

    async def line(self) -> bytes:
        """Return the next line of its stdout, empty at the end."""
        return await self._stdout.readline()

    async def end(self, within_s: float) -> str:
        """Close its stdin and wait; after that its group is killed."""
        self._stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), within_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        return (await self._stderr).decode(errors="replace").strip()


async def _tail(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while chunk := await stream.read(4096):
        kept = (kept + chunk)[-2000:]
    return kept
