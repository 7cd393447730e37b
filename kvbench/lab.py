"""A small cluster on one machine: network namespaces with sshd in each, joined by a bridge with one capped uplink.

    kvb-c1 .. kvb-c4   side clients          198.18.0.12 .. 15
    kvb-gpu            the GPU client        198.18.0.10
    kvb-sto            the storage host      198.18.0.11, whose link is a token bucket in both directions
    kvb-sw             the bridge; the root namespace gets no address, no route and no link

Everything is named by a prefix and lies in one marked directory, so that `down` removes all of it even after a kill.
For demonstrations and tests: it emulates a shared bottleneck and stands for no product.
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
from typing import TYPE_CHECKING

from kvbench.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "kvb-"
MARKER = ".kvbench-lab.json"
CLIENTS = ("c1", "c2", "c3", "c4")
_ADDRESSES = {"gpu": 10, "sto": 11, "c1": 12, "c2": 13, "c3": 14, "c4": 15}
_NET = "198.18.0"  # of the range for benchmarks, RFC 2544
_PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}
_SSH_PROGRAMS = {"sshd": "openssh-server", "ssh-keygen": "openssh-client"}
_PRIVSEP = Path("/run/sshd")
_STOP_S = 2.0


def address(host: str) -> str:
    """Return the address of a host of the lab by its short name."""
    return f"{_NET}.{_ADDRESSES[host]}"


def up(folder: Path, *, rate_bytes_per_s: float | None = 125e6, prefix: str = PREFIX, with_sshd: bool = True) -> Path:
    """Build the lab in a new or marked folder; return its hosts file. The uplink is uncapped without a rate.

    Raises:
        HostError: not root, a program is missing, the kernel lacks something, the lab is up already, or the folder is
            somebody else's.

    """
    _check(prefix, with_sshd=with_sshd)
    if _namespaces(prefix):
        raise HostError(f"a lab named {prefix} is up already", "Take it down first: kvbench lab down")
    _claim(folder, prefix)
    try:
        _wire(prefix)
        if rate_bytes_per_s is not None:
            _cap(prefix, rate_bytes_per_s)
        if with_sshd:
            _start_sshd(folder, prefix)
        for client in CLIENTS:
            (folder / "targets" / client).mkdir(parents=True, exist_ok=True)
        hosts = folder / "hosts.yaml"
        hosts.write_text(_hosts_text(folder, prefix, with_sshd=with_sshd))
    except BaseException:
        down(folder, prefix=prefix)
        raise
    return hosts


def down(folder: Path | None = None, *, prefix: str = PREFIX) -> list[str]:
    """End every process in the lab's namespaces, delete them, and remove its marked folder; return what was removed.

    Raises:
        HostError: not root, or the folder does not carry the lab's marker.

    """
    _check(prefix, with_sshd=False)
    removed = _namespaces(prefix)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        _signal_all(removed, sign)
    for name in removed:
        _run("ip", "netns", "delete", name)
    if folder is not None and folder.exists():
        if folder.is_symlink() or not (folder / MARKER).is_file():
            raise HostError(f"{folder} does not carry the lab's marker", "Name the folder that `lab up` was given.")
        shutil.rmtree(folder)
        removed.append(str(folder))
    return removed


@contextlib.contextmanager
def standing(
    folder: Path, *, rate_bytes_per_s: float | None = 125e6, prefix: str = PREFIX, with_sshd: bool = True
) -> Iterator[Path]:
    """Have a lab while the context is open; gives its hosts file. Without sshd it is a token-bucket link.

    Raises:
        HostError: as `up`.

    """
    hosts = up(folder, rate_bytes_per_s=rate_bytes_per_s, prefix=prefix, with_sshd=with_sshd)
    try:
        yield hosts
    finally:
        down(folder, prefix=prefix)


def set_link(host: str, state: str, *, prefix: str = PREFIX) -> None:
    """Cut the link of one host (`down`) or mend it (`up`).

    Raises:
        HostError: there is no such lab.

    """
    _run("ip", "-n", f"{prefix}sw", "link", "set", f"p-{host}", state)


def _check(prefix: str, *, with_sshd: bool) -> None:
    if os.geteuid() != 0:
        raise HostError("only root may make network namespaces", "Start it as root, for example with sudo.")
    if not re.fullmatch(r"kvb-[a-z0-9-]{0,32}", prefix):
        raise HostError(f"{prefix} is no prefix of a lab", "A prefix begins with kvb-, so that nothing else is met.")
    for program, package in {**_PROGRAMS, **(_SSH_PROGRAMS if with_sshd else {})}.items():
        if shutil.which(program) is None:
            raise HostError(f"the lab needs {program}", f"Install it: apt-get install {package}")


def _run(*command: str) -> str:
    """Run a command that must succeed; return what it printed.

    Raises:
        HostError: it failed, with what it said.

    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise HostError(f"`{' '.join(command)}` failed: {said}", "Check what this kernel and container permit.")
    return done.stdout


def _namespaces(prefix: str) -> list[str]:
    """Return the lab's namespaces; those of another lab whose prefix is longer are not among them."""
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line.strip()]
    return [name for name in names if name in {f"{prefix}{host}" for host in (*_ADDRESSES, "sw")}]


