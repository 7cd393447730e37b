"""What a host can do: run a program and exchange lines with it. Nothing is written to its disk.

`connect -> run -> send, line, line, ... -> end -> close`. Local, network namespace, SSH and the fake of the tests all
keep to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Process(Protocol):
    """A program on a host, with pipes to its input and from its output."""

    async def send(self, data: bytes) -> None:
        """Write to its stdin; a broken pipe is told by `line`, not here."""
        ...

    async def line(self) -> bytes:
        """Return the next line of its stdout, empty at the end and when the host is lost."""
        ...

    async def end(self, within_s: float) -> str:
        """Close its stdin, wait so long, then cut it off; return the end of its stderr, or why it was lost."""
        ...


class Host(Protocol):
    """A machine, or a part of one, that programs can be started on."""

    name: str

    def describe(self, command: Sequence[str]) -> str:
        """Return the line that would be run, for a dry run."""
        ...

    async def connect(self) -> None:
        """Reach the host.

        Raises:
            HostError: it is unreachable, not trusted, or does not let us in.

        """
        ...

    async def run(self, command: Sequence[str]) -> Process:
        """Start a program in a session of its own.

        Raises:
            HostError: it cannot be started.

        """
        ...

    async def close(self) -> None:
        """Let go of the host."""
        ...
