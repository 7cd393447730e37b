"""AIPerf as a driver: what it is given, what is made of what it leaves, and both drivers against the same faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from kvbench.drivers import aiperf
from kvbench.drivers.aiperf import AiperfDriver, one_token_body
from kvbench.drivers.native import NativeDriver
from kvbench.drivers.target import Target
from kvbench.errors import DriverError
from kvbench.result.records import Request, Response
from tests.builders.fault_server import FaultServer, request
from tests.builders.faults import FAULTS, asking, fault_requests, misbehave
from tests.builders.patience import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from kvbench.result.records import Conversation

KEY = "sk-do-not-tell"


def has_aiperf() -> bool:
    try:
        aiperf.find()
    except DriverError:
        return False
    return True


needs_aiperf = pytest.mark.skipif(not has_aiperf(), reason="AIPerf is not installed (pip install 'kvbench[aiperf]')")


@needs_aiperf
@pytest.mark.parametrize(("hangs", "timeout_s"), [(False, PATIENCE_S), (True, 15)], ids=["ends", "hangs"])
def test_both_drivers_give_every_fault_the_same_status(tmp_path: Path, hangs: bool, timeout_s: float) -> None:  # noqa: FBT001
    asked = [one for one in fault_requests() if one.prompt_id.startswith("hang") == hangs]
    with FaultServer(misbehave) as server:
        target = Target(server.url)
        with AiperfDriver(target, tmp_path / "aiperf", timeout_s=timeout_s) as driver:
            theirs = driver.drive(asked, 4, lambda _: None)
        with NativeDriver(target, timeout_s=timeout_s) as driver:
            ours = driver.drive(asked, 4, lambda _: None)
    told = {one.request_id: (one.status, other.status) for one, other in zip(theirs, ours, strict=True)}
    wanted = {one.request_id: FAULTS[one.prompt_id].status if one.prompt_id in FAULTS else "ok" for one in asked}
    assert told == {name: (status, status) for name, status in wanted.items()}
    for one, other in zip(theirs, ours, strict=True):
        assert (one.http_status, one.text, one.isl, one.osl) == (other.http_status, other.text, other.isl, other.osl)
        assert (one.first_token_ns is None) == (other.first_token_ns is None)


@needs_aiperf
def test_half_of_the_requests_fail_with_500_although_aiperf_returns_0(tmp_path: Path) -> None:
    asked = [asking(number, "http-500" if number % 2 else "good") for number in range(8)]
    with FaultServer(misbehave) as server, AiperfDriver(Target(server.url), tmp_path, timeout_s=PATIENCE_S) as driver:
        responses = driver.drive(asked, 2, lambda _: None)
    assert [one.status for one in responses] == ["ok", "http_error"] * 4
    sent = [call.body for call in server.calls if json.loads(call.body)["prompt"] in ("good", "http-500")]
    assert sorted(map(json.loads, sent), key=str) == sorted((json.loads(one.body) for one in asked), key=str)
    assert len(driver.own_requests) == 2  # the warm-up, one a connection
    assert driver.health().missing == driver.health().out_of_order == 0


def said_twice(name: str) -> Conversation:
    for turn in range(2):
        body = {**json.loads(asking(0, f"{name} {turn}").body)}
        yield Request(f"{name}.{turn}", name, "measure", 5, json.dumps(body).encode(), name, turn)


@needs_aiperf
def test_conversations_that_are_known_beforehand(tmp_path: Path) -> None:
    names, responses = ["a", "b", "c"], list[Response]()
    with FaultServer(misbehave) as server, AiperfDriver(Target(server.url), tmp_path, timeout_s=PATIENCE_S) as driver:
        driver.converse(map(said_twice, names), 2, responses.append)
    assert [one.request_id for one in responses] == [f"{name}.{turn}" for name in names for turn in range(2)]
    assert {one.status for one in responses} == {"ok"}
    for first, second in zip(responses[::2], responses[1::2], strict=True):
        assert (second.sent_ns or 0) > (first.last_token_ns or 0)
    assert driver.health().missing == driver.health().out_of_order == 0


@needs_aiperf
def test_refused_by_both(tmp_path: Path) -> None:
    with FaultServer(misbehave) as server:
        server.stop_listening()
        target = Target(server.url)
        with AiperfDriver(target, tmp_path / "aiperf", timeout_s=PATIENCE_S) as driver:
            theirs = driver.drive([asking(0, "good")], 1, lambda _: None)
        with NativeDriver(target, timeout_s=PATIENCE_S) as driver:
            ours = driver.drive([asking(0, "good")], 1, lambda _: None)
    assert [one.status for one in (*theirs, *ours)] == ["refused", "refused"]


# -- a made-up AIPerf: what the real one never does on demand ---------------------------------------------------------


def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> AiperfDriver:
    """A driver whose AIPerf is `script`; `config`, `sessions` and `write(records)` are ready for it."""
    prelude = f"""\
        #!{sys.executable}
        import json, os, sys, time
        from ruamel.yaml import YAML
        config = YAML(typ="safe").load(open(sys.argv[3]))["benchmark"]
        sessions = json.load(open(config["dataset"]["path"]))["data"]
        folder = config["artifacts"]["dir"]
        def record(number, session, **more):
            chunks = [{{"choices": [{{"text": "x", "finish_reason": "stop"}}], "model": "m"}},
                      {{"choices": [], "usage": {{"prompt_tokens": 5, "completion_tokens": 1}}}}]
            messages = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
            responses = [{{"perf_ns": 1_500 + 1_000 * i, "packets": [{{"name": "data", "value": text}}]}}
                         for i, text in enumerate(messages)]
            told = {{"conversation_id": session["session_id"], "session_num": number,
                     "credit_issued_ns": 10_000_000, "request_start_ns": 10_000_100}}
            return {{"metadata": told, "start_perf_ns": 1_000, "status": 200, "responses": responses,
                     "payload": session["payloads"][0], **more}}
        def write(records):
            with open(folder + "/profile_export_raw.jsonl", "w") as file:
                file.writelines(json.dumps(one) + "\\n" for one in records)
        """
    program = tmp_path / "made-up-aiperf"
    program.write_text(textwrap.dedent(prelude) + textwrap.dedent(script))
    program.chmod(0o755)
    monkeypatch.setenv("KVBENCH_AIPERF", str(program))
    return AiperfDriver(Target("http://127.0.0.1:9/v1", api_key=KEY), tmp_path / "artifacts", timeout_s=1)


def statuses(driver: AiperfDriver, count: int = 3) -> list[str]:
    seen: list[Response] = []
    responses = driver.drive([request(number) for number in range(count)], 1, seen.append)
    assert seen == responses
    assert [one.request_id for one in responses] == [f"r{number}" for number in range(count)]
    return [one.status for one in responses]


def test_a_request_without_a_record_is_cancelled_whatever_the_code_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = made_up(tmp_path, monkeypatch, "write([record(i, s) for i, s in enumerate(sessions)][:-1])")
    assert statuses(driver) == ["ok", "ok", "cancelled"]
    assert driver.health().missing == 1


def test_times_are_wall_clock_from_the_start_of_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = made_up(tmp_path, monkeypatch, "write([record(i, s) for i, s in enumerate(sessions)])")
    response = driver.drive([request()], 1, lambda _: None)[0]
    assert (response.scheduled_ns, response.sent_ns) == (10_000_000, 10_000_100)
    assert (response.first_token_ns, response.last_token_ns) == (10_000_600, 10_000_600)
    assert response.ttft_s == pytest.approx(500e-9)
    assert response.ttft_bound == "exact"


def test_a_first_token_that_was_read_with_what_followed_is_an_upper_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        made = [record(i, s) for i, s in enumerate(sessions)]
        for one in made:
            for message in one["responses"]:
                message["perf_ns"] = 2_000
        write(made)
        """
    driver = made_up(tmp_path, monkeypatch, script)
    assert driver.drive([request()], 1, lambda _: None)[0].ttft_bound == "upper"
    assert driver.health().upper_bounds == 1


