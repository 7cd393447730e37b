"""What docs/adding.md says how to add is each one module and one line: added from the page itself.

The examples of the page are written into a folder as they stand, registered, and used by the command line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvbench.scenario import file as scenario_file
from kvbench.scenario import scenario
from kvbench.testbed.neighbors import registry as generators
from kvbench.testbed.servers import registry as servers
from tests.cli.test_cli import SCENARIO

PAGE = Path("docs/adding.md").read_text()
EXAMPLE = Path("results/examples/vllm-gpu-fs/20261121T224531Z")
START = """\
import my_engine, my_exporter, my_reader
from kvbench.importers.registry import IMPORTERS
from kvbench.testbed.neighbors.registry import GENERATORS
from kvbench.testbed.servers.registry import KINDS

KINDS["mine"] = my_engine.KIND
GENERATORS["reader"] = my_reader.GENERATOR
IMPORTERS["mytool"] = my_exporter.IMPORTER
from kvbench.cli.app import main

main()
"""
# The metric stands in its registry before tables read it, as an entry in the file does.
START_SHOWN = """\
import my_metric, my_plot, my_table
from kvbench.analysis import metrics
from kvbench.analysis.metrics import Metric

metric = {METRICS}
metrics.METRICS[metric.name] = metric
from kvbench.report.plots import registry as plots
from kvbench.report.plots.registry import PlotEntry
from kvbench.report.tables import registry as tables
from kvbench.report.tables.registry import TableEntry

plots.PLOTS += ({PLOTS},)
tables.TABLES += ({TABLES},)
from kvbench.cli.app import main

main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the page's modules, as a stranger would write them."""
    for name, text in re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    (tmp_path / "start.py").write_text(START)
    lines = re.findall(r"The line, in `(\w+)` of `(\S+)`:\n\n```python\n(.*?)\n```", PAGE, re.DOTALL)
    for name, registry, _ in lines:
        assert f"\n{name}: " in Path(registry).read_text()
    entries = {name: entry for name, _, entry in lines}
    (tmp_path / "start_shown.py").write_text(START_SHOWN.format(**entries))
    return tmp_path


def kvbench(folder: Path, *arguments: object, start: str = "start.py") -> subprocess.CompletedProcess[str]:
    """Run the command line with additions to what is measured, or with `start_shown.py` to what is shown."""
    path = os.pathsep.join([str(folder), str(Path.cwd())])
    command = [sys.executable, str(folder / start), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)


def records_of(folder: Path) -> list[dict[str, Any]]:
    """Return what run.json keeps of each sealed run."""
    return [json.loads(file.read_text()) for file in (folder / "results").rglob("run.json")]


def with_engine(folder: Path) -> Path:
    """Return the small scenario of the command line's tests, with the page's engine as its server."""
    text = SCENARIO.replace("TIER", str(folder / "tier"))
    path = folder / "small.yaml"
    path.write_text(re.sub(r"^server:.*$", "server: {mine: {speed: 64}}", text, flags=re.MULTILINE))
    return path


def test_a_new_server_key_is_checked_planned_and_run(folder: Path) -> None:
    path = with_engine(folder)
    assert "server: {mine:" in path.read_text()
    for command in ("check", "plan"):
        done = kvbench(folder, command, path)
        assert done.returncode == 0, done.stderr
    slip = kvbench(folder, "check", path, "--set", "server.mine.sped=2")
    assert slip.returncode == 2
    assert "unknown key `sped`" in slip.stderr
    assert "Did you mean `speed`?" in slip.stderr
    done = kvbench(folder, "run", path, "--results", folder / "results", "--set", "repeats=1")
    (plan,) = (folder / "results").rglob("plan.json")
    assert json.loads(plan.read_text())["design"]["server"] == "mine"
    steps = {one["treatment"]: one["cache"]["steps"] for one in records_of(folder)}
    assert steps.keys() == {"recompute", "g4"}, done.stdout + done.stderr
    assert "proven" in {step["outcome"] for step in steps["g4"]}, steps  # a busy machine may make the verdict suspect


def test_without_its_line_the_key_is_unknown(folder: Path) -> None:
    from kvbench.errors import ScenarioError  # noqa: PLC0415

    with pytest.raises(ScenarioError, match="unknown key `mine`"):
        scenario_file.load(with_engine(folder))


