"""What side clients need of a generator: its keys in a scenario, its commands, and what its last output means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.result.run_record import Resource
    from kvbench.strict_yaml import Strict
    from kvbench.testbed.hosts.file import Fabric
    from kvbench.testbed.neighbors.agent_event import AgentEvent
    from kvbench.typed_json import JsonObject


@dataclass(frozen=True, slots=True)
class Start:
    """What one start of a generator depends on, beside its keys: the rate is of this side client, None is unlimited.

    `version` is the first line of what the program says to --version. `fabric` and `port` are the far end to send to.
    """

    rate_bytes_per_s: float | None
    max_runtime_s: float
    sample_s: float
    version: str
    fabric: Fabric | None = None
    port: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """A command, in which `{folder}` stands for the run's folder in the target, and where its bytes are counted.

    `count` is `rchar` or `wchar` (what the process has read or written, by the kernel), `printed` (it prints a JSON
    line `{"bytes": N}` with all bytes since its start, several times a second), or `fio` (fio's own documents).
    """

    command: list[str]
    count: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What makes the files that a generator loads: the bytes it needs, and whether they are read with O_DIRECT."""

    command: list[str]
    need_bytes: int = 0
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Generator:
    """One generator, by its key in a load of `neighbors:`. All functions take the keys as their model.

    `preflight(keys, hello)` says what is wrong with a host and what to do, None where nothing is. `start(keys, start)`
    is the work on a side client. `outcome(final)` reads how it ended: {"error": a sentence or None, "bytes": what it
    says itself that it moved, ...}. With `layout` each side client needs a directory, with `far_end(fabric, port)` the
    hosts file needs an `iperf3` part, and the command serves one side client there. `passes(keys)` names what its bytes
    share with the reads of a server: a read limit of the `disk`, a `link` in the direction of reads, or nothing.
    """

    key: str
    keys: type[Strict]
    start: Callable[[Any, Start], Work]
    outcome: Callable[[AgentEvent], JsonObject]
    preflight: Callable[[Any, JsonObject], tuple[str, str] | None] = field(default=lambda _keys, _hello: None)
    layout: Callable[[Any], Layout] | None = None
    far_end: Callable[[Fabric, int], list[str]] | None = None
    passes: Callable[[Any], tuple[Resource, ...]] = field(default=lambda _keys: ())


def missing(program: str, hello: JsonObject) -> tuple[str, str] | None:
    """Return the finding for a host that has no such program, None where it has one."""
    if hello.get(program) is not None:
        return None
    return f"{program} is missing there", f"Install it: apt-get install {program}"
