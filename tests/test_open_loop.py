"""Open loops from end to end: rates of treatments, latency from the send and from the schedule, goodput, a queue."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import arrivals, plan, scenario_file
from kvbench.checks import Verdict
from kvbench.errors import ScenarioError
from kvbench.metrics import Limits
from kvbench.result.plan_record import OpenLoop
from kvbench.sealed import SealedRun
from tests.made_up_runs import honest_run
from tests.test_cli import kvbench
from tests.worlds import make_scenario

if TYPE_CHECKING:
    from kvbench.records import Row

# Recomputing 2,000 tokens takes 22 ms here, so the server keeps up with 45 requests per second.
SCENARIO = """\
name: rates
question: What does a rate above capacity look like?
server: {{emulator: {{scale: {{time: 4, bytes: 512}}}}}}
tiers: {{g4: {{path: {tier}, capacity: 1GB}}}}
prompts: {{lengths: [2000], per_length: 8, output_tokens: 2}}
load: {{concurrency: 4, requests: 40, draw: round_robin}}
treatments:
  closed: {{cache: off}}
  calm: {{cache: off, request_rate: 15, arrival: constant, against: closed}}
  flood: {{cache: off, request_rate: 400, against: closed}}
baseline: closed
slo: {{ttft: 200ms}}
repeats: 1
"""


@pytest.fixture
def result(tmp_path: Path) -> Path:
    file = tmp_path / "rates.yaml"
    file.write_text(SCENARIO.format(tier=tmp_path / "tier"))
    done = kvbench("run", file, "--results", tmp_path / "results")
    assert done.returncode in (0, 3), done.stderr
    return Path(done.stdout.splitlines()[-1])


def figures_of(item: dict[str, Any]) -> dict[str, tuple[float, float]]:
    figures = item["open_loop"]["figures"]
    values = {one["name"]: (one["from_send"]["value"], one["from_schedule"]["value"]) for one in figures}
    return {name: pair for name, pair in values.items() if None not in pair}


def test_a_rate_above_capacity_shows_its_queue(result: Path, tmp_path: Path) -> None:
    shown = json.loads(kvbench("show", result, "--json").stdout)
    items = shown["treatments"]
    assert items["closed"]["open_loop"] is None
    assert not [reason for run in shown["runs"] for reason in run["reasons"] if reason["level"] == "invalid"]
    calm, flood = items["calm"]["open_loop"], items["flood"]["open_loop"]
    assert (calm["request_rate"], calm["arrival"], flood["request_rate"], flood["arrival"]) == (
        *(15, "constant"),
        *(400, "poisson"),
    )
    assert calm["offered_per_s"] == pytest.approx(15)
    assert flood["achieved_per_s"]["value"] < 100 < flood["offered_per_s"]  # the server cannot
    assert flood["grew"]
    assert flood["last_quarter_s"] > flood["first_quarter_s"]
    found = figures_of(items["flood"])
    for name in ("ttft_p50", "latency_p50", "latency_max"):
        send, due = found[name]
        assert due > 2 * send  # four at a time: the rest waits to be sent, and only the schedule shows it
    assert found["goodput_per_s"][1] < found["goodput_per_s"][0]
    assert found["slo_attainment"][1] < found["slo_attainment"][0] <= 1
    assert shown["headline"] == "goodput_per_s"
    told = items["flood"]["metrics"]
    assert [told[name]["value"] for name in ("goodput_per_s", "slo_attainment")] == [
        *(found["goodput_per_s"][1], found["slo_attainment"][1]),
    ]
    (run,) = (run for run in shown["runs"] if run["treatment"] == "flood")
    assert run["headline"] == found["goodput_per_s"][1]
    assert items["flood"]["slo_attainment"] == found["slo_attainment"][1]
    compared = items["flood"]["comparisons"]["goodput_per_s"]
    closed = items["closed"]["metrics"]["goodput_per_s"]["value"]
    assert compared["ratio"] == pytest.approx(found["goodput_per_s"][1] / closed)
    (reason,) = (reason for reason in run["reasons"] if reason["rule"] == "held at the cap")
    assert "load.concurrency" in reason["remedy"]


def test_both_sides_are_shown_and_closed_loops_show_none(result: Path, tmp_path: Path) -> None:
    text = kvbench("show", result).stdout
    assert "Open loop: from the send and from the schedule" in text
    assert "a queue grew" in text
    assert "requests due at 15/s constant, 400/s poisson for calm, flood" in " ".join(text.split())
    assert "latency from schedule" not in text
    made = kvbench("report", result, "--html", "--out", tmp_path)
    page = Path(made.stdout.strip()).read_text()
    assert '<th scope="col" class="number">From schedule</th>' in page


def test_a_rate_belongs_to_its_treatment() -> None:
    treatments = {
        "closed": {"cache": "off"},
        "slow": {"cache": "off", "request_rate": 2, "arrival": "constant"},
        "fast": {"cache": "off", "request_rate": 8},
        "twice": {"cache": "off", "request_rate": 16},
    }
    scenario = make_scenario(treatments=treatments, baseline="closed", prompts={"lengths": [1000], "per_length": 5})
    laid_out = plan.expand(scenario)
    due = {run.treatment: [draw.due_s for draw in run.draws] for run in laid_out.runs if run.repeat == 1}
    assert due["closed"] == [None] * 5
    assert due["slow"] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert due["fast"] == pytest.approx([2 * (at or 0.0) for at in due["twice"]])  # the same gaps, at half the rate
    assert laid_out.design.open_loops["fast"] == OpenLoop(8, "poisson")
    assert "closed" not in laid_out.design.open_loops


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("load.driver=aiperf", "an open loop is driven by the native driver only"),
        ("treatments.closed.arrival=poisson", "give a request_rate too"),
        ("treatments.calm.request_rate=0", "treatments.calm.request_rate"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, change: str, told: str) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text(SCENARIO.format(tier=tmp_path / "tier"))
    with pytest.raises(ScenarioError) as fault:
        scenario_file.load(file, (change,))
    assert told in fault.value.message


def run_of(waits_s: list[float]) -> SealedRun:
    """A made-up open loop: a request is due each 100 ms, is sent after its wait, and takes what it takes."""
    made = honest_run(1)
    start_ns = made.rows[0].sent_ns or 0
    rows: list[Row] = []
    for number, wait_s in enumerate(waits_s):
        due_ns = start_ns + number * 100_000_000
        sent_ns = due_ns + round(wait_s * 1e9)
        name = f"r{number}"
        rows.append(
            replace(
                made.rows[0],
                request_id=name,
                prompt_id=name,
                scheduled_ns=due_ns,
                sent_ns=sent_ns,
                first_token_ns=sent_ns + 50_000_000,
                last_token_ns=sent_ns + 80_000_000,
                ttft_s=0.05,
                latency_s=0.08,
                send_lag_s=wait_s,
            )
        )
    window_s = (max(row.last_token_ns or 0 for row in rows) - start_ns) / 1e9
    return SealedRun({**made.record, "load_s": window_s}, rows, rows, Verdict("valid", ()))


def test_the_arithmetic_of_an_open_loop() -> None:
    told = {"request_rate": 10, "arrival": "constant"}
    steady = arrivals.account([run_of([0.0] * 40)], told, Limits(ttft_s=0.06))
    assert steady["offered_per_s"] == pytest.approx(10)
    assert not steady["grew"]
    assert all(one["from_send"]["value"] == one["from_schedule"]["value"] for one in steady["figures"])
    queue = arrivals.account([run_of([0.02 * number for number in range(40)])], told, Limits(ttft_s=0.06))
    assert queue["waited_mean_s"] == pytest.approx(0.39)  # 0.02 x (0 + ... + 39) / 40
    assert queue["first_quarter_s"] == pytest.approx(0.08 + 0.02 * 4.5)
    assert queue["last_quarter_s"] == pytest.approx(0.08 + 0.02 * 34.5)
    assert queue["growth"] == pytest.approx(0.2)  # 0.02 s each 0.1 s
    assert queue["grew"]
    found = {one["name"]: (one["from_send"]["value"], one["from_schedule"]["value"]) for one in queue["figures"]}
    assert found["ttft_p50"] == (pytest.approx(0.05), pytest.approx(0.05 + 0.02 * 19.5))
    assert found["latency_max"] == (pytest.approx(0.08), pytest.approx(0.08 + 0.02 * 39))
    assert found["slo_attainment"] == (1.0, pytest.approx(1 / 40))  # only the first was within 60 ms of its due time


def test_a_short_list_says_nothing_of_a_queue() -> None:
    short = arrivals.account([run_of([0.1 * number for number in range(8)])], {"request_rate": 10}, Limits())
    assert (short["first_quarter_s"], short["grew"]) == (None, False)


def test_a_list_that_begins_with_an_empty_server_is_no_queue() -> None:
    """Latency rises once, to three and a half times its first, and stays: 0.2 s over 3 s of schedule."""
    risen = arrivals.account([run_of([0.0] * 10 + [0.2] * 30)], {"request_rate": 10}, Limits())
    assert risen["last_quarter_s"] > 3 * risen["first_quarter_s"]
    assert risen["growth"] == pytest.approx(0.2 / 3)
    assert not risen["grew"]


def one_server(seed: int, load: float) -> SealedRun:
    """A server that takes 80 ms for each of 60 requests, which arrive by chance at this load of its capacity."""
    chance = random.Random(seed)  # noqa: S311 - a draw, no secret
    made = run_of([0.0] * 60)
    rows, due_s, free_s = [], 0.0, 0.0
    for row in made.rows:
        due_s += chance.expovariate(load / 0.08)
        free_s = max(due_s, free_s) + 0.08
        at = {"scheduled_ns": round(due_s * 1e9), "sent_ns": round(due_s * 1e9), "last_token_ns": round(free_s * 1e9)}
        rows.append(replace(row, **at, latency_s=free_s - due_s))  # type: ignore[arg-type]
    return SealedRun({**made.record, "load_s": free_s}, rows, rows, Verdict("valid", ()))


@pytest.mark.parametrize(("load", "grew"), [(0.5, False), (0.67, False), (1.5, True), (2.0, True)])
def test_a_queue_is_told_from_a_server_that_keeps_up(load: float, grew: bool) -> None:  # noqa: FBT001 - a parameter
    for seed in range(0, 200, 5):
        runs = [one_server(seed + number, load) for number in range(5)]
        assert arrivals.account(runs, {"request_rate": 1}, Limits())["grew"] is grew, seed
