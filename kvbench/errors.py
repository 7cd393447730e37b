"""All errors that a user can see: each has one sentence that says what is wrong and one that says what to do.

    KvbenchError            exit code 1
    ├── OptionError         exit code 2: what an option of the command line was given cannot be meant
    ├── ScenarioError       the YAML file, with file and line
    │   └── OverrideError   exit code 2: an option of the command line has made a scenario wrong
    ├── EndpointError       the server under test: unreachable, refused, wrong model, not streaming
    ├── ServerError         a server that we started: did not start, died, would not stop
    ├── StorageError        a tier path or the result folder: full, read-only, tmpfs, not ours
    ├── DriverError         the load driver itself
    ├── HostError           a side client: unreachable, not trusted, lost, or its target or generator cannot be used
    ├── ResultError         a result folder that is missing, unreadable or of another schema version
    └── Interrupted         exit code 130: Ctrl-C; what was measured is kept

`cli.app.main` is the only place that catches them. A bug is any other exception, and only `--debug` shows its
traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class KvbenchError(Exception):
    """One sentence about what is wrong, and a remedy."""

    exit_code = 1

    def __init__(self, message: str, remedy: str) -> None:
        """Keep the sentence and the remedy apart, so that a caller can print each in its own style."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class OptionError(KvbenchError):
    """An option of the command line has a value that cannot be meant."""

    exit_code = 2


class ScenarioError(KvbenchError):
    """The scenario file is wrong; `line` is 1-based, None where no line can be blamed."""

    def __init__(self, message: str, remedy: str, *, path: Path | None = None, line: int | None = None) -> None:
        """Put `file:line:` before the sentence where they are known."""
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        super().__init__(where + message, remedy)
        self.path = path
        self.line = line


class OverrideError(OptionError, ScenarioError):
    """A scenario is wrong by what an option has changed in it."""


class EndpointError(KvbenchError):
    """The server under test cannot be used as asked."""


class ServerError(KvbenchError):
    """A server that kvbench started did not start, died, or would not stop."""


class StorageError(KvbenchError):
    """A tier path or the result folder cannot be used."""


class DriverError(KvbenchError):
    """The load driver itself failed."""


class HostError(KvbenchError):
    """A side client cannot be reached or trusted, or what it should run cannot run there."""


class ResultError(KvbenchError):
    """A result folder is missing, unreadable, or of another schema version."""


class Interrupted(KvbenchError):  # noqa: N818 - it is an outcome that users read, not a fault
    """The user pressed Ctrl-C; what was measured is kept."""

    exit_code = 130