def test_another_order_is_counted_and_another_body_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        made = [record(-i, s) for i, s in enumerate(sessions)]
        made[1]["payload"] = {"prompt": "something else"}
        write(made)
        """
    driver = made_up(tmp_path, monkeypatch, script)
    assert statuses(driver) == ["stream_error", "ok", "ok"]
    assert driver.health().out_of_order == 2


def test_the_key_is_in_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        key = os.environ[config["endpoint"]["apiKey"].strip("${}")]
        write([record(i, s, status=401, responses=[], error={"message": "no such key: " + key})
               for i, s in enumerate(sessions)])
        print("the key is", key)
        """
    driver = made_up(tmp_path, monkeypatch, script)
    response = driver.drive([request()], 1, lambda _: None)[0]
    assert (response.status, response.error) == ("http_error", "HTTP 401: no such key: ***")
    written = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"aiperf.yaml", "console.log", "profile_export_raw.jsonl"}
    assert not [path for path in written if KEY in path.read_text()]


def test_no_record_at_all_is_an_error_with_its_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = made_up(tmp_path, monkeypatch, "sys.exit('Error: the configuration has no such key')")
    with pytest.raises(DriverError, match="without a record of any request: Error: the configuration") as raised:
        statuses(driver)
    assert "console.log" in raised.value.remedy


