"""The kinds of server that a scenario may name under `server:`; one line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.testbed.servers import emulator, external, vllm

if TYPE_CHECKING:
    from kvbench.scenario.server_spec import ServerKeys
    from kvbench.testbed.servers.kind import ServerKind

KINDS: dict[str, ServerKind] = {
    one.key: one
    for one in (
        emulator.KIND,
        vllm.KIND,
        external.KIND,
    )
}


def models() -> dict[str, type[ServerKeys]]:
    """Return the model of each kind's keys, for whoever reads a scenario."""
    return {key: kind.keys for key, kind in KINDS.items()}
