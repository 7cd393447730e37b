"""From an entry of the hosts file to the host it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.hosts.local import LocalHost
from kvbench.hosts.ssh import SshHost

if TYPE_CHECKING:
    from kvbench.hosts.file import Reach
    from kvbench.hosts.verbs import Host


def open_host(name: str, reach: Reach) -> Host:
    """Return the host that an entry describes; nothing is connected yet."""
    if reach.ssh is not None:
        return SshHost(name, reach.ssh)
    return LocalHost(name, reach.netns)
