"""Open loops from end to end: rates of treatments, latency from the send and from the schedule, goodput, a queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvbench.errors import ScenarioError
from kvbench.result.plan_record import OpenLoop
from kvbench.scenario import file as scenario_file
from kvbench.scenario import plan
from tests.builders.worlds import make_scenario
from tests.cli.test_cli import kvbench

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
    for side in ("from send", "from schedule", "difference"):
        for treatment, is_open in (("calm", True), ("flood", True), ("closed", False)):
            assert (f'<th scope="col" class="number">{treatment}, {side}</th>' in page) is is_open


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
