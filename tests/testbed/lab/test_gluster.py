"""The lab's shared storage for real: one volume, seen by every host, over the capped link, and nothing left of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.emulator import direct_io
from kvbench.errors import HostError
from kvbench.scenario.neighbors import NeighborSpec, Target
from kvbench.testbed import lab
from kvbench.testbed.hosts.file import load
from kvbench.testbed.lab import gluster
from kvbench.testbed.neighbors.agent_host import file_system_of
from kvbench.testbed.neighbors.neighbor_loads import side_clients_of
from kvbench.testbed.neighbors.side_clients import SideClients
from tests.testbed.lab.test_lab import namespaces, needs, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

LINK = 25e6  # bytes per second: far below what two busy cores can move
MEMORY_MOUNT = Path("/dev/shm")  # noqa: S108 - looked at, not written
JOB = {"size": "4MB", "numjobs": 1, "iodepth": 4}


@pytest.fixture
def prefix() -> Iterator[str]:
    """A name of this test's own: others may have a lab at the same time."""
    name = f"kvb-g{os.getpid()}-"
    yield name
    if os.geteuid() == 0 and shutil.which("ip"):
        lab.down(prefix=name)


@pytest.fixture
def shared(tmp_path: Path, prefix: str, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A lab with shared storage, with sshd if asked; gives its folder."""
    with_sshd = getattr(request, "param", False)
    needs(*(("sshd", "ssh-keygen") if with_sshd else ()))
    if (reason := lab.has_shared_storage()) is not None:
        pytest.skip(reason)
    folder = tmp_path / "lab"
    with lab.standing(folder, rate_bytes_per_s=LINK, prefix=prefix, with_sshd=with_sshd, shared_storage=True):
        yield folder


def view(folder: Path, host: str) -> Path:
    point = lab.shared_mount(folder, host)
    assert point is not None
    return point


def sent_bytes(prefix: str) -> int:
    """What the storage host has sent over its link."""
    file = ["cat", "/proc/net/dev"]
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{prefix}sto", *file], capture_output=True, text=True, check=True
    )
    (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith("eth0:"))
    return int(line.split()[9])


def read_directly(path: Path, size_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size_bytes) as buffer:
            assert os.preadv(descriptor, [buffer], 0) == size_bytes
            return bytes(buffer)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("glusterfsd", "glusterfsd is not installed (apt-get install glusterfs-server)"),
        ("glusterfs", "glusterfs is not installed (apt-get install glusterfs-client)"),
        ("/dev/fuse", "this kernel or container has no"),
    ],
)
def test_why_there_is_none(missing: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/usr/sbin/{name}")
    monkeypatch.setattr(gluster, "_FUSE", tmp_path / "none" if missing == "/dev/fuse" else tmp_path)
    assert str(lab.has_shared_storage()).startswith(reason)
    with pytest.raises(HostError, match="can have no shared storage"):
        lab.up(tmp_path / "lab", with_sshd=False, shared_storage=True)
    assert not (tmp_path / "lab").exists()


@pytest.mark.root
def test_memory_is_no_shared_storage(prefix: str) -> None:
    needs()
    if (reason := lab.has_shared_storage()) is not None:
        pytest.skip(reason)
    if file_system_of(MEMORY_MOUNT) != "tmpfs":
        pytest.skip("there is no tmpfs here")
    folder = MEMORY_MOUNT / prefix
    with pytest.raises(HostError, match="is in memory"):
        lab.up(folder, prefix=prefix, with_sshd=False, shared_storage=True)
    assert not folder.exists()


@pytest.mark.root
def test_every_host_sees_one_volume_over_the_link(shared: Path, prefix: str) -> None:
    size_bytes = 4_000_000 // mmap.PAGESIZE * mmap.PAGESIZE
    content = os.urandom(size_bytes)
    (view(shared, "c1") / "file").write_bytes(content)
    before = sent_bytes(prefix)
    for number, host in enumerate(("gpu", "c1", "c4"), start=1):
        assert read_directly(view(shared, host) / "file", size_bytes) == content
        assert sent_bytes(prefix) - before >= number * size_bytes, "no cache on the way served it"
    assert lab.shared_mount(shared, "sto") is None
    hosts = load(shared / "hosts.yaml")
    for name, entry in hosts.side_clients.items():
        assert entry.directory is not None
        assert entry.directory.is_relative_to(view(shared, name))


@pytest.mark.root
def test_direct_io_is_enforced(shared: Path) -> None:
    found = direct_io.probe(view(shared, "gpu"))
    assert (found.status, found.filesystem) == ("enforced", "fuse")


@pytest.mark.root
@pytest.mark.fio
@pytest.mark.parametrize("shared", [False, True], ids=["netns", "sshd"], indirect=True)
def test_neighbours_load_the_volume(shared: Path, tmp_path: Path, prefix: str) -> None:
    needs("fio")
    if "ssh:" in (shared / "hosts.yaml").read_text():
        pytest.importorskip("asyncssh")
    spec = NeighborSpec.model_validate({"fio": JOB, "ramp": 2, "settle_limit": 2})
    crew = side_clients_of(spec, load(shared / "hosts.yaml"), tmp_path)
    assert isinstance(crew, SideClients)
    with crew:
        crew.start(Target(aggregate=0.5 * LINK))
        window = (time.time_ns(), time.time_ns() + 2 * 10**9)
        time.sleep(2)
        crew.stop()
        kept = crew.report(window)
    assert kept.delivered_over_asked is not None
    assert 0 < kept.delivered_over_asked <= 1.1  # how near they come is for the machine to say
    for host in kept.hosts.values():
        assert (host.device, host.facts["direct"]) == ("interface", "enforced")
        assert host.facts["file_system"] == "fuse.glusterfs"
    assert [line for line in processes(prefix) if line.startswith("fio")] == []
    assert not list(view(shared, "gpu").glob("targets/*/.kvbench"))


@pytest.mark.root
@pytest.mark.parametrize("killed", ["maker", "storage", "client"])
def test_nothing_stays_after_a_kill(tmp_path: Path, prefix: str, killed: str) -> None:
    needs()
    if (reason := lab.has_shared_storage()) is not None:
        pytest.skip(reason)
    folder = tmp_path / "lab"
    script = (
        "import time; from pathlib import Path; from kvbench.testbed import lab\n"
        f"with lab.standing(Path({str(folder)!r}), prefix={prefix!r}, with_sshd=False, shared_storage=True):\n"
        "    print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    held = os.open(folder / "g4" / "c2" / "held", os.O_CREAT | os.O_WRONLY)  # an open file must not hold it back
    host = {"storage": "sto", "client": "gpu"}.get(killed)
    if host is not None:
        os.kill(int((folder / "gluster" / f"{host}.pid").read_text()), signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    _, kept = lab.sweep([prefix])
    with contextlib.suppress(OSError):  # its server is gone
        os.close(held)
    assert kept == []
    assert (namespaces(prefix), folder.exists(), gluster.mounted(folder)) == ([], False, [])
    named = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in named
