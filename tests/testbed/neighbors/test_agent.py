"""The agent for real, on this host: what it refuses, what it removes, and what stops it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from kvbench.scenario.neighbors import FioJob
from kvbench.testbed.neighbors import agent_host, fio, iperf3
from kvbench.testbed.neighbors.agent_client import BOOTSTRAP, agent_source
from tests.builders.patience import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.testbed.neighbors.agent_event import AgentEvent

JOB = FioJob(size=1_000_000, numjobs=2, iodepth=4, block_size=65536)
needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="needs fio on PATH")


def end_of(final: dict[str, Any]) -> AgentEvent:
    """Return what a `final` line says, as the controller reads it."""
    return {
        "why": final["why"],
        "code": final["code"],
        "document": final["document"],
        "output": final["output"],
        "moved": final["moved"],
    }


class Channel:
    """An agent of this host behind three pipes, as a side client's is behind sshd."""

    def __init__(self, python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, *BOOTSTRAP[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        source = agent_source()
        assert self.process.stdin is not None
        self.process.stdin.write(b"%08d" % len(source) + source)
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        self.hello = self.until("hello")
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()

    def say(self, order: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def until(self, *names: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] in names:
                return event
        raise AssertionError(f"the agent ended without {names}")

    def prepare(self, directory: Path | str, **changes: Any) -> dict[str, Any]:
        order: dict[str, Any] = {
            "run": "run-1",
            "sample_s": 0.1,
            "max_runtime_s": 60,
            "directory": str(directory),
            "need_bytes": JOB.layout_bytes,
            "direct": False,
            "layout": None,
        }
        self.say("prepare", **{**order, **changes})
        return self.until("ready", "error")

    def go(self, rate_bytes_per_s: float | None = 2e6) -> dict[str, Any]:
        command = fio.run_command(FioJob(**{**JOB.model_dump(), "direct": False}), rate_bytes_per_s, 60, 0.2)
        self.say("go", at_ns=time.time_ns() + 50_000_000, command=command, count="fio")
        return self.until("started", "error")

    def children(self) -> list[int]:
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [line.split() for line in listed.splitlines()]
        return [int(pid) for pid, parent in pairs if int(parent) == self.process.pid]


@pytest.fixture
def agent() -> Iterator[Channel]:
    with Channel() as channel:
        yield channel


def gone(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to see that."""
    state = agent_host.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return not state or state[0] == "Z"


def wait_until_gone(*pids: int) -> None:
    wait_until(lambda: all(gone(pid) for pid in pids), f"{pids} are gone")


def test_it_is_python_3_8_and_imports_nothing_of_ours() -> None:
    tree = ast.parse(agent_source(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_it_starts_on_an_old_python() -> None:
    for name in ("python3.8", "python3.9", "python3.10"):
        python = shutil.which(name)
        if python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            with Channel(python) as channel:
                assert channel.hello["python"].startswith(name.removeprefix("python"))
            return
    pytest.skip("needs python3.8, 3.9 or 3.10 on PATH")


def test_hello_says_what_is_there(agent: Channel) -> None:
    assert agent.hello["protocol"] == agent_host.PROTOCOL
    assert agent.hello["pid"] == agent.process.pid
    assert (agent.hello["fio"] is None) == (shutil.which("fio") is None)


def test_a_ping_is_answered_with_its_clock(agent: Channel) -> None:
    before_ns = time.time_ns()
    agent.say("ping", number=7)
    pong = agent.until("pong")
    assert pong["number"] == 7
    assert before_ns - 10**9 < pong["clock_ns"] < time.time_ns() + 10**9


def test_the_marked_folder_comes_and_goes(agent: Channel, tmp_path: Path) -> None:
    ready = agent.prepare(tmp_path)
    folder = tmp_path / ".kvbench" / "run-1"
    assert ready["folder"] == str(folder)
    owner = json.loads((folder / agent_host.OWNER).read_text())
    assert (owner["made_by"], owner["pid"]) == ("kvbench", agent.process.pid)
    agent.say("bye")
    assert agent.until("gone")["left"] == []
    assert list(tmp_path.iterdir()) == []


def refused(agent: Channel, directory: Path | str, **changes: Any) -> str:
    answer = agent.prepare(directory, **changes)
    assert answer["event"] == "error"
    assert answer["remedy"].endswith(".")
    return str(answer["message"])


def test_targets_that_are_refused(agent: Channel, tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "holds a colon" in refused(agent, tmp_path / "a:b")
    assert "does not exist" in refused(agent, tmp_path / "none")
    assert "does not exist" in refused(agent, "relative")
    assert "is not a directory" in refused(agent, tmp_path / "file")
    assert "is a symbolic link" in refused(agent, tmp_path / "link")
    assert "is a device" in refused(agent, "/dev/null")
    assert "the system's own" in refused(agent, "/")
    assert "the system's own" in refused(agent, "/proc/1")
    assert "is too full" in refused(agent, tmp_path, need_bytes=10**18)
    assert "is no name for a run" in refused(agent, tmp_path, run="../escape")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a:b", "file", "link", "real"]


def test_a_target_in_memory_is_refused(agent: Channel) -> None:
    if agent_host.file_system_of(Path("/dev/shm")) != "tmpfs":  # noqa: S108 - looked at, not written
        pytest.skip("there is no tmpfs here")
    assert "in memory" in refused(agent, "/dev/shm")  # noqa: S108 - as above


def test_links_out_of_the_target_are_not_followed(agent: Channel, tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "target"
    elsewhere.mkdir()
    target.mkdir()
    (target / ".kvbench").symlink_to(elsewhere)
    assert "leads elsewhere" in refused(agent, target)
    (target / ".kvbench").unlink()
    (target / ".kvbench").mkdir()
    (target / ".kvbench" / "run-1").symlink_to(elsewhere)
    assert "leads elsewhere" in refused(agent, target)
    assert list(elsewhere.iterdir()) == []


def test_a_block_device_is_refused(agent: Channel, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a device node")
    try:
        os.mknod(tmp_path / "node", 0o660 | 0o060000, os.makedev(7, 250))
    except OSError as fault:
        pytest.skip(f"no device nodes here: {fault}")
    assert "is a device" in refused(agent, tmp_path / "node")


@needs_fio
@pytest.mark.fio
def test_fio_is_laid_out_started_counted_and_stopped(agent: Channel, tmp_path: Path) -> None:
    assert agent.prepare(tmp_path, layout=fio.layout_command(JOB))["event"] == "ready"
    files = sorted(path.name for path in (tmp_path / ".kvbench" / "run-1").iterdir())
    assert files == ["neighbour.0", "neighbour.1", "owner.json"]
    started = agent.go()
    moved: list[int] = []
    while len(set(moved)) < 3:
        sample = agent.until("sample")
        moved += [sample["moved"][1]] if sample["moved"] else []
    assert moved == sorted(moved)
    agent.say("stop")
    final = agent.until("final")
    assert (final["why"], fio.outcome(end_of(final))["error"]) == ("stop", None)
    assert fio.outcome(end_of(final))["bytes"] == final["moved"][1] >= moved[-1]
    assert gone(started["pid"])
    agent.go()  # once more, on the same files
    agent.say("bye")
    assert agent.until("gone")["left"] == []
    assert list(tmp_path.iterdir()) == []


@needs_fio
@pytest.mark.fio
@pytest.mark.parametrize("cause", ["eof", "silence", "max_runtime", "signal"])
def test_the_dead_mans_switch(tmp_path: Path, cause: str) -> None:
    with Channel() as agent:
        agent.prepare(tmp_path, layout=fio.layout_command(JOB), max_runtime_s=0.5 if cause == "max_runtime" else 60)
        generator = agent.go()["pid"]
        if cause != "max_runtime":  # which may have passed already
            assert generator in agent.children()
        if cause == "eof":
            assert agent.process.stdin is not None
            agent.process.stdin.close()
        elif cause == "signal":
            agent.process.send_signal(signal.SIGTERM)
        elif cause == "max_runtime":
            assert agent.until("final")["why"] == "max_runtime"
            agent.say("bye")
        wait_until_gone(generator, agent.process.pid)
    assert list(tmp_path.iterdir()) == []


@needs_fio
@pytest.mark.fio
def test_a_killed_agent_takes_its_generator_along_and_is_swept_later(tmp_path: Path) -> None:
    with Channel() as agent:
        agent.prepare(tmp_path, layout=fio.layout_command(JOB))
        generator = agent.go()["pid"]
        agent.process.kill()
        wait_until_gone(generator)
    folder = tmp_path / ".kvbench" / "run-1"
    assert (folder / "neighbour.0").exists()
    stranger = tmp_path / ".kvbench" / "theirs"
    stranger.mkdir()
    with Channel() as other:
        other.prepare(tmp_path, run="run-2")
        other.say("sweep", directory=str(tmp_path))
        swept = other.until("swept")
    assert swept["removed"] == [str(folder)]
    assert sorted(swept["kept"]) == [str(folder.with_name("run-2")), str(stranger)]
    assert [path.name for path in (tmp_path / ".kvbench").iterdir()] == ["theirs"]


@needs_fio
@pytest.mark.fio
def test_a_stuck_generator_is_killed_after_the_grace(tmp_path: Path) -> None:
    with Channel() as agent:
        agent.prepare(tmp_path)
        ready = tmp_path / "ready"
        ignore = "import pathlib,signal,time;signal.signal(signal.SIGINT,signal.SIG_IGN)"
        script = f"{ignore};pathlib.Path({str(ready)!r}).touch();time.sleep({PATIENCE_S})"
        agent.say("go", at_ns=0, command=[sys.executable, "-c", script], count="")
        pid = agent.until("started")["pid"]
        wait_until(ready.exists, "it ignores SIGINT")
        agent.say("stop")
        assert agent.until("final")["code"] == -signal.SIGKILL
        assert gone(pid)


def test_a_second_start_and_a_missing_program_are_refused(agent: Channel, tmp_path: Path) -> None:
    agent.prepare(tmp_path)
    agent.say("go", at_ns=0, command=["no-such-program"], count="")
    assert agent.until("error")["message"].startswith("cannot start no-such-program")
    agent.say("go", at_ns=0, command=["sleep", "60"], count="")
    agent.until("started")
    agent.say("go", at_ns=0, command=["sleep", "60"], count="")
    assert "runs already" in agent.until("error")["message"]


def test_a_stop_before_the_start_and_a_stop_after_the_end_are_answered(agent: Channel, tmp_path: Path) -> None:
    agent.prepare(tmp_path)
    agent.say("go", at_ns=time.time_ns() + 60 * 10**9, command=["sleep", "60"], count="")
    agent.say("stop")
    assert agent.until("final")["code"] is None
    agent.say("go", at_ns=0, command=["true"], count="")
    assert agent.until("final")["why"] == "itself"
    agent.say("stop")
    assert agent.until("final")["why"] == "itself"


def test_what_newer_iperf3_says_in_pieces_is_put_together(agent: Channel, tmp_path: Path) -> None:
    """`--json-stream` prints an object a line, {"event": ..., "data": ...}; the pieces are those of `--json`."""
    whole = json.loads((Path(__file__).parents[2] / "data" / "contention" / "ip_cl.json").read_text())
    pieces = [{"event": "start", "data": whole["start"]}]
    pieces += [{"event": "interval", "data": interval} for interval in whole["intervals"]]
    pieces += [{"event": "end", "data": whole["end"]}]
    said = tmp_path / "said"
    said.write_text("".join(json.dumps(piece) + "\n" for piece in pieces))
    agent.prepare(tmp_path)
    agent.say("go", at_ns=0, command=["cat", str(said)], count="rchar")
    outcome = iperf3.outcome(end_of({**agent.until("final"), "why": "stop"}))
    assert outcome["bytes"] == whole["end"]["sum_received"]["bytes"]
    assert outcome["version"] == "iperf 3.12"
    assert outcome["error"] is None


@needs_fio
@pytest.mark.fio
@pytest.mark.root
def test_a_target_that_fills_up_while_it_is_laid_out(tmp_path: Path) -> None:
    """Space was there when it was looked at, and was taken meanwhile."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4 to make a small file system")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(20_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, disk], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no image: {mounted.stderr.strip()}")
    try:
        big = FioJob(**{**JOB.model_dump(), "size": 30_000_000})
        with Channel() as agent:
            answer = agent.prepare(disk, layout=fio.layout_command(big), need_bytes=1)
            assert answer["message"] == "the target is full"
            agent.say("bye")
            assert agent.until("gone")["left"] == []
        assert not (disk / ".kvbench").exists()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
