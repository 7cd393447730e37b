"""Hosts: where side clients run, how they are reached, and one thread in which all of that happens."""

from kvbench.hosts.file import Entry, Fabric, HostsFile, Reach, load
from kvbench.hosts.reach import open_host
from kvbench.hosts.thread import HostThread
from kvbench.hosts.verbs import Host, Process

__all__ = ["Entry", "Fabric", "Host", "HostThread", "HostsFile", "Process", "Reach", "load", "open_host"]
