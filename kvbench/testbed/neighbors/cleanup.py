"""Removes from side clients what killed agents left: only marked folders whose agent is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvbench.testbed.hosts.event_loop import HostThread
from kvbench.testbed.hosts.open_host import open_host
from kvbench.testbed.neighbors.agent_client import SideClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.testbed.hosts.file import Entry, HostsFile, Reach
    from kvbench.testbed.hosts.protocol import Host
    from kvbench.testbed.neighbors.agent_event import AgentEvent

_ANSWER_S = 60.0


def sweep_hosts(hosts: HostsFile, reach: Callable[[str, Reach], Host] = open_host) -> dict[str, dict[str, list[str]]]:
    """Return by side client which folders were removed, and which were kept as they are in use or not ours.

    Raises:
        HostError: a side client cannot be reached or trusted.

    """
    entries = {name: entry for name, entry in hosts.side_clients.items() if entry.directory is not None}
    with HostThread() as thread:
        return thread.call(_all(entries, reach))


async def _all(entries: dict[str, Entry], reach: Callable[[str, Reach], Host]) -> dict[str, dict[str, list[str]]]:
    found = await asyncio.gather(
        *(_sweep_host(reach(name, entry), str(entry.directory)) for name, entry in entries.items())
    )
    return dict(zip(entries, found, strict=True))


async def _sweep_host(host: Host, directory: str) -> dict[str, list[str]]:
    client = SideClient(host, _ignore)
    try:
        await client.connect()
        swept = await client.ask("sweep", "swept", _ANSWER_S, directory=directory)
        return {"removed": swept["removed"], "kept": swept["kept"]}
    finally:
        await client.leave()


def _ignore(client: SideClient, event: AgentEvent, now_ns: int) -> None:
    del client, event, now_ns
