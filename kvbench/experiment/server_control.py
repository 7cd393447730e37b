"""What the cache steps need of a server, and where each step keeps its evidence."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kvbench.experiment.tier_proof import Served
from kvbench.lenient_json import at, whole
from kvbench.result.run_record import Step
from kvbench.testbed.servers import tier_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kvbench.experiment.tier_proof import Blocks
    from kvbench.result.records import Phase, Response
    from kvbench.result.run_record import Outcome
    from kvbench.scenario.models import CacheTier
    from kvbench.scenario.plan import Draw
    from kvbench.testbed.servers.counters import Counters
    from kvbench.typed_json import JsonObject

_QUIET_BOUND_S = 60.0
_QUIET_BOUND_AGAIN_S = 2.0


class ControlledServer(Protocol):
    """What the cache steps need of a server; `servers.endpoint.Endpoint` is one."""

    @property
    def tier_paths(self) -> Mapping[str, Path]:
        """The directories of its tiers by name, the fastest first, as far as they are on this host."""

    @property
    def ours(self) -> bool:
        """Whether we started it and may empty its tiers."""

    @property
    def info(self) -> JsonObject:
        """What kvbench's emulator says about itself; empty for others."""

    def scrape(self) -> Counters:
        """Read all counters."""

    def reset(self, *, external: bool) -> bool | None:
        """Ask it to forget; its own word, None without such a route."""


class Send(Protocol):
    """Sends one prompt, keeps its row in the journal, and returns what was seen."""

    def __call__(self, draw: Draw, phase: Phase) -> Response:
        """Send and wait."""


@dataclass(frozen=True, slots=True)
class Primer:
    """The server that fills a tier, and the means to send to it."""

    server: ControlledServer
    send: Send


@dataclass(frozen=True)
class ServerControl:
    """A server together with the means to send to it and the arithmetic of its blocks.

    `another` opens a second server that shares the slowest tier, for as long as that one is primed through it.
    `send_all` sends several prompts at once, which a server of several GPUs is primed with.
    """

    server: ControlledServer
    send: Send
    blocks: Blocks
    another: Callable[[], AbstractContextManager[Primer]] | None = None
    steps: list[Step] = field(default_factory=list)
    send_all: Callable[[Sequence[Draw], Phase], Sequence[Response]] | None = None

    @property
    def primed_by(self) -> str:
        """Which server fills the tier."""
        return "itself" if self.another is None else "another"

    def path_of(self, tier: CacheTier) -> Path | None:
        """Return a tier's directory; a server that somebody else runs has one, by whichever name it is asked for."""
        if tier not in ("g3", "g4"):
            return None
        paths = self.server.tier_paths
        return paths.get(tier) or (None if self.server.ours else next(iter(paths.values()), None))

    def faster_paths(self, tier: CacheTier) -> dict[str, Path]:
        """Return the directories of the tiers that are looked up before this one."""
        return {name: path for name, path in self.server.tier_paths.items() if name < tier}

    @property
    def admit_after_hits(self) -> int:
        """With which request for a block a tier takes it in, as far as the server tells."""
        return whole(at(self.server.info, "store", "admit_after_hits")) or 1

    @property
    def primed_at_once(self) -> int:
        """How many prompts are primed at once: one for each GPU of a server of ours that tells of them."""
        alone = self.send_all is None or self.another is not None or not self.server.ours
        return 1 if alone else whole(self.server.info.get("instances")) or 1

    def note(self, name: str, outcome: Outcome, evidence: str) -> None:
        """Keep a step."""
        self.steps.append(Step(name, outcome, evidence))

    def serve(self, draw: Draw, phase: Phase) -> Served:
        """Send one prompt between two scrapes."""
        before = self.server.scrape()
        response = self.send(draw, phase)
        return Served(response, self.server.scrape().since(before))


def quiesce(control: ServerControl, server: ControlledServer) -> None:
    """Wait until a server's write counters and all directories stand still; not as long again where they never did."""
    has_failed = any(step.name == "quiesce" and step.outcome == "failed" for step in control.steps)
    bound_s = _QUIET_BOUND_AGAIN_S if has_failed else _QUIET_BOUND_S
    started, before = time.monotonic(), server.scrape()
    knows = before.pending_writes is not None
    pause_s, wanted, quiet, held = (0.01, 3, 0, -1) if knows else (0.1, 5, 0, -1)
    while quiet < wanted:
        time.sleep(pause_s)
        now = server.scrape()
        size = sum(sum(tier_directory.listing(path).values()) for path in control.server.tier_paths.values())
        still = now.write_bytes == before.write_bytes and size == held and not now.pending_writes
        quiet = quiet + 1 if still else 0
        before, held = now, size
        if time.monotonic() - started > bound_s:
            control.note("quiesce", "failed", f"still writing after {bound_s:.0f} s")
            break
