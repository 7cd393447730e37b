"""A whole run in a made-up world: the order of steps, what is kept, and that a broken run is done again."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import summary
from kvbench.errors import EndpointError
from kvbench.experiment import run
from kvbench.result import folder
from kvbench.result.record_files import read_run, write_plan
from kvbench.result.records import Response
from kvbench.result.rows import read_rows
from kvbench.scenario import plan
from tests.builders.worlds import FakeDriver, FakeServer, make_scenario, quiet_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.result.records import Row
    from kvbench.result.run_record import BottleneckRecord
    from kvbench.scenario.models import Treatment
    from kvbench.scenario.plan import RunSpec
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.neighbors.neighbor_loads import Loads


class FakeTestbed:
    """Starts a fresh made-up server for each run, as the emulator is; `flags` are its lies."""

    def __init__(self, tier: Path, **flags: Any) -> None:
        self.tier = tier
        self.flags = flags
        self.log: list[str] = []
        self.fails: dict[str, Response] = {}
        self.measuring: FakeDriver | None = None
        self.interrupt_at: str | None = None
        self.loads: Loads | None = None
        self.bottleneck: BottleneckRecord | None = None

    @contextlib.contextmanager
    def serving(self, treatment: Treatment, _folder: Path) -> Iterator[tuple[FakeServer, FakeDriver, FakeDriver]]:
        server = FakeServer(self.tier, **{"cache_on": treatment.cache != "off", **self.flags}, log=self.log)
        self.log.append("server up")
        try:
            driver = InterruptedDriver(server, fails=self.fails, interrupt_at=self.interrupt_at)
            if self.measuring is not None:
                self.measuring.server = server
            yield server, driver, self.measuring or driver
        finally:
            self.log.append("server down")


class InterruptedDriver(FakeDriver):
    def __init__(self, server: FakeServer, fails: dict[str, Response], interrupt_at: str | None) -> None:
        super().__init__(server, fails=fails)
        self.interrupt_at = interrupt_at

    def drive(self, requests: Any, concurrency: int, on_response: Any) -> list[Response]:
        listed = list(requests)
        if any(request.request_id == self.interrupt_at for request in listed):
            raise KeyboardInterrupt
        return super().drive(listed, concurrency, on_response)


class Recorder:
    """A watch that writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:
        self.seen.append(f"{number}/{total} {spec.run_id}")

    def run_kept(self, spec: RunSpec) -> None:
        self.seen.append(f"kept {spec.run_id}")

    def step(self, text: str) -> None:
        self.seen.append(text)

    def request_done(self, row: Row) -> None:
        self.seen.append(row.phase)

    def run_ends(self, spec: RunSpec) -> None:
        self.seen.append(f"sealed {spec.run_id}")


def execute(scenario: Scenario, bed: FakeTestbed, results: Path, watch: Recorder | None = None) -> folder.ResultFolder:
    with quiet_host():
        return execute_on_this_host(scenario, bed, results, watch)


def execute_on_this_host(
    scenario: Scenario, bed: FakeTestbed, results: Path, watch: Recorder | None = None
) -> folder.ResultFolder:
    result = folder.open_result(results, scenario.name, scenario.fingerprint)
    laid_out = plan.expand(scenario)
    write_plan(result.path, laid_out.record())
    result.write_json("facts.json", {})
    run.execute(scenario, laid_out, bed, result, watch or Recorder())  # type: ignore[arg-type]
    return result


def test_the_steps_of_a_first_warm_run_and_of_a_recompute_run(tmp_path: Path) -> None:
    bed, watch = FakeTestbed(tmp_path / "tier"), Recorder()
    scenario = make_scenario(repeats=1)
    execute(scenario, bed, tmp_path, watch)
    runs = " ".join(bed.log).split("server up ")[1:]
    warm = next(text for text in runs if "prime" in text).split()
    assert " ".join(warm).startswith("warmup warmup warmup warmup probe canary-cold probe canary-cold reset external")
    assert [word for word in warm if word in ("warmup", "prime", "measure", "server")][-3:] == [
        "measure",
        "measure",
        "server",
    ]
    off = next(text for text in runs if "prime" not in text)
    assert "reset" not in off
    assert off.count("probe canary-cold") == 2
    assert off.count("measure") == 2
    assert watch.seen[0] == "1/2 " + plan.expand(scenario).runs[0].run_id
    assert watch.seen.index("warmup") < watch.seen.index("cache into its state") < watch.seen.index("measure")


