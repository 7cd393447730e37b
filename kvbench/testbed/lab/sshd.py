"""One sshd in each host of the lab, with keys of the lab's own.

All paths are absolute, because sshd re-executes itself for each connection.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from kvbench.errors import HostError
from kvbench.testbed.lab.network import HOSTS, PREFIX, STOP_S, address, check_programs, inside, run

_PROGRAMS = {"sshd": "openssh-server", "ssh-keygen": "openssh-client"}
_PRIVSEP = Path("/run/sshd")


def check_sshd() -> None:
    """Refuse to begin where sshd or ssh-keygen is missing.

    Raises:
        HostError: one is missing.

    """
    check_programs(_PROGRAMS)


def start_every_sshd(folder: Path, prefix: str) -> None:
    """Make the keys and start one sshd in each host.

    Raises:
        HostError: one did not start.

    """
    _PRIVSEP.mkdir(mode=0o755, exist_ok=True)  # sshd's own, and it stays: others may need it by now
    ssh = folder.resolve() / "ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    _new_key(ssh / "client")
    (ssh / "authorized_keys").write_text((ssh / "client.pub").read_text())
    known = []
    for name in HOSTS:
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
        run(*inside(prefix, name), sshd, "-f", str(config), "-E", str(log))
    limit_s = time.monotonic() + STOP_S
    while not pid.exists():
        if time.monotonic() > limit_s:
            said = (log.read_text().splitlines() if log.exists() else []) or ["it said nothing"]
            raise HostError(f"sshd of {prefix}{name} did not start: {said[-1]}", "See whether it starts by itself.")
        time.sleep(0.02)


def _new_key(path: Path) -> None:
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kvbench-lab", "-f", str(path))
