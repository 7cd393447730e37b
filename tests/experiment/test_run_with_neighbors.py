"""A whole run beside neighbours, in a made-up world: the order of steps, lost hosts, and what is kept of them."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import summary
from kvbench.errors import HostError
from kvbench.result.files import read_json
from kvbench.result.records import Response
from kvbench.scenario import plan
from kvbench.scenario.neighbors import Neighbors
from kvbench.testbed.hosts.file import HostsFile
from kvbench.testbed.neighbors import agent_host
from kvbench.testbed.neighbors.neighbor_loads import Loads, commands_of, folders_of, hosts_of_this_machine
from kvbench.testbed.neighbors.read_limit import Cap
from tests.builders.fake_side_clients import FakeSite
from tests.builders.worlds import make_scenario
from tests.experiment.test_run import FakeTestbed, Recorder, execute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.scenario.models import Treatment
    from kvbench.scenario.scenario import Scenario
    from tests.builders.worlds import FakeDriver, FakeServer

FIO = {"fio": {"size": "1MB", "numjobs": 1}, "ramp": 0.4, "settle_limit": 0.2, "calibration": 0.4}
WARM = {"cache": {"warm": "g4"}}


def scenario_with(neighbors: dict[str, Any] | None = None, **treatments: Any) -> Scenario:
    chosen = treatments or {"quiet": WARM, "noisy": {**WARM, "neighbors": {"storage": {"fraction": 0.5}}}}
    given = {"local": {"clients": 2}, "loads": {"storage": FIO}, **(neighbors or {})}
    first = next(iter(chosen))
    return make_scenario(repeats=1, treatments=chosen, baseline=first, neighbors=given)


def loads_of(scenario: Scenario, site: FakeSite) -> Loads:
    clients = {name: {"local": True, "directory": f"/srv/{name}"} for name in ("c1", "c2")}
    hosts = HostsFile.model_validate({"side_clients": clients})
    assert scenario.neighbors is not None
    return Loads(scenario.neighbors, hosts, reach=site.reach)


class SharedLog(FakeTestbed):
    """A testbed whose server and side clients write into one log, so that the order over all of them can be read."""

    def __init__(self, tier: Path, site: FakeSite, loads: Loads) -> None:
        super().__init__(tier)
        self.log = site.log
        self.loads = loads

    @contextlib.contextmanager
    def serving(self, treatment: Treatment, folder: Path) -> Iterator[tuple[FakeServer, FakeDriver, FakeDriver]]:
        self.flags["free_ns"] = [time.time_ns()]  # side clients are on the wall clock, so the made-up server must be
        with super().serving(treatment, folder) as serving:
            yield serving


def test_neighbours_start_before_the_load_and_stop_after_its_last_byte(tmp_path: Path) -> None:
    scenario, site = scenario_with(), FakeSite()
    with loads_of(scenario, site) as loads:
        bed, watch = SharedLog(tmp_path / "tier", site, loads), Recorder()
        result = execute(scenario, bed, tmp_path, watch)
    prepared = [site.log.index(f"{name}: prepare") for name in ("c1", "c2")]
    assert max(prepared) < site.log.index("server up"), "all are reached and laid out before anything is measured"
    noisy = "r01-noisy"
    runs = " ".join(site.log).split("server up")
    words = next(text for text in runs[1:] if "c1: go" in text).replace(": ", ":").split()
    measured = [number for number, word in enumerate(words) if word == "measure"]
    assert max(words.index("c1:go"), words.index("c2:go")) < measured[0]
    assert measured[-1] < min(words.index("c1:stop"), words.index("c2:stop"))
    kept = read_json(result.path / "runs" / noisy / "run.json")["neighbors"]
    assert (kept["load"], kept["target"], kept["attempts"]) == ("storage", "50 %", [])
    assert kept["calibrated_bytes_per_s"] == pytest.approx(200e6, rel=0.2)
    assert "neighbours: storage, 50 %" in watch.seen
    quiet = read_json(result.path / "runs" / "r01-quiet" / "run.json")["neighbors"]
    assert (quiet["load"], quiet["target"], quiet["delivered_bytes_per_s"]) == (None, "quiet", 0.0)
    assert (result.path / "calibration" / "storage" / "neighbors" / "c1.jsonl").exists()
    samples = (result.path / "runs" / noisy / "neighbors" / "c2.jsonl").read_text().splitlines()
    assert {"started", "sample", "final"} <= {json.loads(line)["event"] for line in samples}


class LosesAHost(SharedLog):
    """Loses a side client with the first measured request of each of so many tries of the noisy run."""

    def __init__(self, tier: Path, site: FakeSite, loads: Loads, tries: int) -> None:
        super().__init__(tier, site, loads)
        self.site, self.left = site, tries


class LosesOnMeasure(Recorder):
    def __init__(self, bed: LosesAHost) -> None:
        super().__init__()
        self.bed = bed
        self.noisy = False

    def step(self, text: str) -> None:
        super().step(text)
        self.noisy = text.startswith("neighbours") or (self.noisy and text == "measure")
        if self.noisy and text == "measure" and self.bed.left:
            self.bed.left -= 1
            process = self.bed.site["c2"].process
            assert process is not None
            process.lose()


@pytest.mark.parametrize(("lost", "attempts"), [(1, 1), (2, 2)])
def test_a_run_whose_side_client_was_lost_is_tried_again(tmp_path: Path, lost: int, attempts: int) -> None:
    scenario, site = scenario_with(), FakeSite()
    with loads_of(scenario, site) as loads:
        bed = LosesAHost(tmp_path / "tier", site, loads, lost)
        result = execute(scenario, bed, tmp_path, LosesOnMeasure(bed))
    folder = result.path / "runs" / "r01-noisy"
    broken = read_json(folder / "attempt-1" / "broken.json")
    assert broken["why"].startswith("c2 was lost")
    assert broken["neighbors"]["verdict"]["word"] == "invalid"
    kept = read_json(folder / "run.json")
    assert kept["attempt"] == attempts + 1
    assert len(kept["neighbors"]["attempts"]) == attempts
    assert kept["neighbors"]["lost"] == []
    (run,) = [run for run in summary.summarise(result.path).runs if run.run_id == "r01-noisy"]
    assert [reason.rule for reason in run.reasons].count("neighbour retry") == 1


def test_the_last_try_is_kept_as_invalid_and_the_rest_goes_on(tmp_path: Path) -> None:
    noisy = {**WARM, "neighbors": {"storage": {"fraction": 0.5}}}
    scenario, site = scenario_with({"tries": 2}, quiet=WARM, noisy=noisy, noisy_again=noisy), FakeSite()
    with loads_of(scenario, site) as loads:
        bed = LosesAHost(tmp_path / "tier", site, loads, 2)
        result = execute(scenario, bed, tmp_path, LosesOnMeasure(bed))
    kept = {path.parent.name: read_json(path) for path in result.path.glob("runs/*/run.json")}
    assert len(kept) == 3
    (hit,) = [run["neighbors"] for run in kept.values() if run["neighbors"]["lost"]]
    assert (len(hit["attempts"]), hit["verdict"]["word"]) == (1, "invalid")
    assert [reason["rule"] for reason in hit["verdict"]["reasons"]] == ["neighbour lost"]
    words = {row.run_id: row.verdict for row in summary.summarise(result.path).runs}
    assert words[next(name for name, run in kept.items() if run["neighbors"] is hit)] == "invalid"


def test_policy_continue_goes_on_with_the_others(tmp_path: Path) -> None:
    scenario, site = scenario_with({"loads": {"storage": {**FIO, "lost_host": "continue"}}}), FakeSite()
    with loads_of(scenario, site) as loads:
        bed = LosesAHost(tmp_path / "tier", site, loads, 1)
        result = execute(scenario, bed, tmp_path, LosesOnMeasure(bed))
    kept = read_json(result.path / "runs" / "r01-noisy" / "run.json")
    assert kept["attempt"] == 1
    assert [one["host"] for one in kept["neighbors"]["lost"]] == ["c2"]
    levels = {reason["rule"]: reason["level"] for reason in kept["neighbors"]["verdict"]["reasons"]}
    assert levels["neighbour lost"] == "suspect"


class LosesForGood(LosesOnMeasure):
    """The lost host does not come back."""

    def step(self, text: str) -> None:
        before = self.bed.left
        super().step(text)
        if self.bed.left < before:
            self.bed.site["c2"].unreachable = "it is gone"


def test_policy_continue_goes_on_in_later_runs_without_the_host(tmp_path: Path) -> None:
    noisy = {**WARM, "neighbors": {"storage": {"aggregate": "40MB/s"}}}
    goes_on = {"loads": {"storage": {**FIO, "lost_host": "continue"}}}
    scenario, site = scenario_with(goes_on, quiet=WARM, noisy=noisy, noisy_again=noisy), FakeSite()
    with loads_of(scenario, site) as loads:
        bed = LosesAHost(tmp_path / "tier", site, loads, 1)
        result = execute(scenario, bed, tmp_path, LosesForGood(bed))
    kept = [read_json(path)["neighbors"] for path in result.path.glob("runs/*/run.json")]
    assert len(kept) == 3
    assert sum(bool(one["lost"]) for one in kept) >= 2, "it stays lost, and that is told of every later run"


def test_a_server_that_answers_nothing_still_leaves_a_run(tmp_path: Path) -> None:
    scenario, site = scenario_with(), FakeSite()
    failed = Response("", "http_error", 1, error="no")
    with loads_of(scenario, site) as loads:
        bed = SharedLog(tmp_path / "tier", site, loads)
        draws = [draw for spec in plan.expand(scenario).runs for draw in spec.draws]
        bed.fails = {draw.request_id: replace(failed, request_id=draw.request_id) for draw in draws}
        result = execute(scenario, bed, tmp_path)
    assert len(list(result.path.glob("runs/*/run.json"))) == 2


def test_a_read_limit_that_cannot_hold_a_side_client_is_refused(tmp_path: Path) -> None:
    scenario, site = scenario_with(), FakeSite()
    assert scenario.neighbors is not None
    hosts = HostsFile.model_validate({"side_clients": {"c1": {"local": True, "directory": "/srv/c1"}}})
    made = Cap(1e6, "cgroup v1 blkio", "limited", disk="sda")
    loads = Loads(scenario.neighbors, hosts, made, reach=site.reach)
    with pytest.raises(HostError, match="the read limit cannot hold c1"), loads:
        pass
    site["c1"].hello = {"boot_id": agent_host.boot_id()}
    site["c1"].disk = "sdb"
    with pytest.raises(HostError, match="the side clients load sdb, the tier is on sda"), loads:
        pass
    site["c1"].disk = "sda"
    with loads:
        assert loads.lost == []


def test_only_what_the_scenario_uses_by_fraction_is_calibrated(tmp_path: Path) -> None:
    noisy = {**WARM, "neighbors": {"storage": {"aggregate": "50MB/s"}}}
    scenario, site = scenario_with(None, quiet=WARM, noisy=noisy), FakeSite()
    with loads_of(scenario, site) as loads:
        result = execute(scenario, SharedLog(tmp_path / "tier", site, loads), tmp_path)
    assert site.log.count("c1: go") == 1
    assert not (result.path / "calibration").exists()


def test_a_host_that_cannot_be_reached_ends_it_before_anything_runs() -> None:
    scenario, site = scenario_with(), FakeSite()
    site["c2"].unreachable = "its key is not known"
    with pytest.raises(HostError, match="c2: its key is not known"), loads_of(scenario, site):
        pass
    assert not any(line.endswith(": go") for line in site.log)


def test_side_clients_of_this_machine_have_folders_that_go_again(tmp_path: Path) -> None:
    asked = Neighbors.model_validate({"local": {"clients": 2, "directory": str(tmp_path / "n")}, "loads": {"a": FIO}})
    assert asked.local is not None
    hosts = hosts_of_this_machine(asked.local)
    assert not (tmp_path / "n").exists(), "a dry run makes nothing"
    assert list(hosts.side_clients) == ["c1", "c2"]
    assert hosts.iperf3 is not None
    assert len(set(hosts.iperf3.ports)) == 2
    with folders_of(asked.local):
        assert (tmp_path / "n" / "c2").is_dir()
        (tmp_path / "n" / "c1" / "mine").write_text("")
    assert (tmp_path / "n" / "c1" / "mine").exists(), "what somebody else has put there stays"
    assert not (tmp_path / "n" / "c2").exists()


def test_folders_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = {"local": {"directory": str(tmp_path / "file")}, "loads": {"a": FIO}}
    asked = Neighbors.model_validate(given)
    assert asked.local is not None
    with pytest.raises(HostError, match="for the side clients: not a directory"), folders_of(asked.local):
        pass


def test_a_dry_run_lists_each_command_by_load(tmp_path: Path) -> None:
    given = {"local": {"clients": 2, "directory": str(tmp_path)}, "loads": {"disk": FIO, "wire": {"iperf3": {}}}}
    asked = Neighbors.model_validate(given)
    assert asked.local is not None
    lines = commands_of(asked, hosts_of_this_machine(asked.local))
    assert [line for line in lines if not line.startswith(" ")] == ["disk:", "wire:"]
    assert sum("fio --name" in line for line in lines) == 4  # to lay out and to load, for each of two
    assert sum("iperf3 --client" in line for line in lines) == sum("iperf3 --server" in line for line in lines) == 2
