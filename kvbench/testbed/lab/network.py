"""The lab's hosts: network namespaces on a bridge, with one link of limited rate.

    kvb-c1 .. kvb-c4   side clients          198.18.0.12 .. 15
    kvb-gpu            the GPU client        198.18.0.10
    kvb-sto            the storage host      198.18.0.11, whose link is a token bucket in both directions
    kvb-sw             the bridge; the root namespace gets no address, no route and no link

The bridge carries the path of the lab's folder as its alias, so that whoever meets the namespaces finds the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from kvbench.errors import HostError
from kvbench.testbed.hosts.local import NAMESPACES

PREFIX = "kvb-"
CLIENTS = ("c1", "c2", "c3", "c4")
HOSTS = {"gpu": 10, "sto": 11, "c1": 12, "c2": 13, "c3": 14, "c4": 15}
STOP_S = 2.0
_SWITCH = "sw"
_NET = "198.18.0"  # of the range for benchmarks, RFC 2544
_MTU = 9000  # as storage networks have; with 1,500 headers alone would take 4.4 % of the link, with this 0.7 %
_CONGESTION = "cubic"  # as the iperf3 of the neighbours is pinned to; other kernels have other defaults
_LONGEST_ALIAS = 255
_PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}


def address(host: str) -> str:
    """Return the address of a host of the lab by its short name."""
    return f"{_NET}.{HOSTS[host]}"


def inside(prefix: str, host: str) -> list[str]:
    """Return the words that put a command into a host's network.

    Not `ip netns exec`: that makes a mount namespace of its own, and a mount made there is seen by nobody else.
    """
    return ["nsenter", f"--net={NAMESPACES / (prefix + host)}"]


def check_permitted(prefix: str) -> None:
    """Refuse what cannot work before anything is touched.

    Raises:
        HostError: not root, a program is missing, or the prefix could meet what is not ours.

    """
    if os.geteuid() != 0:
        raise HostError("only root may make network namespaces", "Start it as root, for example with sudo.")
    if not re.fullmatch(r"kvb-[a-z0-9-]{0,32}", prefix):
        raise HostError(f"{prefix} is no prefix of a lab", "A prefix begins with kvb-, so that nothing else is met.")
    check_programs(_PROGRAMS)


def check_programs(packages: dict[str, str]) -> None:
    """Refuse to begin where a program is missing; `packages` says which package has it.

    Raises:
        HostError: one is missing.

    """
    for program, package in packages.items():
        if shutil.which(program) is None:
            raise HostError(f"the lab needs {program}", f"Install it: apt-get install {package}")


def run(*command: str) -> str:
    """Run a command that must succeed; return what it printed.

    Raises:
        HostError: it failed, with what it said.

    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise HostError(f"`{' '.join(command)}` failed: {said}", "Check what this kernel and container permit.")
    return done.stdout


def namespaces(prefix: str) -> list[str]:
    """Return the lab's namespaces; those of another lab whose prefix is longer are not among them."""
    return [name for name in _listed() if name in {f"{prefix}{host}" for host in (*HOSTS, _SWITCH)}]


def labs() -> list[str]:
    """Return the prefixes of all labs on this machine, whole or in parts; none where nobody may look."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return []
    ends = "|".join((*HOSTS, _SWITCH))
    matches = (re.fullmatch(rf"(kvb-[a-z0-9-]*?)({ends})", name) for name in _listed())
    return sorted({match[1] for match in matches if match})


def folder_of(prefix: str) -> Path | None:
    """Return the folder of a lab that is up, by what its bridge says."""
    with contextlib.suppress(HostError, ValueError, KeyError, IndexError):
        links = json.loads(run("ip", "-n", f"{prefix}{_SWITCH}", "-json", "link", "show", "br0"))
        return Path(links[0]["ifalias"])
    return None


def wire(folder: Path, prefix: str) -> None:
    """Make all hosts and join them.

    Raises:
        HostError: the kernel lacks something, or the folder's path is too long for an alias.

    """
    if len(os.fsencode(folder.resolve())) > _LONGEST_ALIAS:
        raise HostError(f"the path of {folder} is too long for a lab", f"Stay below {_LONGEST_ALIAS} bytes.")
    switch = f"{prefix}{_SWITCH}"
    run("ip", "netns", "add", switch)
    run("ip", "-n", switch, "link", "add", "br0", "mtu", str(_MTU), "type", "bridge")
    run("ip", "-n", switch, "link", "set", "br0", "alias", str(folder.resolve()))
    run("ip", "-n", switch, "link", "set", "br0", "up")
    for name in HOSTS:
        _join(name, prefix)


def _join(name: str, prefix: str) -> None:
    host, switch, port = f"{prefix}{name}", f"{prefix}{_SWITCH}", f"p-{name}"
    run("ip", "netns", "add", host)
    run("ip", "-n", host, "link", "set", "lo", "up")
    # Both ends are made where they belong, so that the root namespace never sees a link.
    pair = ("type", "veth", "peer", "name", port, "mtu", str(_MTU), "netns", switch)
    run("ip", "link", "add", "eth0", "mtu", str(_MTU), "netns", host, *pair)
    run("ip", "-n", host, "addr", "add", f"{address(name)}/24", "dev", "eth0")
    run("ip", "-n", host, "link", "set", "eth0", "up")
    run("ip", "-n", switch, "link", "set", port, "master", "br0")
    run("ip", "-n", switch, "link", "set", port, "up")
    run(
        *("ip", "-n", host, "route", "replace", f"{_NET}.0/24", "dev", "eth0"),
        *("src", address(name), "congctl", _CONGESTION),
    )


def cap(prefix: str, rate_bytes_per_s: float) -> None:
    """Cap the storage host's link in both directions by a token bucket."""
    bits = round(rate_bytes_per_s * 8)
    bucket = ("root", "tbf", "rate", f"{bits}bit", "burst", "256kb", "latency", "20ms")
    run("tc", "-n", f"{prefix}sto", "qdisc", "replace", "dev", "eth0", *bucket)
    run("tc", "-n", f"{prefix}{_SWITCH}", "qdisc", "replace", "dev", "p-sto", *bucket)


def set_link(host: str, state: str, *, prefix: str = PREFIX) -> None:
    """Cut the link of one host (`down`) or mend it (`up`).

    Raises:
        HostError: there is no such lab.

    """
    run("ip", "-n", f"{prefix}{_SWITCH}", "link", "set", f"p-{host}", state)


def unwire(prefix: str) -> list[str]:
    """End every process in the lab's namespaces and delete them; return their names."""
    names = namespaces(prefix)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        _signal_all(names, sign)
    for name in names:
        run("ip", "netns", "delete", name)
    return names


def _listed() -> list[str]:
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]


def _signal_all(names: list[str], sign: signal.Signals) -> None:
    """Signal every process inside these namespaces, and wait until they are gone, with a bound."""
    limit_s = time.monotonic() + STOP_S
    signalled: set[str] = set()
    while time.monotonic() < limit_s:
        pids = {pid for name in names for pid in run("ip", "netns", "pids", name).split()}
        for pid in pids - signalled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), sign)
        signalled |= pids
        if not pids:
            return
        time.sleep(0.02)