def test_every_request_of_every_phase_has_a_row_and_a_tier_if_measured(tmp_path: Path) -> None:
    result = execute(make_scenario(repeats=1), FakeTestbed(tmp_path / "tier"), tmp_path)
    rows = read_rows(result.path / "runs" / "r01-g4")
    phases = [row.phase for row in rows]
    assert phases[:2] == ["warmup"] * 2
    assert phases.count("prime") == 4
    assert phases[-2:] == ["measure"] * 2
    assert len({row.request_id for row in rows}) == len(rows)
    assert [row.tier for row in rows if row.phase == "measure"] == ["g4", "g4"]
    assert all(row.tier is None for row in rows if row.phase != "measure")
    recompute = read_rows(result.path / "runs" / "r01-recompute")
    assert [row.tier for row in recompute if row.phase == "measure"] == ["recompute"] * 2


def test_a_run_keeps_the_host_and_the_networks_floor(tmp_path: Path) -> None:
    result = execute_on_this_host(make_scenario(repeats=1), FakeTestbed(tmp_path / "tier"), tmp_path)
    record = read_run(result.path / "runs" / "r01-g4")
    assert record.host is not None
    assert (record.host.pressure.window_s or 0) > 0
    assert set(record.host.before["paths"]) == {"results", "g4"}  # type: ignore[arg-type]
    assert record.network_floor_s is None  # nobody listens at the made-up server's port


def test_the_second_round_does_not_prime_again(tmp_path: Path) -> None:
    bed = FakeTestbed(tmp_path / "tier")
    execute(make_scenario(repeats=3), bed, tmp_path)
    assert bed.log.count("prime p1000-0") == 1
    assert bed.log.count("probe canary-first") == 3


def test_a_result_is_judged_from_its_files(tmp_path: Path) -> None:
    result = execute(make_scenario(), FakeTestbed(tmp_path / "tier"), tmp_path)
    summed = summary.summarise(result.path)
    assert summed.verdict == "valid", [run.reasons for run in summed.runs]
    assert summed.treatments["g4"].tiers == {"g4": 4}
    assert summed.treatments["g4"].hit_efficiency == 1.0
    assert summed.treatments["g4"].read_bytes == summed.treatments["g4"].expected_read_bytes
    assert summed.treatments["recompute"].tiers == {"recompute": 4}


@pytest.mark.parametrize(
    "flags",
    [{"keeps_blocks": True}, {"frozen": True}, {"hides_cached_tokens": True}, {"page_cache": True}],
    ids=lambda flags: next(iter(flags)),
)
def test_a_lying_server_gets_no_figure(flags: dict[str, Any], tmp_path: Path) -> None:
    result = execute(make_scenario(repeats=1), FakeTestbed(tmp_path / "tier", **flags), tmp_path)
    summed = summary.summarise(result.path)
    assert summed.verdict == "invalid"
    assert summed.lengths[0].cells["g4"].median_s is None
    assert summed.treatments["g4"].runs_used == 0


def test_an_interrupted_run_is_done_again_and_sealed_runs_are_kept(tmp_path: Path) -> None:
    scenario, bed, results = make_scenario(), FakeTestbed(tmp_path / "tier"), tmp_path / "results"
    third = plan.expand(scenario).runs[2]
    bed.interrupt_at = third.draws[1].request_id
    with pytest.raises(KeyboardInterrupt):
        execute(scenario, bed, results)
    assert bed.log[-1] == "server down"
    bed.interrupt_at = None
    watch = Recorder()
    result = execute(scenario, bed, results, watch)
    assert watch.seen[:2] == [f"kept {spec.run_id}" for spec in plan.expand(scenario).runs[:2]]
    assert result.resumed
    rows = [row for spec in plan.expand(scenario).runs for row in read_rows(result.path / "runs" / spec.run_id)]
    measured = [row.request_id for row in rows if row.phase == "measure"]
    assert sorted(measured) == sorted(draw.request_id for spec in plan.expand(scenario).runs for draw in spec.draws)
    broken = result.path / "runs" / third.run_id / "attempt-1"
    assert [row.attempt for row in read_rows(broken) if row.phase == "measure"] == [1]
    assert {row.attempt for row in rows if row.run_id == third.run_id} == {2}
    assert summary.summarise(result.path).verdict == "valid"


FIRST_FAILURES = [
    (Response("", "http_error", 0, http_status=401, error="no"), "401", "api_key_env"),
    (Response("", "http_error", 0, http_status=404, error="no such model"), "no such model", "server.external.model"),
    (
        Response("", "stream_error", 0, http_status=200, error="answered without streaming"),
        "without streaming",
        "stream: true",
    ),
    (Response("", "timeout", 0, error="no answer within 5 s"), "timeout", "load.timeout"),
    (Response("", "refused", 0, error="connection refused"), "refused", "log"),
]


