"""The order of steps on fake hosts, every failure of one, and the same for real on this host."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from kvbench.errors import HostError
from kvbench.scenario.neighbors import NeighborSpec, Target
from kvbench.testbed.hosts.file import HostsFile
from kvbench.testbed.neighbors.cleanup import sweep_hosts
from kvbench.testbed.neighbors.neighbor_loads import side_clients_of
from kvbench.testbed.neighbors.placement import commands, placement_of
from kvbench.testbed.neighbors.side_clients import SideClients
from tests.builders.busy_host import but_for_load
from tests.builders.fake_side_clients import FakeSite
from tests.builders.patience import wait_until

FIO = {"fio": {"size": "1MB", "numjobs": 2}, "ramp": 1, "ramp_limit": 300, "settle_limit": 1, "calibration": 1}


def hosts_file(names: tuple[str, ...] = ("c1", "c2"), **rest: Any) -> HostsFile:
    clients = {name: {"local": True, "directory": f"/srv/{name}"} for name in names}
    return HostsFile.model_validate({"side_clients": clients, **rest})


def side_clients_in(site: FakeSite, folder: Path, hosts: HostsFile | None = None, **spec: Any) -> SideClients:
    wanted = NeighborSpec.model_validate({**FIO, **spec})
    return SideClients(placement_of(wanted, hosts or hosts_file()), folder, site.reach)


@pytest.fixture
def site() -> FakeSite:
    return FakeSite()


def test_steps_come_in_order(site: FakeSite, tmp_path: Path) -> None:
    site["c2"].skew_ns = -3_600_000_000_000  # its clock is an hour late
    with side_clients_in(site, tmp_path) as crew:
        trial = crew.start(Target(aggregate=60e6))
        window = (time.time_ns(), time.time_ns() + 500_000_000)
        time.sleep(0.5)
        crew.stop()
        kept = crew.report(window)
    for name in ("c1", "c2"):
        steps = [line for line in site.log if line.startswith(name)]
        expected = ["connect", "piped", "prepare", "go", "stop", "bye", "let go", "close"]
        assert steps == [f"{name}: {step}" for step in expected]
    first_go = next(number for number, line in enumerate(site.log) if line.endswith(": go"))
    assert {"c1: prepare", "c2: prepare"} <= set(site.log[:first_go]), "nobody starts before all are laid out"
    (go_1,), (go_2,) = ([o for o in site[name].orders if o["order"] == "go"] for name in ("c1", "c2"))
    assert go_1["at_ns"] - go_2["at_ns"] == pytest.approx(3_600e9, abs=60e9), "one instant, on each one's own clock"
    assert "--rate=15000000" in go_1["command"]  # 60 MB/s over 2 hosts and 2 jobs
    assert trial.steady
    assert but_for_load(kept.verdict) == []
    assert kept.delivered_over_asked == pytest.approx(1.0, abs=0.05)
    assert kept.passes == ("disk", "link")
    lines = [json.loads(line) for line in (tmp_path / "neighbors" / "c2.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] != "sample"] == [
        "hello",
        "ready",
        "started",
        "final",
        "gone",
    ]
    assert abs(lines[-1]["t_ns"] - time.time_ns()) < 60e9, "kept on the controller's clock"


def test_a_fraction_is_calibrated_first(site: FakeSite, tmp_path: Path) -> None:
    site["c1"].reaches, site["c2"].reaches = 30e6, 50e6
    with side_clients_in(site, tmp_path) as crew:
        trial = crew.start(Target(fraction=0.5))
        crew.stop()
    assert trial.calibration is not None
    assert trial.calibration.bytes_per_s == pytest.approx(80e6, rel=0.1)
    assert trial.asked_bytes_per_s == pytest.approx(40e6, rel=0.1)
    first, second = (order["command"] for order in site["c1"].orders if order["order"] == "go")
    assert not [word for word in first if word.startswith("--rate")]
    assert [word for word in second if word.startswith("--rate")]


def test_weights_split_the_load(site: FakeSite, tmp_path: Path) -> None:
    clients = {"c1": {"local": True, "directory": "/srv", "weight": 3}, "c2": {"local": True, "directory": "/srv"}}
    with side_clients_in(site, tmp_path, HostsFile.model_validate({"side_clients": clients})) as crew:
        trial = crew.start(Target(aggregate=40e6))
    assert trial.asked == {"c1": pytest.approx(30e6), "c2": pytest.approx(10e6)}


def failure(crew: SideClients) -> str:
    with pytest.raises(HostError) as caught, crew:
        pass
    assert caught.value.remedy.endswith((".", "fio", "iperf3"))
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_missing_or_old_generator_is_one_sentence(site: FakeSite, tmp_path: Path) -> None:
    site["c2"].hello = {"fio": None}
    assert failure(side_clients_in(site, tmp_path)) == "c2: fio is missing there"
    assert not [line for line in site.log if line.endswith(": go")]
    site["c2"].hello = {"fio": "fio-2.99"}
    assert "is not fio 3" in failure(side_clients_in(site, tmp_path))
    site["c2"].hello = {"iperf3": None}
    fabric = {"address": "192.0.2.1", "ports": [5201, 5202]}
    crew = side_clients_in(site, tmp_path, hosts_file(iperf3=fabric), fio=None, iperf3={})
    assert failure(crew) == "c2: iperf3 is missing there"


@pytest.mark.parametrize(
    "sentence",
    ["the target /srv is too full: 1 MB are free, 4 MB are needed", "the target /srv is in memory, not on storage"],
)
def test_a_refused_target_ends_it_before_anything_runs(site: FakeSite, tmp_path: Path, sentence: str) -> None:
    site["c2"].refuses = {"prepare": sentence}
    assert failure(side_clients_in(site, tmp_path)) == f"c2: {sentence}"
    assert not [line for line in site.log if line.endswith(": go")]
    assert {"c1: close", "c2: close"} <= set(site.log), "all are let go"


def test_an_unreachable_host_ends_it(site: FakeSite, tmp_path: Path) -> None:
    site["c1"].unreachable = "the host key of c1 is not in ~/.ssh/known_hosts"
    assert "host key" in failure(side_clients_in(site, tmp_path))
    assert "c1: prepare" not in site.log


def test_a_generator_that_fails_at_once_is_told(site: FakeSite, tmp_path: Path) -> None:
    site["c2"].refuses = {"go": "cannot start fio: permission denied"}
    with side_clients_in(site, tmp_path) as crew:
        with pytest.raises(HostError, match="c2: cannot start fio"):
            crew.start(Target())
        assert "c1: stop" in site.log


@pytest.mark.parametrize("how", ["cut", "silent"])
def test_a_lost_host_is_noticed_and_the_others_stop(site: FakeSite, tmp_path: Path, how: str) -> None:
    with side_clients_in(site, tmp_path) as crew:
        crew.start(Target(aggregate=40e6))
        window_ns = time.time_ns()
        process = site["c2"].process
        assert process is not None
        if how == "cut":
            crew._thread._loop.call_soon_threadsafe(process.lose)
        else:
            process.silent = True
            crew._clients["c2"].lost_after_s = 1.0
        wait_until(lambda: crew.lost, "c2 is lost")
        wait_until(lambda: "c1: stop" in site.log, "the others are stopped, without being asked")
        kept = crew.report((window_ns, time.time_ns()))
        assert kept.verdict.word == "invalid"
        assert [reason.rule for reason in kept.verdict.reasons] == ["neighbour lost"]
        with pytest.raises(HostError, match="c2 was lost"):
            crew.start(Target(aggregate=40e6))
        crew.restore()
        crew.start(Target(aggregate=40e6))
        window = (time.time_ns(), time.time_ns() + 300_000_000)
        time.sleep(0.3)
        crew.stop()
        assert but_for_load(crew.report(window).verdict) == []
    assert crew.lost == [], "it is back"
    prepares = [order["run"] for order in site["c2"].orders if order["order"] == "prepare"]
    assert len(set(prepares)) == 2, "the first folder may still be under removal"


def test_a_host_that_stays_away_is_told(site: FakeSite, tmp_path: Path) -> None:
    with side_clients_in(site, tmp_path) as crew:
        process = site["c2"].process
        assert process is not None
        crew._thread._loop.call_soon_threadsafe(process.lose)
        wait_until(lambda: crew.lost, "c2 is lost")
        site["c2"].unreachable = "no answer within 5 s"
        with pytest.raises(HostError, match="no answer"):
            crew.restore(within_s=0.0)
        with pytest.raises(HostError, match="c2 was lost"):
            crew.start(Target())
        site["c2"].unreachable = None
        crew.restore()
        assert crew.lost == []


def test_with_continue_the_others_go_on(site: FakeSite, tmp_path: Path) -> None:
    with side_clients_in(site, tmp_path, lost_host="continue") as crew:
        crew.start(Target(aggregate=40e6))
        window_ns = time.time_ns()
        process = site["c2"].process
        assert process is not None
        crew._thread._loop.call_soon_threadsafe(process.lose)
        wait_until(lambda: crew.lost, "c2 is lost")
        time.sleep(0.5)
        assert "c1: stop" not in site.log
        window = (window_ns, time.time_ns())
        crew.stop()
        kept = crew.report(window)
    assert kept.verdict.word == "suspect"
    assert kept.delivered_bytes_per_s < 30e6


def test_a_generator_that_ends_in_the_window_is_invalid(site: FakeSite, tmp_path: Path) -> None:
    with side_clients_in(site, tmp_path) as crew:
        crew.start(Target(aggregate=40e6))
        window_ns = time.time_ns()
        time.sleep(0.3)
        process = site["c1"].process
        assert process is not None
        crew._thread._loop.call_soon_threadsafe(process.end_generator)
        time.sleep(0.3)
        window = (window_ns, time.time_ns())
        crew.stop()
        kept = crew.report(window)
    assert kept.verdict.word == "invalid"
    assert "c1: fio ended by itself with exit code 1: boom" in [r.text for r in kept.verdict.reasons]


def test_a_quiet_window_belongs_to_no_trial(site: FakeSite, tmp_path: Path) -> None:
    with side_clients_in(site, tmp_path / "noisy") as crew:
        crew.start(Target(aggregate=40e6))
        crew.stop()
        crew.quiet()
        crew.keep_in(tmp_path / "quiet")
        time.sleep(0.3)
        window = (time.time_ns(), time.time_ns() + 300_000_000)
        time.sleep(0.5)
        kept = crew.report(window, reference_bytes_per_s=40e6)
    assert (kept.label, kept.verdict.word, kept.passes) == ("quiet", "valid", None)
    assert (tmp_path / "quiet" / "neighbors" / "c1.jsonl").exists()


def test_what_does_not_fit_together_is_refused_before_anything() -> None:
    fio, flow = NeighborSpec.model_validate(FIO), NeighborSpec.model_validate({"iperf3": {}})
    bare = HostsFile.model_validate({"side_clients": {"c1": {"local": True}}})
    with pytest.raises(HostError, match="no directory for fio"):
        placement_of(fio, bare)
    with pytest.raises(HostError, match="no far end"):
        placement_of(flow, bare)
    with pytest.raises(HostError, match="no side client c9"):
        placement_of(NeighborSpec.model_validate({**FIO, "clients": ["c9"]}), hosts_file())


@pytest.mark.parametrize(
    ("tier", "refused"), [("/srv/c1", True), ("/srv", True), ("/srv/c1/kv", False), ("/srv/c", False)]
)
def test_the_servers_own_directory_is_never_a_target(tier: str, *, refused: bool) -> None:
    spec = NeighborSpec.model_validate(FIO)
    if refused:
        with pytest.raises(HostError, match="the server's own KV directory"):
            placement_of(spec, hosts_file(), (Path(tier),))
    else:
        assert len(placement_of(spec, hosts_file(), (Path(tier),)).clients) == 2


def test_a_dry_run_prints_every_command() -> None:
    fabric = {"address": "192.0.2.1", "ports": [5201, 5202], "server": {"netns": "storage"}}
    lines = "\n".join(commands(placement_of(NeighborSpec.model_validate({"iperf3": {}}), hosts_file(iperf3=fabric))))
    assert lines.count("iperf3 --client") == 2
    assert lines.count("iperf3 --server") == 2
    assert "nsenter --net=/run/netns/storage python3" in lines
    lines = "\n".join(commands(placement_of(NeighborSpec.model_validate(FIO), hosts_file())))
    assert lines.count("--create_only=1") == 2
    assert "/srv/c1/.kvbench/" in lines


def test_sweeping_asks_every_host(site: FakeSite) -> None:
    swept = sweep_hosts(hosts_file(), site.reach)
    assert swept == {name: {"removed": [f"/srv/{name}/.kvbench/old"], "kept": []} for name in ("c1", "c2")}
    assert {"c1: close", "c2: close"} <= set(site.log)


@pytest.mark.fio
@pytest.mark.skipif(shutil.which("fio") is None, reason="needs fio on PATH")
def test_real_fio_on_this_host(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    clients = {name: {"local": True, "directory": str(target)} for name in ("c1", "c2")}
    hosts = HostsFile.model_validate({"side_clients": clients})
    spec = NeighborSpec.model_validate({**FIO, "fio": {"size": "4MB", "numjobs": 2, "iodepth": 4, "direct": False}})
    with side_clients_of(spec, hosts, tmp_path) as crew:
        trial = crew.start(Target(aggregate=4e6))
        window = (time.time_ns(), time.time_ns() + 1_000_000_000)
        time.sleep(1)
        crew.stop()
        kept = crew.report(window)
        pids = [json.loads(line)["pid"] for line in _lines(tmp_path, "started")]
    assert kept.delivered_bytes_per_s > 0
    assert set(trial.finals) == {"c1", "c2"}
    assert all((host.outcome or {})["error"] is None for host in kept.hosts.values())
    listed = subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split()
    assert not {str(pid) for pid in pids} & set(listed)
    assert list(target.iterdir()) == []


def _lines(folder: Path, event: str) -> list[str]:
    lines = [line for path in (folder / "neighbors").iterdir() for line in path.read_text().splitlines()]
    return [line for line in lines if json.loads(line)["event"] == event]
