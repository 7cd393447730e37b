"""A small cluster on one machine, for demonstrations and tests: namespaces, sshd, a capped link, shared storage.

`cluster.up`, `down` and `standing` are the ways in. It emulates a shared bottleneck and stands for no product.
"""

from kvbench.testbed.lab.cluster import MARKER, down, shared_mount, standing, sweep, up
from kvbench.testbed.lab.gluster import has_shared_storage
from kvbench.testbed.lab.network import CLIENTS, PREFIX, address, labs, set_link
from kvbench.testbed.lab.sshd import start_one_sshd

__all__ = [
    "CLIENTS",
    "MARKER",
    "PREFIX",
    "address",
    "down",
    "has_shared_storage",
    "labs",
    "set_link",
    "shared_mount",
    "standing",
    "start_one_sshd",
    "sweep",
    "up",
]
