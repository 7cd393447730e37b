"""What a run leaves behind: nothing when it ends, what going on needs when it is broken off, and `clean` takes that."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.testbed.servers import tier_directory
from tests.builders.patience import PATIENCE_S
from tests.builders.paused_run import children_of, go_on, gone, start_paused_in
from tests.cli.test_cli import kvbench

if TYPE_CHECKING:
    import subprocess

SCENARIO = """\
name: small
question: What is left?
server: {emulator: {scale: {time: 1, bytes: 512}}}
tiers: {g1: 20MB, g2: 20MB, g3: {path: FOLDER/ssd, capacity: 50MB}, g4: {path: FOLDER/deep/tier, capacity: 50MB}}
prompts: {lengths: [2k, 12k], output_tokens: 4}
treatments:
  recompute: {cache: off}
  g4: {cache: {warm: g4}}
baseline: recompute
repeats: 2
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO.replace("FOLDER", str(tmp_path)))
    return path


def shared_memory() -> set[Path]:
    return set(Path("/dev/shm").iterdir())  # noqa: S108 - where memory outlives its process


def test_a_run_that_ends_leaves_no_tier_and_keeps_its_logs(scenario: Path, tmp_path: Path) -> None:
    before = shared_memory()
    done = kvbench("run", scenario, "--results", tmp_path / "results")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert not (tmp_path / "ssd").exists()
    assert not (tmp_path / "deep" / "tier").exists()
    assert (tmp_path / "deep").exists()  # its parent was not kvbench's to remove
    folder = Path(done.stdout.splitlines()[-1])
    assert len(list(folder.glob("runs/*/logs/emulator.log"))) == 4
    assert not {path for path in shared_memory() - before if "vllm" in path.name or "kvbench" in path.name}


def test_files_of_somebody_else_in_a_tier_stay_with_the_marker(scenario: Path, tmp_path: Path) -> None:
    tier_directory.claim(tmp_path / "ssd")
    (tmp_path / "ssd" / "notes.txt").write_text("keep")
    done = kvbench("run", scenario, "--results", tmp_path / "results", "--set", "repeats=1")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "ssd").iterdir()} == {"notes.txt", tier_directory.MARKER}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_run_that_is_broken_off_leaves_its_tiers_to_clean(
    sign: signal.Signals, scenario: Path, tmp_path: Path
) -> None:
    process: subprocess.Popen[str] = start_paused_in("r02-", "run", scenario, "--results", tmp_path / "results")
    children = children_of(process)
    process.send_signal(sign)
    go_on(process)
    process.communicate(timeout=PATIENCE_S)
    assert gone(children)
    tiers = [tmp_path / "ssd", tmp_path / "deep" / "tier"]
    assert any(tier_directory.listing(tier) for tier in tiers)
    (tiers[1] / "0123.kv.77-1f.tmp").write_bytes(bytes(4096))  # as a writer leaves it that was killed
    done = kvbench("clean", *tiers)
    assert done.returncode == 0, done.stderr
    assert "files deleted" in done.stdout
    assert not any(tier.exists() for tier in tiers)


def test_clean_takes_a_directory_that_was_only_held(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    assert kvbench("clean", tmp_path / "held").returncode == 0
    assert not (tmp_path / "held").exists()
