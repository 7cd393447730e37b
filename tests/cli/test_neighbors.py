"""Neighbours from end to end: the command line, a real emulator, real generators, a real read limit and real sshd."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from kvbench.result.verdict import Verdict
from kvbench.testbed import lab
from kvbench.testbed.neighbors.delivery import LEAST_RATE
from kvbench.testbed.neighbors.read_limit import capped
from kvbench.typed_json import from_json
from tests.builders.busy_host import but_for_load
from tests.builders.patience import PATIENCE_S, wait_until
from tests.cli.test_cli import command, kvbench, one_sentence_with_remedy
from tests.testbed.lab.test_lab import why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

SCENARIO = """\
name: noisy
question: How much does it lose?
server: {emulator: {scale: {time: 64, bytes: 512}, instances: 2, io_threads: 2}}
tiers: {g4: {path: TIER, capacity: 1GB}}
prompts: {lengths: [16k], per_length: 20, output_tokens: 2}
load: {concurrency: 8, requests: 200, draw: with_replacement}
bottleneck: {disk: 150MB/s}
neighbors:
  local: {clients: 2, directory: SIDE}
  loads:
    storage: {fio: {iodepth: 32, numjobs: 1, size: 16MB}, ramp: 2s, calibration: 2s, settle_limit: 1s}
treatments:
  quiet: {cache: {warm: g4}}
  noisy: {cache: {warm: g4}, neighbors: {storage: {fraction: 0.5}}}
baseline: quiet
repeats: 1
"""
needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="needs fio on PATH")


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "noisy.yaml"
    path.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")).replace("SIDE", str(tmp_path / "side")))
    return path


def runs_of(results: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in results.glob("noisy/*/runs/*/run.json")]
    return {run["treatment"]: run for run in found}


def read_rate(run: dict[str, Any]) -> float:
    return float(sum(run["ledger"]["read_bytes"].values()) / run["load_s"])


@pytest.mark.fio
@needs_fio
@pytest.mark.root
def test_neighbours_take_their_share_of_a_read_limit(scenario: Path, tmp_path: Path) -> None:
    with capped(tmp_path, 150e6) as cap:
        if not cap.made:
            pytest.skip(cap.reason)
    done = kvbench("run", scenario, "--results", tmp_path / "results")
    assert done.returncode in (0, 3), done.stderr
    runs = runs_of(tmp_path / "results")
    told = runs["noisy"]["neighbors"]
    assert runs["noisy"]["bottleneck"]["how"].startswith("cgroup")
    verdict = from_json(Verdict, told["verdict"], "run.json")
    assert but_for_load(verdict) == [] or told["delivered_over_asked"] < LEAST_RATE, verdict
    assert set(told["hosts"]) == {"c1", "c2"}
    quiet = read_rate(runs["quiet"])
    assert runs["quiet"]["neighbors"]["delivered_bytes_per_s"] == 0
    print(f"quiet {quiet / 1e6:.0f} MB/s, noisy {read_rate(runs['noisy']) / 1e6:.0f}, neighbours {told['label']}")  # noqa: T201
    assert told["delivered_bytes_per_s"] > 0
    for run in runs.values():  # how much of the limit they reach is for the disk and the machine to say
        both = read_rate(run) + run["neighbors"]["delivered_bytes_per_s"]
        assert 0 < both <= 1.15 * 150e6  # blkio lets several streams pass a little more
    assert not (tmp_path / "side").exists(), "nothing stays on the side clients"
    assert "storage" in done.stdout


@pytest.mark.fio
@needs_fio
def test_a_dry_run_starts_nothing_and_prints_every_command(scenario: Path, tmp_path: Path) -> None:
    done = kvbench("run", "--dry-run", scenario, "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fio --name=kvbench") == 4
    assert not (tmp_path / "side").exists()
    assert not (tmp_path / "results").exists()


def test_a_missing_generator_is_told_before_anything_runs(scenario: Path, tmp_path: Path) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    (only / "python3").symlink_to(Path(sys.executable).resolve())
    done = kvbench("run", scenario, "--results", tmp_path / "results", PATH=str(only))
    assert "fio is missing there" in one_sentence_with_remedy(done)
    assert not (tmp_path / "results").exists()


def test_a_hosts_file_that_is_not_there_is_one_sentence(scenario: Path, tmp_path: Path) -> None:
    change = ("--set", "neighbors.local=", "--set", f"neighbors.hosts={tmp_path}/none.yaml")
    done = kvbench("run", scenario, *change, "--results", tmp_path / "results")
    assert "none.yaml: cannot read it" in one_sentence_with_remedy(done)


@pytest.fixture
def prefix() -> Iterator[str]:
    """A name of this test's own: others may have a lab at the same time."""
    name = f"kvb-n{os.getpid()}-"
    yield name
    if os.geteuid() == 0 and shutil.which("ip"):
        lab.down(prefix=name)


def in_mid_load(results: Path) -> bool:
    """Tell whether the noisy run has sent measured requests."""
    journals = results.glob("noisy/*/runs/r01-noisy/requests.jsonl")
    return any('"phase":"measure"' in path.read_text() for path in journals)


@pytest.mark.fio
@needs_fio
@pytest.mark.root
@pytest.mark.skipif(why_not("sshd", "ssh-keygen") is not None, reason=str(why_not("sshd", "ssh-keygen")))
def test_a_killed_sshd_breaks_a_run_off_and_the_next_try_succeeds(scenario: Path, tmp_path: Path, prefix: str) -> None:
    folder, results = tmp_path / "lab", tmp_path / "results"
    with lab.standing(folder, prefix=prefix) as hosts:
        change = ["--set", "neighbors.local=", "--set", f"neighbors.hosts={hosts}", "--set", "bottleneck.disk=40MB/s"]
        line = command("run", scenario, *change, "--results", results)
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: in_mid_load(results) or process.poll() is not None, "the noisy run is in mid-load")
            assert process.poll() is None, process.communicate()
            for pid in pids_of_sshd(f"{prefix}c2"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            lab.start_one_sshd(folder, "c2", prefix=prefix)
            out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (0, 3), err
        (broken,) = results.glob("noisy/*/runs/r01-noisy/attempt-1/broken.json")
        told = json.loads(broken.read_text())
        assert told["why"].startswith("c2 was lost")
        kept = runs_of(results)["noisy"]["neighbors"]
        assert (len(kept["attempts"]), kept["lost"]) == (1, [])
        left = [path for path in (folder / "targets").rglob("*") if path.name.startswith("neighbour.")]
        assert not left
        assert not [one for one in psutil.process_iter(["name"]) if one.info["name"] == "fio" and is_ours(one, folder)]
    assert "c2" in out + err


def pids_of_sshd(namespace: str) -> list[int]:
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    pids = [int(pid) for pid in done.stdout.split()]
    return [pid for pid in pids if "sshd" in Path(f"/proc/{pid}/comm").read_text()]


def is_ours(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join(process.cmdline())
    except psutil.Error:
        return False
