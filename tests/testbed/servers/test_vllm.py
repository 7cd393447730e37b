"""vLLM's command line by tiers, and a start that fails: with a stand-in program, since the real one needs a minute."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kvbench.errors import ServerError, StorageError
from kvbench.lenient_json import at
from kvbench.scenario.models import Tiers
from kvbench.scenario.server_spec import VllmSpec
from kvbench.testbed.servers import tier_directory, vllm
from kvbench.this_host import process
from tests.builders.patience import PATIENCE_S, wait_until

FS = {"type": "fs"}


def spec(**changes: Any) -> VllmSpec:
    return VllmSpec.model_validate({"python": sys.executable, "model": "some/model", **changes})


def tiers(**given: Any) -> Tiers:
    return Tiers.model_validate(given)


def test_files_go_through_the_host_tier(tmp_path: Path) -> None:
    config = vllm.connector_config(spec(), tiers(g2="1GiB", g3={"path": tmp_path, "capacity": "1GB"}))
    extra = at(config, "kv_connector_extra_config")
    assert extra["spec_name"] == "TieringOffloadingSpec"
    assert extra["cpu_bytes_to_use"] == 2**30
    assert extra["secondary_tiers"] == [{"type": "fs", "root_dir": str(tmp_path)}]
    assert at(config, "kv_connector") == "OffloadingConnector"


def test_a_host_tier_alone_and_nothing_at_all() -> None:
    config = vllm.connector_config(spec(), tiers(g2="1GiB"))
    assert set(at(config, "kv_connector_extra_config")) == {"cpu_bytes_to_use"}
    assert vllm.connector_config(spec(), tiers(g1="1GiB")) is None


def test_a_spec_of_the_scenarios_own_is_named_by_its_module() -> None:
    own = {"name": "TieringOnCpu", "file": "scenarios/real/vllm_cpu/tiering_on_cpu.py"}
    config = vllm.connector_config(spec(offloading_spec=own), tiers(g2="1GiB"))
    extra = at(config, "kv_connector_extra_config")
    assert (extra["spec_name"], extra["spec_module_path"]) == ("TieringOnCpu", "tiering_on_cpu")


def stand_in(tmp_path: Path, program: str) -> Path:
    """A `python` that runs our program whatever it is asked to run."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)
    return path


def test_a_crash_while_waiting_shows_the_engines_own_last_words(tmp_path: Path) -> None:
    program = "import sys\nprint('loading')\nsys.exit('ValueError: no such quantization')"
    broken = spec(python=stand_in(tmp_path, program))
    log = tmp_path / "logs" / "vllm.log"
    with pytest.raises(ServerError) as error, vllm.serve(broken, tiers(), log, cache_on=True):
        pass
    assert "ValueError: no such quantization" in error.value.message
    assert str(log) in error.value.remedy
    assert "loading" in log.read_text()  # the log is kept


def test_a_server_that_never_answers_is_given_up_and_stopped(tmp_path: Path) -> None:
    program = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    slow = spec(python=stand_in(tmp_path, program), start_timeout="1s")
    log = tmp_path / "vllm.log"
    with pytest.raises(ServerError, match="not ready after 1 s"), vllm.serve(slow, tiers(), log, cache_on=True):
        pass
    pid = int(log.read_text().split()[0])
    assert not Path(f"/proc/{pid}").exists()


def test_what_tidies_up_after_a_server_may_end_by_itself(tmp_path: Path) -> None:
    """A child that ignores SIGTERM and removes shared memory once its parent is gone, as Python's own tracker does."""
    left, told = tmp_path / "shared", tmp_path / "ready"
    child = f"""
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(told)!r}).touch()
sys.stdin.read()
pathlib.Path({str(left)!r}).unlink()
"""
    parent = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE).wait()"
    )
    left.touch()
    with process.running([sys.executable, "-c", parent], tmp_path / "log", stop_s=5):
        wait_until(told.exists, "the child ignores SIGTERM")
    assert not left.exists()


def test_a_server_may_say_more_than_a_pipe_holds(tmp_path: Path) -> None:
    """A server whose output nobody reads stops once a pipe is full; here all of it goes to the log."""
    log = tmp_path / "log"
    with process.running([sys.executable, "-c", "print('x' * 1_000_000)"], log, stop_s=5) as running:
        assert running.wait(PATIENCE_S) == 0
    assert len(log.read_text()) == 1_000_001


def test_shared_memory_of_another_server_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files appear while our server starts: one that nobody uses any more, and one that another process maps."""
    monkeypatch.setattr(vllm, "_SHARED_MEMORY", tmp_path)
    ours, theirs, mapped = tmp_path / "vllm_offload_ours", tmp_path / "vllm_offload_theirs", tmp_path / "mapped"
    program = f"""
