"""The lab for real: namespaces, sshd, a token bucket; neighbours through it; hosts and links lost in mid-run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.errors import HostError
from kvbench.scenario.neighbors import NeighborSpec, Target
from kvbench.testbed import lab
from kvbench.testbed.hosts.file import load
from kvbench.testbed.lab import network, sshd
from kvbench.testbed.neighbors.delivery import LEAST_RATE
from kvbench.testbed.neighbors.neighbor_loads import side_clients_of
from kvbench.testbed.neighbors.side_clients import SideClients
from tests.builders.busy_host import but_for_load
from tests.builders.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.result.run_record import NeighborRecord

LINK = 25e6  # bytes per second: far below what two busy cores can move
FLOW = {"iperf3": {}, "ramp": 2, "settle_limit": 2, "calibration": 2}
FILES = {"fio": {"size": "2MB", "numjobs": 1, "iodepth": 2, "direct": False}, "ramp": 1, "settle_limit": 1}


def why_not(*programs: str) -> str | None:
    """What this machine lacks for a lab, None where nothing."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    missing = [program for program in ("ip", "tc", "nsenter", *programs) if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    probe = f"kvb-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    pair = ["ip", "-n", probe, "link", "add", "v0", "type", "veth", "peer", "name", "v1"]
    bucket = ["tc", "-n", probe, "qdisc", "add", "dev", "v0", "root", "tbf", "rate", "1mbit", "burst", "32kb"]
    try:
        for command in (pair, [*bucket, "latency", "20ms"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"this kernel refuses `{' '.join(command)}`: {done.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "delete", probe], check=False)
    return None


@pytest.fixture
def prefix() -> Iterator[str]:
    """A name of this test's own: others may have a lab at the same time."""
    name = f"kvb-t{os.getpid()}-"
    yield name
    if os.geteuid() == 0 and shutil.which("ip"):
        lab.down(prefix=name)


def needs(*programs: str) -> None:
    if (reason := why_not(*programs)) is not None:
        pytest.skip(reason)


def namespaces(prefix: str) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith(prefix)]


def processes(prefix: str) -> list[str]:
    """What runs in the namespaces of a lab, by its command line."""
    pids = [
        pid
        for line in namespaces(prefix)
        for pid in subprocess.run(
            ["ip", "netns", "pids", line.split()[0]], capture_output=True, text=True, check=True
        ).stdout.split()
    ]
    return [
        Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids if Path(f"/proc/{pid}").exists()
    ]


def test_without_root_it_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="only root may make network namespaces"):
        lab.up(tmp_path / "lab")
    assert not (tmp_path / "lab").exists()


def test_a_missing_program_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "tc" else f"/sbin/{name}")
    with pytest.raises(HostError, match="the lab needs tc") as caught:
        lab.up(tmp_path / "lab")
    assert "iproute2" in caught.value.remedy


@pytest.mark.parametrize("prefix", ["", "eth", "kvb_x", "kvb-a/b"])
def test_a_prefix_that_could_meet_others_is_refused(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HostError, match="is no prefix of a lab"):
        lab.down(prefix=prefix)


@pytest.mark.root
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, prefix: str) -> None:
    needs("sshd", "ssh-keygen")
    (tmp_path / "theirs").touch()
    with pytest.raises(HostError, match="files of somebody else"):
        lab.up(tmp_path, prefix=prefix)
    with pytest.raises(HostError, match="does not carry the lab's marker"):
        lab.down(tmp_path, prefix=prefix)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert namespaces(prefix) == []


@pytest.mark.root
def test_up_and_down_leave_nothing(tmp_path: Path, prefix: str) -> None:
    needs("sshd", "ssh-keygen")
    folder = tmp_path / "lab"
    before = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    hosts = load(lab.up(folder, prefix=prefix))
    assert list(hosts.side_clients) == list(lab.CLIENTS)
    assert len(namespaces(prefix)) == 7
    assert sum("sshd" in line for line in processes(prefix)) == 6
    after = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert after == before, "the root namespace gets no link"
    with pytest.raises(HostError, match="is up already"):
        lab.up(folder, prefix=prefix)
    removed = lab.down(folder, prefix=prefix)
    assert len(removed) == 8
    assert namespaces(prefix) == []
    assert not folder.exists()


