"""Opens the host that an entry of the hosts file names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.testbed.hosts.local import LocalHost
from kvbench.testbed.hosts.ssh import SshHost

if TYPE_CHECKING:
    from kvbench.testbed.hosts.file import Reach
    from kvbench.testbed.hosts.protocol import Host


def open_host(name: str, reach: Reach) -> Host:
    """Return the host that an entry describes; nothing is connected yet."""
    if reach.ssh is not None:
        return SshHost(name, reach.ssh)
    return LocalHost(name, reach.netns)
