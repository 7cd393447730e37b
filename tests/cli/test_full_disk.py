"""A full disk, for real: a small file system of its own, under the tier and under the results."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from kvbench.result.files import read_json
from kvbench.result.rows import read_rows
from tests.cli.test_cli import SCENARIO, kvbench, one_sentence_with_remedy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 40 MB in a file, mounted for the length of one test."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4 to make a small file system")
    image, mount = tmp_path / "image", tmp_path / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(40_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no image: {mounted.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def leave_free(disk: Path, spare_bytes: int) -> Path:
    """Fill a disk until only so much is free."""
    usage = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(usage.f_bavail * usage.f_frsize - spare_bytes))
    return ballast


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")))
    return path


def test_a_tier_that_fills_up_is_one_sentence_and_the_run_resumes(
    small_disk: Path, scenario: Path, tmp_path: Path
) -> None:
    scenario.write_text(SCENARIO.replace("TIER", str(small_disk / "tier")))
    ballast = leave_free(small_disk, 2_150_000)  # the prompts take 1.9 MB, with canaries and warmup 2.5 MB
    results = tmp_path / "results"
    said = one_sentence_with_remedy(kvbench("run", scenario, "--results", results))
    assert "could not write" in said
    assert "tier" in said
    assert "resumes" in said
    ballast.unlink()
    done = kvbench("run", scenario, "--results", results)
    assert done.returncode in (0, 3), done.stderr
    assert "going on with" in done.stderr


def test_a_tier_with_too_little_room_is_refused_at_once(small_disk: Path, scenario: Path, tmp_path: Path) -> None:
    leave_free(small_disk, 500_000)
    done = kvbench("run", scenario, "--set", f"tiers.g4.path={small_disk}/tier", "--results", tmp_path / "results")
    assert "free, the scenario's prompts take" in one_sentence_with_remedy(done)
    assert not (tmp_path / "results").exists()


def test_a_result_folder_that_fills_up_loses_nothing(small_disk: Path, scenario: Path) -> None:
    ballast = leave_free(small_disk, 90_000)  # enough for the first run's files and not for the second's
    results = small_disk / "results"
    said = one_sentence_with_remedy(kvbench("run", scenario, "--results", results))
    assert "no space left" in said
    assert "resumes" in said
    (folder,) = (results / "small").iterdir()
    rows = [row for journal in folder.glob("runs/*/requests.jsonl") for row in read_rows(journal.parent)]
    rows += [row for sealed in folder.glob("runs/*/requests.parquet") for row in read_rows(sealed.parent)]
    assert all(row.status == "ok" for row in rows)
    ballast.unlink()
    done = kvbench("run", scenario, "--results", results)
    assert done.returncode in (0, 3), done.stderr
    assert "going on with" in done.stderr
    assert read_json(folder / "summary.json")["complete"]
