"""Shared storage of the lab: one GlusterFS brick on the storage host, mounted once for each of the other hosts.

The graphs are written here and given to `glusterfsd` and `glusterfs` directly: no glusterd, so no state outside the
lab's folder, and nothing in them caches, reads ahead or takes O_DIRECT away. Every byte of a client passes its own link
and the capped one of the storage host.

    <lab>/g4/brick               the storage host's own directory
    <lab>/g4/gpu, c1 .. c4       the same volume as each host sees it, mounted by FUSE
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from kvbench.errors import HostError
from kvbench.testbed.lab.network import HOSTS, address, inside, run
from kvbench.testbed.neighbors.agent_host import MEMORY, file_system_of

_PORT = 24007
_START_S = 10.0
_FUSE = Path("/dev/fuse")
_PROGRAMS = {"glusterfsd": "glusterfs-server", "glusterfs": "glusterfs-client"}
_BRICK = """\
volume posix
  type storage/posix
  option directory {brick}
end-volume

volume locks
  type features/locks
  subvolumes posix
end-volume

volume brick
  type performance/io-threads
  option thread-count 16
  subvolumes locks
end-volume

volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address {address}
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow *
  subvolumes brick
end-volume
"""
_CLIENT = """\
volume g4
  type protocol/client
  option transport-type tcp
  option remote-host {address}
  option remote-port {port}
  option remote-subvolume brick
  option filter-O_DIRECT off
  option ping-timeout 10
end-volume
"""


def has_shared_storage() -> str | None:
    """Return why the lab can have no shared storage here, None where it can."""
    if os.geteuid() != 0:
        return "only root may mount it"
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    return None if _FUSE.exists() else f"this kernel or container has no {_FUSE}"


def check_storage(folder: Path) -> None:
    """Refuse to begin where there can be no shared storage, or where it would be memory behind a link.

    Raises:
        HostError: with the reason.

    """
    if (reason := has_shared_storage()) is not None:
        remedy = "Leave the shared storage out, or provide what is missing."
        raise HostError(f"the lab can have no shared storage: {reason}", remedy)
    if file_system_of(folder.resolve()) in MEMORY:
        raise HostError(f"{folder} is in memory, so its shared storage would be none", "Name a folder on a disk.")


def mount_points(folder: Path) -> dict[str, Path]:
    """Return where each host's view of the volume is, by the host's short name."""
    return {name: folder.resolve() / "g4" / name for name in HOSTS if name != "sto"}


def mounted(folder: Path) -> list[Path]:
    """Return every mount below the lab's folder, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split(" ")[4].encode().decode("unicode_escape")) for line in lines]
    return sorted((path for path in points if folder.resolve() in path.parents), reverse=True)


def start_storage(folder: Path, prefix: str) -> None:
    """Serve the brick on the storage host, and mount it for all others.

    Raises:
        HostError: the brick was not served, or a mount did not come up.

    """
    brick, work = folder.resolve() / "g4" / "brick", folder.resolve() / "gluster"
    for path in (brick, work):
        path.mkdir(parents=True, exist_ok=True)
    end = {"address": address("sto"), "port": _PORT}
    (work / "brick.vol").write_text(_BRICK.format(brick=brick, **end))
    (work / "client.vol").write_text(_CLIENT.format(**end))
    _daemon(work, prefix, "sto", "glusterfsd", "brick")
    for name, point in mount_points(folder).items():
        point.mkdir(exist_ok=True)
        _daemon(work, prefix, name, "glusterfs", "client", "--direct-io-mode=enable", str(point))
    _wait(folder, work)


def unmount(folder: Path) -> list[Path]:
    """Unmount all that is mounted below the lab's folder, also where its server is gone or files are open."""
    points = mounted(folder)
    for point in points:
        run("umount", "--lazy", str(point))
    return points


def _daemon(work: Path, prefix: str, host: str, program: str, graph: str, *rest: str) -> None:
    log, pid = work / f"{host}.log", work / f"{host}.pid"
    words = (program, "-f", str(work / f"{graph}.vol"), "-l", str(log), "--pid-file", str(pid), *rest)
    try:
        run(*inside(prefix, host), *words)
    except HostError as fault:
        raise HostError(
            f"{program} of {prefix}{host} did not start: {_last_error(log, fault.message)}", _REMEDY
        ) from None


_REMEDY = "Check that the lab's folder is on a disk whose file system keeps extended attributes, such as ext4 or xfs."


def _wait(folder: Path, work: Path) -> None:
    """Wait until every host sees the volume."""
    limit_s = time.monotonic() + _START_S
    for name, point in mount_points(folder).items():
        while not (point in mounted(folder) and _answers(point)):
            if time.monotonic() > limit_s:
                said = _last_error(work / f"{name}.log", "it said nothing")
                raise HostError(f"the shared storage is not there for {name}: {said}", _REMEDY)
            time.sleep(0.05)


def _answers(point: Path) -> bool:
    with contextlib.suppress(OSError):
        os.listdir(point)  # noqa: PTH208 - asks the server, which is the question
        return True
    return False


def _last_error(log: Path, otherwise: str) -> str:
    """Return the last error in a log of GlusterFS's, without its stamps."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [line for line in lines if "] E [" in line]
    return errors[-1].split("] ", 2)[-1].strip() if errors else otherwise