@pytest.mark.parametrize(("failure", "words", "remedy"), FIRST_FAILURES, ids=[f[0].status for f in FIRST_FAILURES])
def test_an_endpoint_that_cannot_be_measured_is_refused_at_once(
    failure: Response, words: str, remedy: str, tmp_path: Path
) -> None:
    bed = FakeTestbed(tmp_path / "tier")
    bed.fails["warmup"] = replace(failure, request_id="r01-recompute/warmup-001-warmup")
    scenario = make_scenario(treatments={"recompute": {"cache": "off"}})
    with pytest.raises(EndpointError) as error:
        execute(scenario, bed, tmp_path)
    assert words in error.value.message
    assert remedy in error.value.remedy


def test_concurrent_requests_get_their_tier_from_the_ledger(tmp_path: Path) -> None:
    result = execute(make_scenario(load={"concurrency": 2}), FakeTestbed(tmp_path / "tier"), tmp_path)
    rows = read_rows(result.path / "runs" / "r01-g4")
    assert {row.tier for row in rows if row.phase == "measure"} == {"g4"}
    assert all("only g4 was read" in str(row.tier_evidence) for row in rows if row.phase == "measure")


def test_answers_are_compared_with_the_recomputed_ones(tmp_path: Path) -> None:
    scenario = make_scenario(check_answers=True)
    result = execute(scenario, FakeTestbed(tmp_path / "tier"), tmp_path)
    summed = summary.summarise(result.path)
    assert summed.verdict == "valid"
    assert {name: item.answers_match for name, item in summed.treatments.items()} == {"recompute": 1.0, "g4": 1.0}


def test_a_wrong_answer_from_a_warm_tier_condemns_its_run(tmp_path: Path) -> None:
    scenario = make_scenario(check_answers=True, repeats=1)
    result = execute(scenario, FakeTestbed(tmp_path / "tier", wrong_from_tokens=2000), tmp_path)
    rows = read_rows(result.path / "runs" / "r01-g4")
    matches = {row.prompt_id: row.answers_match for row in rows if row.phase == "measure"}
    assert matches == {"p1000-0": True, "p2000-0": False}
    summed = summary.summarise(result.path)
    assert summed.treatments["g4"].answers_match == 0.5
    assert summed.treatments["g4"].verdict == "invalid"
    assert summed.treatments["recompute"].verdict == "valid"
    told = [reason.text for one in summed.runs for reason in one.reasons]
    assert any("1 of 2 answers differ from the recomputed ones" in text for text in told)


class ListDriver(FakeDriver):
    """Takes the whole list at once and warms itself up with a request of its own, as AIPerf does."""

    def converse(self, conversations: Any, concurrency: int, on_response: Any) -> None:
        self.server.log.append("list begins")
        own = self.server.answer("tiny", 1)
        self.own_requests = (replace(own, request_id="warmup-000"),)
        super().converse(list(conversations), concurrency, on_response)
        self.server.log.append("list ends")


def test_another_driver_measures_in_one_go_and_the_native_one_does_the_rest(tmp_path: Path) -> None:
    bed = FakeTestbed(tmp_path / "tier")
    bed.measuring = ListDriver(FakeServer(None), name="aiperf")
    result = execute(make_scenario(repeats=1), bed, tmp_path)
    first = bed.log.index("list begins")
    assert bed.log[first + 1 : first + 4][-1] == "list ends"
    assert set(bed.log[first + 1 : first + 3]) == {"measure p1000-0", "measure p2000-0"}
    rows = read_rows(result.path / "runs" / "r01-g4")
    assert {row.driver for row in rows if row.phase == "measure"} == {"aiperf"}
    assert {row.driver for row in rows if row.phase in ("probe", "prime")} == {"native"}
    own = [row for row in rows if row.phase == "warmup" and row.driver == "aiperf"]
    assert [(row.request_id, row.isl_target) for row in own] == [("r01-g4/aiperf-warmup-000", 1)]
    measured = [row for row in rows if row.phase == "measure"]
    assert {row.tier for row in measured} == {"g4"}
    assert "in this run" in (measured[0].tier_evidence or "")  # by the ledger, since no request stood alone
    record = read_run(result.path / "runs" / "r01-g4")
    assert record.driver.name == "aiperf"
    assert record.ledger.closes
