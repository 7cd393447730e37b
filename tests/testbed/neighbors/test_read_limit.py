"""A read limit by a control group: made where it is permitted, told where not, and never left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvbench.scenario.neighbors import NeighborSpec, Target
from kvbench.testbed.hosts.file import HostsFile
from kvbench.testbed.neighbors import agent_host, read_limit
from kvbench.testbed.neighbors.neighbor_loads import side_clients_of
from kvbench.testbed.neighbors.read_limit import capped
from kvbench.testbed.neighbors.side_clients import SideClients

LIMIT = 200e6
READER = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
buffer, size, moved = mmap.mmap(-1, 1 << 20), os.fstat(fd).st_size, 0
input()
begin = time.monotonic()
while time.monotonic() < begin + float(sys.argv[2]):
    moved += os.preadv(fd, [buffer], moved % size)
print(moved / (time.monotonic() - begin))
"""


def test_where_there_is_no_disk_it_says_so() -> None:
    with capped(Path("/proc"), LIMIT) as cap:
        cap.add(os.getpid())
        assert not cap.made
        assert cap.record().reason == "there is no disk of this machine under /proc"


def test_where_nothing_is_permitted_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_limit, "_V1", tmp_path / "none")
    monkeypatch.setattr(read_limit, "_v2_parent", lambda: None)
    monkeypatch.setattr(agent_host, "disk_of", lambda _: "sda")
    with capped(tmp_path, LIMIT) as cap:
        assert not cap.made
        assert cap.reason == "no read limit could be made (cgroup v2 io.max: not here; cgroup v1 blkio: not here)"


def limited(path: Path) -> None:
    with capped(path, LIMIT) as cap:
        if not cap.made:
            pytest.skip(cap.reason)


@pytest.mark.root
def test_a_process_goes_home_and_the_group_is_removed(tmp_path: Path) -> None:
    limited(tmp_path)
    process = subprocess.Popen(["sleep", "60"])
    home = Path(f"/proc/{process.pid}/cgroup").read_text()
    try:
        with capped(tmp_path, LIMIT) as cap:
            cap.add(process.pid)
            assert cap.group is not None
            assert Path(f"/proc/{process.pid}/cgroup").read_text() != home
        assert Path(f"/proc/{process.pid}/cgroup").read_text() == home
        assert not cap.group.exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.root
def test_the_group_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    limited(tmp_path)
    script = (
        "import os, signal, sys; from pathlib import Path; from kvbench.testbed.neighbors.read_limit import capped\n"
        f"with capped(Path({str(tmp_path)!r}), 1e6) as cap: print(cap.group, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    group = Path(done.stdout.strip())
    assert group.is_absolute(), done.stderr
    read_limit.sweep()  # of all that were killed: another test may have swept this one, and this one others
    assert not group.exists()


@pytest.mark.root
@pytest.mark.fio
@pytest.mark.skipif(shutil.which("fio") is None, reason="needs fio on PATH")
def test_a_reader_and_paced_neighbours_share_the_limit(tmp_path: Path) -> None:
    """Together they never pass it: how much of it they reach is for the disk and the machine to say.

    10 % above, because `blkio` lets several streams together pass 3 to 6 % more than its limit.
    """
    limited(tmp_path)
    data = tmp_path / "data"
    data.write_bytes(os.urandom(1 << 26))
    subprocess.run(["sync", data], check=True)
    clients = {name: {"local": True, "directory": str(tmp_path)} for name in ("c1", "c2")}
    spec = {"fio": {"size": "8MB", "numjobs": 1, "iodepth": 4}, "ramp": 2, "settle_limit": 1}
    crew = side_clients_of(
        NeighborSpec.model_validate(spec), HostsFile.model_validate({"side_clients": clients}), tmp_path
    )
    assert isinstance(crew, SideClients)
    with capped(tmp_path, LIMIT) as cap, crew:
        assert len(crew.confine(cap.add)) == 2
        quiet = read(data, cap.add)
        crew.start(Target(aggregate=0.25 * LIMIT))
        start_ns = time.time_ns()
        noisy = read(data, cap.add)
        window = (start_ns, time.time_ns())
        crew.stop()
        kept = crew.report(window)
    delivered = kept.delivered_bytes_per_s
    print(f"quiet {quiet / LIMIT:.3f} noisy {noisy / LIMIT:.3f} neighbours {delivered / LIMIT:.3f} of the cap")  # noqa: T201
    assert 0 < quiet <= 1.1 * LIMIT
    assert 0 < delivered <= 1.1 * 0.25 * LIMIT, "they are paced"
    assert noisy > 0
    assert noisy + delivered <= 1.1 * LIMIT


def read(path: Path, add: object, seconds: float = 4.0) -> float:
    assert callable(add)
    command = [sys.executable, "-c", READER, str(path), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        add(process.pid)
        moved, _ = process.communicate("\n")
    return float(moved)