import pathlib, time
for name in ({str(ours)!r}, {str(theirs)!r}):
    pathlib.Path(name).write_bytes(bytes(4096))
while not pathlib.Path({str(mapped)!r}).exists():
    time.sleep(0.01)
raise SystemExit("ValueError: over")
"""
    held: list[mmap.mmap] = []

    def be_the_other_server() -> None:
        wait_until(lambda: theirs.exists() and theirs.stat().st_size == 4096, "our server has made its files")
        with theirs.open("r+b") as file:
            held.append(mmap.mmap(file.fileno(), 0))
        mapped.touch()

    other = threading.Thread(target=be_the_other_server)
    other.start()
    broken = spec(python=stand_in(tmp_path, program))
    with (
        pytest.raises(ServerError, match="ValueError: over"),
        vllm.serve(broken, tiers(), tmp_path / "log", cache_on=True),
    ):
        pass
    other.join()
    assert theirs.exists()
    assert not ours.exists()
    held[0].close()


def test_host_memory_that_a_killed_kvbench_left_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "_SHARED_MEMORY", tmp_path)
    gone, alive = f"vllm_offload_kvbench-{2**22 + 1}-8000.mmap", f"vllm_offload_kvbench-{os.getpid()}-8000.mmap"
    for name in (gone, alive, "vllm_offload_6f0e.mmap"):
        (tmp_path / name).touch()
    assert vllm.sweep_shared_memory() == [tmp_path / gone]
    assert {path.name for path in tmp_path.iterdir()} == {alive, "vllm_offload_6f0e.mmap"}


def test_the_host_tier_is_named_after_this_process(tmp_path: Path) -> None:
    program = "import sys\nprint(sys.argv)\nsys.exit('ValueError: over')"
    log, own = tmp_path / "log", tiers(g2="1GiB")
    starting = vllm.serve(spec(python=stand_in(tmp_path, program)), own, log, cache_on=True)
    with pytest.raises(ServerError, match="over"), starting:
        pass
    assert f'"engine_id": "kvbench-{os.getpid()}-' in log.read_text()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    own = tiers(g2="1GiB", g3={"path": tmp_path, "capacity": "1GB"})
    with pytest.raises(StorageError, match="marker"), vllm.serve(spec(), own, tmp_path / "log", cache_on=True):
        pass


# -- the directory of a tier ------------------------------------------------------------------------------------------


def test_only_tier_files_count_and_only_they_are_deleted(tmp_path: Path) -> None:
    tier_directory.claim(tmp_path)
    for name in ("a.kv", "deep/b.bin", "config.json", "notes.txt", ".hidden.kv", "c.kv.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert tier_directory.listing(tmp_path) == {"a.kv": 5, "deep/b.bin": 5}
    assert tier_directory.wipe(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        ".hidden.kv",
        tier_directory.MARKER,
        "c.kv.tmp",
        "config.json",
        "notes.txt",
    ]


def test_a_tier_that_nobody_uses_any_more_is_removed_with_all_that_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("tier")
    tier_directory.claim(root)
    for name in (
        "a.kv",
        "b.kv.12-7f.tmp",
        "model/7f/c.bin",
        "model/7f/d.bin_123.tmp",
        "model_0a1697947f6d/config.json",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert tier_directory.clear(root) == 2
    assert not root.exists()


def test_what_is_not_ours_keeps_its_folder_and_the_marker(tmp_path: Path) -> None:
    tier_directory.claim(tmp_path)
    for name in ("a.kv", "model/config.json", "c.kv.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert tier_directory.clear(tmp_path) == 1
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {tier_directory.MARKER, "model", "model/config.json", "c.kv.tmp"}


def test_nothing_is_deleted_without_a_marker_or_through_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    tier_directory.claim(real)
    (real / "a.kv").write_bytes(b"1")
    (tmp_path / "link").symlink_to(real)
    for path in (tmp_path, tmp_path / "link", tmp_path / "nothing"):
        with pytest.raises(StorageError, match="marker"):
            tier_directory.wipe(path)
    assert (real / "a.kv").exists()


def test_the_page_cache_is_dropped_and_its_emptiness_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.kv").write_bytes(bytes(1_000_000))
    assert tier_directory.drop_page_cache(tmp_path) == 0


def test_the_emulator_and_the_harness_agree_on_the_marker() -> None:
    text = Path("kvbench/emulator/file_io.py").read_text() + Path("kvbench/emulator/files.py").read_text()
    assert f'"{tier_directory.MARKER}"' in text
