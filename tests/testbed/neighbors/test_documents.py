"""What fio and iperf3 say, read from what they really printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.scenario.neighbors import FioJob, Iperf3Flow
from kvbench.testbed.hosts.file import Fabric
from kvbench.testbed.neighbors import fio, iperf3
from kvbench.testbed.neighbors.agent import Documents, fio_bytes

if TYPE_CHECKING:
    from kvbench.testbed.neighbors.agent_event import AgentEvent

DATA = Path(__file__).parents[2] / "data" / "contention"
FABRIC = Fabric(address="192.0.2.11", ports=(5201, 5202))


def read(name: str) -> str:
    return (DATA / name).read_text()


def final(document: dict[str, Any] | None, *, code: int | None, why: str = "stop", said: str = "") -> AgentEvent:
    return {"document": document, "code": code, "why": why, "output": said, "moved": [0, 0]}


@pytest.mark.parametrize(
    ("name", "count"), [("sig_INT.json", 3), ("sig_KILL.json", 2), ("fio_jsonplus_sample.json", 1)]
)
def test_status_documents_are_cumulative(name: str, count: int) -> None:
    moved = [fio_bytes(document) for document in Documents().feed(read(name))]
    assert len(moved) == count
    assert moved == sorted(moved)
    assert moved[-1] > 0


def test_errors_before_the_document_are_no_document() -> None:
    documents = Documents()
    (document,) = documents.feed(read("fio_enospc_stdout_mixed.txt"))
    assert document["jobs"][0]["error"] == 28
    assert "No space left on device" in documents.rest()
    outcome = fio.outcome(final(document, code=1, why="itself", said=documents.rest()))
    assert outcome["error"] == "its target filled up"


def test_fio_stopped_by_us_is_no_error() -> None:
    document = Documents().feed(read("sig_INT.json"))[-1]
    outcome = fio.outcome(final(document, code=128))
    assert outcome["error"] is None
    assert outcome["version"] == "fio-3.33"
    assert outcome["bytes"] == fio_bytes(document) > 0


@pytest.mark.parametrize(
    ("code", "why", "sentence"),
    [
        (128, "itself", "fio ended by itself with exit code 128: it said nothing"),
        (0, "itself", "fio ended by itself with exit code 0: it said nothing"),
        (-9, "stop", "fio did not stop when asked (exit code -9)"),
    ],
)
def test_fio_that_ends_otherwise_is_an_error(code: int, why: str, sentence: str) -> None:
    assert fio.outcome(final(None, code=code, why=why))["error"] == sentence


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), noise=st.lists(st.sampled_from(["", "\n", "fio: terminating on signal 2\n", "fio: io_u error\n"]))
)
def test_documents_survive_any_cut(data: st.DataObject, noise: list[str]) -> None:
    """However the pipe cuts the stream, the same documents come out, and never an invented one."""
    values = data.draw(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), max_size=5))
    text = "".join(noise) + "".join(json.dumps(value, indent=2) + "\n" + "".join(noise) for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    documents, found = Documents(), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += documents.feed(text[start:end])
    assert found == values


def test_a_document_that_was_broken_off_is_passed_over() -> None:
    whole = json.dumps({"jobs": []}, indent=2)
    assert Documents().feed(whole[:8] + "\n" + whole + "\n") == [{"jobs": []}]


def test_fio_gets_plain_bytes_divided_by_its_jobs() -> None:
    command = fio.run_command(FioJob(numjobs=16), 50e9, 900, 0.2)
    assert "--rate=3125000000" in command  # 50 GB/s / 16
    assert "--thread=1" in command
    assert "--readonly" in command
    assert not [word for word in command if word.startswith(("--filename=", "--allow_mounted_write", "--unlink"))]


def test_a_mixed_job_has_a_cap_for_each_direction() -> None:
    job = FioJob(rw="randrw", numjobs=2, read_share=0.75)
    assert "--rate=37500000,12500000" in fio.run_command(job, 100e6, 900, 0.2)  # 50 MB/s per job, 3 : 1


@pytest.mark.parametrize(("ionice", "code"), [("realtime", 1), ("best-effort", 2), ("idle", 3)])
def test_the_io_class_is_passed_on_and_read_back(ionice: Literal["idle", "best-effort", "realtime"], code: int) -> None:
    command = fio.run_command(FioJob(ionice=ionice), None, 900, 0.2)
    assert f"--prioclass={code}" in command
    moved = {"io_bytes": 1}
    document = {"jobs": [{"job options": {"prioclass": str(code)}, "read": moved, "write": moved}]}
    assert fio.outcome(final(document, code=128))["ionice"] == ionice


def test_without_an_io_class_none_is_said() -> None:
    assert not [word for word in fio.run_command(FioJob(), None, 900, 0.2) if "prioclass" in word]
    assert fio.outcome(final({"jobs": []}, code=128))["ionice"] is None
    with pytest.raises(ValueError, match="not both"):
        FioJob(ionice="idle", options={"prioclass": 3})


def test_an_unlimited_job_has_no_rate() -> None:
    assert not [word for word in fio.run_command(FioJob(), None, 900, 0.2) if "rate" in word]


@pytest.mark.parametrize(
    "option", ["filename", "exec_prerun", "allow_mounted_write", "ioengine", "directory", "output"]
)
def test_options_that_name_files_or_programs_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="not one of the fio options"):
        FioJob(options={option: "x"})


def test_iperf3_is_paced_per_stream_and_pinned() -> None:
    flow = Iperf3Flow(parallel=4, congestion="cubic")
    command = iperf3.client_command(flow, FABRIC, 5202, 100e6, "iperf 3.12 (cJSON 1.7.15)")
    assert command[command.index("--bitrate") + 1] == "200000000"  # 800 Mbit/s over 4 streams
    assert command[command.index("--congestion") + 1] == "cubic"
    assert command[command.index("--port") + 1] == "5202"
    assert "--json" in command
    assert "--reverse" in command


def test_newer_iperf3_streams_its_json() -> None:
    command = iperf3.client_command(Iperf3Flow(), FABRIC, 5201, None, "iperf 3.18 (cJSON 1.7.15)")
    assert "--json-stream" in command
    assert "--bitrate" not in command


def test_iperf3_at_its_end() -> None:
    (document,) = Documents().feed(read("ip_cl.json"))
    outcome = iperf3.outcome(final(document, code=0, why="stop"))
    assert outcome["bytes"] == 37617664
    assert outcome["congestion"] == ["bbr", "bbr"]
    assert outcome["error"] is None


def test_iperf3_interrupted_by_us_is_no_error_but_its_own_end_is() -> None:
    (document,) = Documents().feed(read("ip_interrupted.json"))
    assert "interrupt" in document["error"]
    assert iperf3.outcome(final(document, code=1, why="stop"))["error"] is None
    assert iperf3.outcome(final(document, code=0, why="itself"))["error"] is not None


def test_iperf3_without_a_server_is_an_error_whatever_its_exit_code() -> None:
    (document,) = Documents().feed(read("ip_refused.json"))
    assert "unable to connect" in str(iperf3.outcome(final(document, code=0, why="itself"))["error"])


@pytest.mark.parametrize(
    ("line", "version"), [("iperf 3.12 (cJSON 1.7.15)", (3, 12)), ("iperf 3.20", (3, 20)), ("?", (0, 0))]
)
def test_iperf3_versions(line: str, version: tuple[int, int]) -> None:
    assert iperf3.version(line) == version