def test_an_aiperf_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiperf, "_START_BOUND_S", 0.0)
    script = "write([record(i, s) for i, s in enumerate(sessions)]); time.sleep(600)"
    assert statuses(made_up(tmp_path, monkeypatch, script), 1) == ["ok"]


def test_the_parts_that_a_run_without_success_leaves_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        write([record(i, s) for i, s in enumerate(sessions)])
        os.mkdir(folder + "/raw_records")
        os.rename(folder + "/profile_export_raw.jsonl", folder + "/raw_records/one.jsonl")
        with open(folder + "/raw_records/one.jsonl", "a") as file:
            file.write('{"metadata": {"conver')
        """
    assert statuses(made_up(tmp_path, monkeypatch, script)) == ["ok", "ok", "ok"]


def test_nothing_to_send_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = made_up(tmp_path, monkeypatch, "sys.exit('started')")
    assert driver.drive([], 1, lambda _: None) == []
    assert not (tmp_path / "artifacts").exists()


def test_ctrl_c_hands_over_what_there_is_and_leaves_no_process(tmp_path: Path) -> None:
    made = tmp_path / "made-up-aiperf"
    made.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    made.chmod(0o755)
    script = f"""
import json
from pathlib import Path
from kvbench.drivers.aiperf import AiperfDriver
from kvbench.drivers.target import Target
from tests.builders.fault_server import request
driver = AiperfDriver(Target("http://127.0.0.1:9/v1"), Path({str(tmp_path)!r}) / "a", timeout_s=60)
try:
    driver.drive([request(0)], 1, lambda one: print(one.status, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""
    env = {**os.environ, "KVBENCH_AIPERF": str(made)}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().strip(), "the made-up AIPerf has started")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert out.split() == ["cancelled", "interrupted"]
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


# -- what it is given -------------------------------------------------------------------------------------------------


def test_the_program_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("KVBENCH_AIPERF", str(program))
    assert aiperf.find() == program
    monkeypatch.setenv("KVBENCH_AIPERF", str(tmp_path / "nothing"))
    with pytest.raises(DriverError, match="is no program") as named:
        aiperf.find()
    assert "KVBENCH_AIPERF" in named.value.remedy
    monkeypatch.delenv("KVBENCH_AIPERF")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError, match="not installed") as raised:
        aiperf.find()
    assert "kvbench[aiperf]" in raised.value.remedy
    (tmp_path / "aiperf").symlink_to(program)
    assert aiperf.find() == tmp_path / "aiperf"


def test_the_scratch_of_a_killed_run_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, living = tmp_path / f"kvbench-aiperf-{gone.pid}-a", tmp_path / f"kvbench-aiperf-{os.getpid()}-b"
    other, link = tmp_path / "kvbench-aiperf-mine-c", tmp_path / f"kvbench-aiperf-{gone.pid}-d"
    for folder in (left, living, other):
        folder.mkdir()
        (folder / "inputs.json").write_text("{}")
    link.symlink_to(other)
    assert aiperf.sweep_scratch() == [left]
    assert sorted(tmp_path.iterdir()) == sorted([living, other, link])
    assert (other / "inputs.json").exists()


def test_the_warm_up_is_one_token_of_the_same_form() -> None:
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "some words"}], "max_completion_tokens": 9}
    short = one_token_body(chat)
    assert short == {"messages": [{"role": "user", "content": "s"}], "max_completion_tokens": 1}
    assert one_token_body({"prompt": [17, 18, 19], "max_tokens": 4}) == {"prompt": [17], "max_tokens": 1}
    assert chat["messages"][0]["content"] == "some words"


def test_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = made_up(tmp_path, monkeypatch, "write([record(i, s) for i, s in enumerate(sessions)])")
    driver.drive([request(0), request(1), request(2)], 2, lambda _: None)
    written = YAML(typ="safe").load(tmp_path / "artifacts" / "aiperf.yaml")["benchmark"]
    assert written["endpoint"]["url"] == "http://127.0.0.1:9/v1/completions"
    assert written["endpoint"]["timeout"] == 1
    assert [(phase["kind"], phase["sessions"], phase["concurrency"]) for phase in written["phases"]] == [
        ("warmup", 2, 2),
        ("profiling", 3, 2),
    ]
    assert written["dataset"]["sampling"] == "sequential"
