"""What the testbed needs to know of a kind of server: its keys in a scenario, and how one of it is had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from kvbench.scenario.server_spec import ServerKeys
    from kvbench.testbed.servers.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class ServerKind:
    """One kind of server, by its key under `server:`; it has `serve` if kvbench starts it, else `attach`.

    `serve(keys, tiers, log, cache_on=...)` is a context in which the server runs; without `cache_on` it must neither
    reuse nor store anything. Where the keys say `shares_g4` it also takes `shared=...`. `fresh_for_each_run`: it starts
    so fast that each run gets a new one; otherwise one with the same tiers serves many runs. `attach(keys)` checks the
    server that somebody else runs, `attach_primer(keys, model)` the one that fills the tier for it. `check(keys)`
    refuses before anything starts what cannot be started.
    """

    key: str
    keys: type[ServerKeys]
    serve: Callable[..., AbstractContextManager[Endpoint]] | None = None
    attach: Callable[[Any], Endpoint] | None = None
    attach_primer: Callable[[Any, str], Endpoint] | None = None
    check: Callable[[Any], object] | None = None
    fresh_for_each_run: bool = False
