"""A server of ours that dies after it was ready: one sentence, the last line of its log, and a remedy."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from kvbench.errors import EndpointError, ServerError
from kvbench.testbed import testbed
from kvbench.testbed.servers.endpoint import call
from kvbench.this_host.process import Started
from tests.builders.patience import PATIENCE_S
from tests.builders.paused_run import children_of, go_on, gone, start_paused_in
from tests.builders.worlds import make_scenario
from tests.cli.test_cli import kvbench, one_sentence_with_remedy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.scenario.scenario import Scenario

SCENARIO = """\
name: doomed
question: What is said when the server is gone?
server: {emulator: {scale: {time: 1, bytes: 512}}}
tiers: {g4: {path: TIER, capacity: 1GB}}
prompts: {lengths: [12k], per_length: 4, output_tokens: 4}
treatments:
  recompute: {cache: off}
baseline: recompute
repeats: 1
"""
STAND_IN = f"""\
#!{sys.executable}
import http.server, os, sys, threading
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            print("loading was fine")
            print("RuntimeError: engine core ended", flush=True)
            os._exit(3)
        self.send_response(200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""


def test_an_emulator_that_is_killed_in_mid_run_is_told_as_such(tmp_path: Path) -> None:
    file, results = tmp_path / "doomed.yaml", tmp_path / "results"
    file.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")))
    process = start_paused_in("r01-", "run", file, "--results", results)
    emulator = next(child for child in children_of(process) if "kvbench.emulator" in child.cmdline())
    emulator.kill()
    go_on(process)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert gone([emulator])
    told = one_sentence_with_remedy(subprocess.CompletedProcess("run", process.returncode, out, err))
    assert "kvbench: the emulator died in mid-run (killed by SIGKILL): it said nothing" in told
    assert "no server answers" not in told
    (log,) = results.glob("doomed/*/runs/*/logs/emulator.log")
    assert str(log) in told

    done = kvbench("run", file, "--results", results)  # what the remedy promises
    assert done.returncode in (0, 3), done.stderr
    assert len(list(results.glob("doomed/*/runs/*/attempt-1"))) == 1


@pytest.fixture
def vllm(tmp_path: Path) -> Scenario:
    """A scenario for a vLLM that stands in for the real one: it is ready, and crashes when it is told to."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    tiers, treatments = {"g2": "1MB"}, {"recompute": {"cache": "off"}, "g2": {"cache": {"warm": "g2"}}}
    return make_scenario(server={"vllm": {"python": str(python), "model": "m"}}, tiers=tiers, treatments=treatments)


@contextlib.contextmanager
def crash(root: str) -> Iterator[None]:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(f"{root}/crash")
    yield


def test_a_kept_server_that_crashes_in_mid_run_has_the_last_word(vllm: Scenario, tmp_path: Path) -> None:
    """It is kept for the whole of the testbed, and yet told with the run that has met its end."""
    with testbed.stand_up(vllm) as bed:
        serving = bed.serving(vllm.treatments["recompute"], tmp_path / "run")
        with pytest.raises(ServerError) as error, serving as (endpoint, _, _), crash(endpoint.root):
            endpoint.scrape()
    log = tmp_path / "run" / "logs" / "vllm.log"
    assert error.value.message == "vLLM died in mid-run (exit status 3): RuntimeError: engine core ended"
    assert str(log) in error.value.remedy
    assert isinstance(error.value.__cause__, EndpointError)


def test_a_kept_server_that_has_died_between_runs_is_not_handed_out(vllm: Scenario, tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("one", "two", "three"))
    with testbed.stand_up(vllm) as bed:
        with bed.serving(vllm.treatments["recompute"], first) as (endpoint, _, _):
            assert endpoint.ours
            assert endpoint.pid is not None
            assert endpoint.started is not None
        with bed.serving(vllm.treatments["recompute"], second) as (again, _, _):
            assert again is endpoint
        (first / "attempt-1").mkdir()  # where the log goes when a side client was lost and the run is made again
        (first / "logs").rename(first / "attempt-1" / "logs")
        os.kill(endpoint.pid, signal.SIGKILL)
        assert endpoint.started.process.wait(PATIENCE_S) == -signal.SIGKILL
        with (
            pytest.raises(ServerError, match=r"vLLM died between two runs \(killed by SIGKILL\)") as error,
            bed.serving(vllm.treatments["recompute"], second),
        ):
            pass
        assert str(first / "attempt-1" / "logs" / "vllm.log") in error.value.remedy
        with bed.serving(vllm.treatments["g2"], other) as (alive, _, _):  # one of other tiers is another server
            assert alive.url != endpoint.url


def test_a_living_server_keeps_the_error_that_was_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvbench.this_host.process._DYING_S", 0.01)
    log = tmp_path / "log"
    log.write_text("Error: an old one\n")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with pytest.raises(EndpointError, match="no server answers"), Started("a server", process, log).watched():
            call("GET", "http://127.0.0.1:9/", None)
        process.kill()