def _claim(folder: Path, prefix: str) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise HostError(f"{folder} holds files of somebody else", "Name a new folder for the lab.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / MARKER).write_text(json.dumps({"made_by": "kvbench", "prefix": prefix}) + "\n")


def _wire(prefix: str) -> None:
    switch = f"{prefix}sw"
    for name in (*_ADDRESSES, "sw"):
        _run("ip", "netns", "add", f"{prefix}{name}")
        _run("ip", "-n", f"{prefix}{name}", "link", "set", "lo", "up")
    _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
    _run("ip", "-n", switch, "link", "set", "br0", "up")
    for name in _ADDRESSES:
        host, port = f"{prefix}{name}", f"p-{name}"
        # Both ends are made where they belong, so that the root namespace never sees a link.
        pair = ("type", "veth", "peer", "name", port, "netns", switch)
        _run("ip", "link", "add", "eth0", "netns", host, *pair)
        _run("ip", "-n", host, "addr", "add", f"{address(name)}/24", "dev", "eth0")
        _run("ip", "-n", host, "link", "set", "eth0", "up")
        _run("ip", "-n", switch, "link", "set", port, "master", "br0")
        _run("ip", "-n", switch, "link", "set", port, "up")


def _cap(prefix: str, rate_bytes_per_s: float) -> None:
    """Cap the storage host's link in both directions by a token bucket."""
    bits = round(rate_bytes_per_s * 8)
    bucket = ("root", "tbf", "rate", f"{bits}bit", "burst", "256kb", "latency", "20ms")
    _run("tc", "-n", f"{prefix}sto", "qdisc", "replace", "dev", "eth0", *bucket)
    _run("tc", "-n", f"{prefix}sw", "qdisc", "replace", "dev", "p-sto", *bucket)


def _start_sshd(folder: Path, prefix: str) -> None:
    """Start one sshd in each host with keys of the lab's own; all paths absolute, as sshd re-executes itself."""
    _PRIVSEP.mkdir(mode=0o755, exist_ok=True)  # sshd's own, and it stays: others may need it by now
    ssh = folder.resolve() / "ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    _new_key(ssh / "client")
    (ssh / "authorized_keys").write_text((ssh / "client.pub").read_text())
    known = []
    for name in _ADDRESSES:
        _new_key(ssh / f"host_{name}")
        kind, key = (ssh / f"host_{name}.pub").read_text().split()[:2]
        known.append(f"{address(name)} {kind} {key}")
        start_one_sshd(folder, name, prefix=prefix)
    (ssh / "known_hosts").write_text("\n".join(known) + "\n")


def start_one_sshd(folder: Path, name: str, *, prefix: str = PREFIX) -> None:
    """Start the sshd of one host, also again after it was killed.

    Raises:
        HostError: it did not start.

    """
    ssh = folder.resolve() / "ssh"
    config = ssh / f"sshd_{name}.conf"
    config.write_text(
        f"ListenAddress {address(name)}\nHostKey {ssh}/host_{name}\nPidFile {ssh}/sshd_{name}.pid\n"
        f"AuthorizedKeysFile {ssh}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxSessions 20\n"
    )
    sshd, log, pid = shutil.which("sshd") or "/usr/sbin/sshd", ssh / f"sshd_{name}.log", ssh / f"sshd_{name}.pid"
    pid.unlink(missing_ok=True)
    with contextlib.suppress(HostError):  # what is wrong is in the log
        _run("ip", "netns", "exec", f"{prefix}{name}", sshd, "-f", str(config), "-E", str(log))
    limit_s = time.monotonic() + _STOP_S
    while not pid.exists():
        if time.monotonic() > limit_s:
            said = (log.read_text().splitlines() if log.exists() else []) or ["it said nothing"]
            raise HostError(f"sshd of {prefix}{name} did not start: {said[-1]}", "See whether it starts by itself.")
        time.sleep(0.02)


def _new_key(path: Path) -> None:
    if not path.exists():
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kvbench-lab", "-f", str(path))


def _hosts_text(folder: Path, prefix: str, *, with_sshd: bool) -> str:
    """Return the lab as a hosts file: by SSH out of the GPU client's namespace, or by namespace."""

    def reach(name: str) -> str:
        return f"ssh: {{host: {address(name)}}}" if with_sshd else f"netns: {prefix}{name}"

    root = folder.resolve()
    shared = f"{{user: root, key: {root}/ssh/client, known_hosts: {root}/ssh/known_hosts, from_netns: {prefix}gpu}}"
    lines = [f"ssh: {shared}"] if with_sshd else []
    lines.append("side_clients:")
    lines += [f"  {c}: {{{reach(c)}, directory: {root}/targets/{c}, interface: eth0}}" for c in CLIENTS]
    ports = ", ".join(str(5201 + number) for number in range(len(CLIENTS)))
    lines.append(f"iperf3: {{address: {address('sto')}, ports: [{ports}], server: {{{reach('sto')}}}}}")
    return "\n".join(lines) + "\n"


def _signal_all(names: list[str], sign: signal.Signals) -> None:
    """Signal every process inside these namespaces, and wait until they are gone, with a bound."""
    limit_s = time.monotonic() + _STOP_S
    signalled: set[str] = set()
    while time.monotonic() < limit_s:
        pids = {pid for name in names for pid in _run("ip", "netns", "pids", name).split()}
        for pid in pids - signalled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), sign)
        signalled |= pids
        if not pids:
            return
        time.sleep(0.02)