@pytest.mark.root
def test_a_killed_lab_is_taken_down_by_its_name(tmp_path: Path, prefix: str) -> None:
    needs("sshd", "ssh-keygen")
    folder = tmp_path / "lab"
    script = (
        "import sys, time; from pathlib import Path; from kvbench.testbed import lab\n"
        f"lab.up(Path({str(folder)!r}), prefix={prefix!r}); print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert namespaces(prefix) != []
    lab.down(prefix=prefix)  # its bridge says where the folder is
    assert (namespaces(prefix), folder.exists()) == ([], False)


@pytest.mark.root
def test_what_a_killed_run_leaves_is_swept_and_what_is_used_is_kept(tmp_path: Path, prefix: str) -> None:
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
    assert prefix in lab.labs()
    assert lab.sweep([prefix]) == ([], [prefix])
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    removed, kept = lab.sweep([prefix])
    assert (len(removed), kept) == (8, [])
    assert (namespaces(prefix), folder.exists(), prefix in lab.labs()) == ([], False, False)


@pytest.mark.root
def test_a_folder_of_another_lab_is_left_alone(tmp_path: Path, prefix: str) -> None:
    needs()
    folder = tmp_path / "lab"
    with lab.standing(folder, prefix=prefix, with_sshd=False):
        with pytest.raises(HostError, match="belongs to the lab"):
            lab.down(folder, prefix=f"{prefix}x-")
        assert len(namespaces(prefix)) == 7
    with pytest.raises(HostError, match="unusual characters"):
        lab.up(tmp_path / "a b", prefix=prefix, with_sshd=False)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(HostError, match="not a plain directory"):
        lab.up(tmp_path / "link", prefix=prefix, with_sshd=False)
    assert namespaces(prefix) == []


def trial(crew: SideClients, target: Target, seconds: float = 2.0) -> NeighborRecord:
    crew.start(target)
    window = (time.time_ns(), time.time_ns() + int(seconds * 1e9))
    time.sleep(seconds)
    crew.stop()
    return crew.report(window)


def side_clients_in(hosts: Path, spec: dict[str, Any], folder: Path) -> SideClients:
    crew = side_clients_of(NeighborSpec.model_validate(spec), load(hosts), folder)
    assert isinstance(crew, SideClients)
    return crew


@pytest.mark.root
@pytest.mark.parametrize("with_sshd", [False, True], ids=["netns", "sshd"])
def test_paced_neighbours_never_pass_a_capped_link(tmp_path: Path, prefix: str, *, with_sshd: bool) -> None:
    """Neither it nor what they are asked for; how near they come is for the machine to say."""
    needs("iperf3", *(("sshd", "ssh-keygen") if with_sshd else ()))
    if with_sshd:
        pytest.importorskip("asyncssh")
    folder = tmp_path / "lab"
    with lab.standing(folder, rate_bytes_per_s=LINK, prefix=prefix, with_sshd=with_sshd) as hosts:
        with side_clients_in(hosts, FLOW, tmp_path) as crew:
            half = trial(crew, Target(aggregate=0.5 * LINK))
            over = trial(crew, Target(aggregate=3 * LINK))
        assert [line for line in processes(prefix) if "iperf3" in line or "agent" in line] == []
    assert half.delivered_over_asked is not None
    assert 0 < half.delivered_over_asked <= 1.1
    assert but_for_load(half.verdict) == [] or half.delivered_over_asked < LEAST_RATE, half.verdict
    assert over.delivered_bytes_per_s <= 1.1 * LINK
    assert over.verdict.word != "valid"
    assert "neighbour short" in [reason.rule for reason in over.verdict.reasons]
    assert over.asked_bytes_per_s == 3 * LINK
    assert namespaces(prefix) == []


def sshd_of(prefix: str, host: str) -> list[int]:
    pids = subprocess.run(["ip", "netns", "pids", f"{prefix}{host}"], capture_output=True, text=True, check=True)
    return [int(pid) for pid in pids.stdout.split() if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd"]


@pytest.mark.root
@pytest.mark.fio
@pytest.mark.parametrize("fault", ["sshd", "link"])
def test_a_host_lost_in_mid_run(tmp_path: Path, prefix: str, fault: str) -> None:
    needs("sshd", "ssh-keygen", "fio")
    pytest.importorskip("asyncssh")
    folder = tmp_path / "lab"
    with lab.standing(folder, prefix=prefix) as hosts, side_clients_in(hosts, FILES, tmp_path) as crew:
        began = crew.start(Target(aggregate=4e6))
        start_ns = time.time_ns()
        if fault == "sshd":
            for pid in sshd_of(prefix, "c2"):
                os.kill(pid, signal.SIGKILL)
        else:
            lab.set_link("c2", "down", prefix=prefix)
            crew._clients["c2"].lost_after_s = 1.0
        broken_ns = time.time_ns()
        wait_until(lambda: crew.lost, "c2 is lost")
        (lost,) = crew.lost
        assert lost.name == "c2"
        wait_until(lambda: not list((folder / "targets" / "c2").iterdir()), "the agent behind the cut has tidied up")
        wait_until(lambda: set(began.ended_ns) == {"c1", "c3", "c4"}, "the others are stopped")
        assert [line for line in processes(prefix) if line.startswith("fio")] == []
        stopped_s = (max(began.ended_ns.values()) - lost.noticed_ns) / 1e9
        noticed_s = (lost.noticed_ns - broken_ns) / 1e9
        print(f"{fault}: noticed after {noticed_s:.2f} s, the others had ended {stopped_s:.2f} s later")  # noqa: T201
        kept = crew.report((start_ns, time.time_ns()))
        assert kept.verdict.word == "invalid"
        if fault == "sshd":
            lab.start_one_sshd(folder, "c2", prefix=prefix)
        else:
            lab.set_link("c2", "up", prefix=prefix)
        crew.restore()
        again = trial(crew, Target(aggregate=4e6), 1.0)
        assert again.lost == ()
        assert set(again.hosts) == set(lab.CLIENTS)
        crew.__exit__()
        assert [list((folder / "targets" / name).iterdir()) for name in lab.CLIENTS] == [[], [], [], []]
        assert [line for line in processes(prefix) if "sshd" not in line] == []


@pytest.mark.root
def test_an_sshd_that_does_not_start_is_told(tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("sshd", "ssh-keygen")
    monkeypatch.setattr(network, "STOP_S", 0.3)
    monkeypatch.setattr(sshd, "_new_key", lambda path: path.with_suffix(".pub").write_text("no key\n"))
    with pytest.raises(HostError, match="did not start: "):
        lab.up(tmp_path / "lab", prefix=prefix)
    assert (namespaces(prefix), (tmp_path / "lab").exists()) == ([], False)


@pytest.mark.root
def test_an_sshd_with_another_key_is_refused(tmp_path: Path, prefix: str) -> None:
    needs("sshd", "ssh-keygen", "iperf3")
    pytest.importorskip("asyncssh")
    with lab.standing(tmp_path / "lab", prefix=prefix) as hosts:
        known = tmp_path / "lab" / "ssh" / "known_hosts"
        lines = known.read_text().splitlines()
        swapped = [line.replace(f"{lab.address('c1')} ", f"{lab.address('c2')} ") for line in lines]
        known.write_text("\n".join(line for line in swapped if lab.address("c1") not in line))
        with pytest.raises(HostError) as caught, side_clients_in(hosts, FLOW, tmp_path):
            pass
        assert "host key" in caught.value.message
        assert [line for line in processes(prefix) if "iperf3" in line] == []