def test_a_new_generator_is_checked_planned_and_disturbs(folder: Path) -> None:
    path = folder / "noisy.yaml"
    side = folder / "side"
    path.write_text(SCENARIO.replace("TIER", str(folder / "tier")))
    load = "{reader: {megabytes: 4}, ramp: 1s, ramp_limit: 2s, calibration: 1s}"
    changes = [
        *("--set", f"neighbors.local={{clients: 1, directory: {side}}}"),
        *("--set", f"neighbors.loads.reads={load}"),
        *("--set", "treatments.noisy={cache: {warm: g4}, neighbors: {reads: unlimited}, against: g4}"),
    ]
    done = kvbench(folder, "check", path, *changes)
    assert done.returncode == 0, done.stderr
    assert kvbench(folder, "plan", path, *changes).returncode == 0
    shown = kvbench(folder, "run", path, *changes, "--dry-run")
    assert f"{side}" in shown.stdout
    assert "print(json.dumps" in shown.stdout, shown.stdout + shown.stderr
    done = kvbench(folder, "run", path, "--results", folder / "results", *changes, "--set", "repeats=1")
    disturbed = [one["neighbors"] for one in records_of(folder) if one["treatment"] == "noisy"]
    assert disturbed, done.stdout + done.stderr
    assert all(one["generator"] == "reader" and one["delivered_bytes_per_s"] > 0 for one in disturbed), disturbed


def test_a_new_importer_makes_a_result(folder: Path) -> None:
    export = folder / "export.csv"
    export.write_text("ttft_s,latency_s\n0.2,0.5\n0.3,0.6\n")
    done = kvbench(folder, "import", export, "--from", "mytool", "--results", folder / "results")
    assert done.returncode == 0, done.stderr
    unknown = kvbench(folder, "import", export, "--from", "mytol", "--results", folder / "results")
    assert unknown.returncode == 2
    assert "Did you mean mytool?" in unknown.stderr


def test_a_further_key_leaves_every_fingerprint_as_it_was(folder: Path) -> None:
    """A result that was made before an engine or a generator was added goes on."""
    further = scenario.model_with({"mine": servers.KINDS["vllm"].keys}, {"reader": generators.GENERATORS["fio"].keys})
    for path in sorted(Path("scenarios").rglob("*.yaml")):
        before = scenario_file.load(path)
        assert scenario_file.load(path, model=further).fingerprint == before.fingerprint


@pytest.fixture
def result(folder: Path) -> Path:
    """Return a result that commands may write to."""
    return Path(shutil.copytree(EXAMPLE, folder / "results" / "vllm-gpu-fs" / EXAMPLE.name))


def shown(folder: Path, *arguments: object) -> str:
    done = kvbench(folder, *arguments, start="start_shown.py")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_metric_is_in_the_table_and_in_json(folder: Path, result: Path) -> None:
    (line,) = (line for line in shown(folder, "show", result).splitlines() if line.startswith("prefill rate P50"))
    treatments = json.loads(shown(folder, "show", result, "--json"))["treatments"]
    figure = treatments["recompute"]["metrics"]["prefill_rate_p50"]
    assert figure["n"] == 15
    assert 10_000 < figure["value"] < 40_000
    assert f"{figure['value'] / 1000:.1f}k" in line
    csv = shown(folder, "show", result, "--table", "metrics", "--format", "csv")
    assert "prefill_rate_p50" in csv.splitlines()[0]
    same = shown(folder, "compare", result, result, "--fail-if", "prefill_rate_p50 < 0.9")
    assert "prefill rate P50" in same


def test_a_new_table_is_printed_alone_and_with_the_others(folder: Path, result: Path) -> None:
    text = shown(folder, "show", result, "--table", "slowest", "--format", "csv")
    assert [line.split(",")[:2] for line in text.splitlines()] == [
        ["treatment", "length (tokens)"],
        ["g3", "128000"],
        ["recompute", "128000"],
    ]
    assert "Slowest request" in shown(folder, "show", result)


def test_a_new_table_and_plot_are_on_the_page(folder: Path, result: Path) -> None:
    shown(folder, "report", result, "--out", folder / "reports", "--html")
    page = (folder / "reports" / "vllm-gpu-fs.html").read_text()
    assert "Slowest request" in page
    assert "TTFT in the order of sends" in page
    assert "Each mark is one request." in page
    assert "prefill rate P50" in page
