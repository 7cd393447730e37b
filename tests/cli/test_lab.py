"""`kvbench lab` and `kvbench clean` from the command line: what they print, refuse, and remove."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.testbed import lab
from kvbench.testbed.hosts.file import load
from kvbench.testbed.neighbors import agent_host
from kvbench.testbed.neighbors.read_limit import capped
from tests.cli.test_cli import kvbench, one_sentence_with_remedy
from tests.testbed.lab.test_lab import namespaces, needs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def prefix() -> Iterator[str]:
    """A name of this test's own: others may have a lab at the same time."""
    name = f"kvb-k{os.getpid()}-"
    yield name
    if os.geteuid() == 0 and shutil.which("ip"):
        lab.down(prefix=name)


@pytest.mark.root
def test_up_and_down(tmp_path: Path, prefix: str) -> None:
    needs()
    options = ("--no-sshd", "--rate", "25MB/s", "--prefix", prefix)
    done = kvbench("lab", "up", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "link 25 MB/s" in done.stdout
    assert f"take it down: kvbench lab down --prefix {prefix}" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("hosts file: "))
    assert list(load(tmp_path / line.removeprefix("hosts file: ")).side_clients) == list(lab.CLIENTS)
    again = kvbench("lab", "up", "other", *options, cwd=tmp_path)
    assert f"a lab named {prefix} is up already" in one_sentence_with_remedy(again)
    assert not (tmp_path / "other").exists()
    gone = kvbench("lab", "down", "--prefix", prefix, cwd=tmp_path)
    assert gone.returncode == 0
    assert f"removed {tmp_path / 'kvlab'}" in gone.stdout.splitlines()
    assert (namespaces(prefix), list(tmp_path.iterdir())) == ([], [])
    assert kvbench("lab", "down", "--prefix", prefix).stdout == f"there is no lab named {prefix}\n"


@pytest.mark.parametrize("rate", ["fast", "0"])
def test_a_wrong_rate_is_a_usage_error(tmp_path: Path, rate: str) -> None:
    done = kvbench("lab", "up", "--rate", rate, cwd=tmp_path)
    assert done.returncode == 2
    assert "--rate" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_lab_of_a_killed_run_is_cleaned_and_a_used_one_kept(tmp_path: Path, prefix: str) -> None:
    needs()
    folder = tmp_path / "lab"
    script = (
        "import time; from pathlib import Path; from kvbench.testbed import lab\n"
        f"with lab.standing(Path({str(folder)!r}), prefix={prefix!r}, with_sshd=False):\n"
        "    print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    clean = ("clean", "--lab", "--prefix", prefix)
    assert kvbench(*clean).stdout == f"kept the lab {prefix}, which a run is using\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert f"removed {folder}" in kvbench(*clean).stdout.splitlines()
    assert kvbench(*clean).stdout == "nothing was left\n"
    assert (namespaces(prefix), folder.exists()) == ([], False)


@pytest.mark.root
def test_a_read_limit_of_a_killed_run_is_removed(tmp_path: Path, prefix: str) -> None:
    with capped(tmp_path, 1e9) as cap:
        if not cap.made:
            pytest.skip(cap.reason)
    script = (
        "import os, signal; from pathlib import Path; from kvbench.testbed.neighbors.read_limit import capped\n"
        f"with capped(Path({str(tmp_path)!r}), 1e9) as cap:\n"
        "    print(cap.group, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    group = Path(killed.stdout.strip())
    assert group.is_absolute(), killed.stderr
    removed = kvbench("clean", "--prefix", prefix).stdout
    assert not group.exists()
    # Another test may have swept it
    assert f"removed the read limit {group.name}" in removed or "nothing was left" in removed


def left_by_a_killed_agent(client: Path) -> Path:
    """A marked folder whose agent is gone."""
    folder = client / ".kvbench" / "run-1"
    folder.mkdir(parents=True)
    owner = {"made_by": "kvbench", "run": "run-1", "boot_id": agent_host.boot_id(), "pid": 1, "pid_start": "none"}
    (folder / agent_host.OWNER).write_text(json.dumps(owner))
    (folder / "neighbour.0").write_text("x")
    return folder


def test_folders_of_side_clients_are_swept_by_hosts_file_and_by_directory(tmp_path: Path) -> None:
    one, two, theirs = (tmp_path / "targets" / name for name in ("c1", "c2", "theirs"))
    for client in (one, two, theirs):
        client.mkdir(parents=True)
    (theirs / ".kvbench" / "run-1").mkdir(parents=True)
    (theirs / "thesis.txt").write_text("do not delete")
    folder = left_by_a_killed_agent(one)
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(f"side_clients:\n  c1: {{local: true, directory: {one}}}\n")
    assert kvbench("clean", "--hosts", hosts).stdout == f"c1: removed {folder}\n"
    assert list(one.iterdir()) == []
    folder = left_by_a_killed_agent(two)
    done = kvbench("clean", tmp_path / "targets")
    assert sorted(done.stdout.splitlines()) == [
        f"{two}: removed {folder}",
        f"{theirs}: kept {theirs / '.kvbench' / 'run-1'}, which is in use or not ours",
    ]
    assert not two.exists()
    assert (theirs / "thesis.txt").read_text() == "do not delete"
