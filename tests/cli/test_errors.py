"""Bad input on the command line: one sentence, a remedy, an exit code, and nothing made."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvbench.emulator import settings
from tests.cli.test_cli import SCENARIO, kvbench, one_sentence_with_remedy, serving


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")))
    return path


def test_an_unknown_key_has_its_line(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("capacity", "capacty"))
    said = one_sentence_with_remedy(kvbench("check", scenario))
    assert "small.yaml:4: unknown key `capacty`" in said
    assert "`capacity`" in said


def test_a_new_key_given_by_set_is_located_without_a_crash(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("tiers: {g4: {path: TIER, capacity: 1GB}}\n", ""))
    said = one_sentence_with_remedy(kvbench("check", scenario, "--set", "tiers.g4.path=x"), 2)
    assert "--set tiers.g4.path=x: `tiers.g4.capacity` is missing" in said


def test_check_says_what_cannot_be_proven_on_somebody_elses_server(scenario: Path) -> None:
    with serving("--cache", "off") as url:
        text = SCENARIO.replace(
            "emulator: {scale: {time: 1, bytes: 512}}", f"external: {{url: '{url}', metrics_url: '{url}/none'}}"
        )
        scenario.write_text(text)
        done = kvbench("check", scenario)
    assert done.returncode == 0, done.stderr
    assert "no request's tier can be proven" in done.stdout
    assert "server.external.pid is not given" in done.stdout
    assert "kv_bytes_per_token" not in done.stdout  # this server tells it


def test_usage_errors_have_their_own_exit_code() -> None:
    assert kvbench("run").returncode == 2
    assert kvbench("run", "x.yaml", "--no-such-option").returncode == 2
    assert kvbench("check", "x.yaml", "--driver", "locust").returncode == 2
    assert kvbench("import", "x", "--from", "wrk").returncode == 2


def test_nobody_at_the_endpoint(scenario: Path, tmp_path: Path) -> None:
    done = kvbench("run", scenario, "--endpoint", "http://127.0.0.1:9/v1", "--results", tmp_path / "results")
    assert "no server answers" in one_sentence_with_remedy(done)
    assert not (tmp_path / "results").exists()  # refused before anything was made


def test_wrong_model_and_refused_key(scenario: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    scenario.write_text(
        SCENARIO.replace("emulator: {scale: {time: 1, bytes: 512}}", "external: {url: URL, model: nobody}")
    )
    with serving("--cache", "off") as url:
        scenario.write_text(scenario.read_text().replace("URL", url))
        said = one_sentence_with_remedy(kvbench("run", scenario, "--results", results))
        assert "has no model nobody; it has gpt-oss-120b" in said
    with serving("--cache", "off", "--api-key-env", "SERVER_KEY", SERVER_KEY="sk-right") as url:
        said = one_sentence_with_remedy(kvbench("run", scenario, "--results", results, "--endpoint", url))
        assert "refuses the API key (401)" in said
        assert "api_key_env" in said


def test_an_endpoint_without_streaming(scenario: Path, tmp_path: Path) -> None:
    with serving("--cache", "off", "--fault", "no_streaming") as url:
        done = kvbench("run", scenario, "--results", tmp_path / "results", "--endpoint", url)
    assert "without streaming" in one_sentence_with_remedy(done)


def test_a_port_in_use() -> None:
    with serving("--cache", "off") as url:
        port = url.rsplit(":", 1)[1].removesuffix("/v1")
        done = kvbench("serve", "--port", port, "--cache", "off")
    assert done.returncode == 1
    assert "in use" in one_sentence_with_remedy(done)
    assert "Traceback" not in done.stderr


def test_a_tier_in_memory(scenario: Path, tmp_path: Path) -> None:
    if not Path("/dev/shm").is_dir():  # noqa: S108
        pytest.skip("no tmpfs at /dev/shm here")
    done = kvbench("run", scenario, "--set", "tiers.g4.path=/dev/shm/kvbench-test", "--results", tmp_path / "results")
    assert "file system in memory" in one_sentence_with_remedy(done)


def test_a_tier_that_is_a_device_or_a_file(scenario: Path, tmp_path: Path) -> None:
    for path in ("/dev/null", str(scenario)):
        done = kvbench("check", scenario, "--set", f"tiers.g4.path={path}")
        assert "not a directory" in one_sentence_with_remedy(done)


def test_a_tier_where_nothing_can_be_created(scenario: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    said = one_sentence_with_remedy(kvbench("check", scenario, "--set", "tiers.g4.path=/proc/kvbench-test"))
    assert "nothing can be created in /proc" in said or "cannot be written" in said  # the latter for all but root


def test_one_round_is_counted_as_one(scenario: Path) -> None:
    done = kvbench("check", scenario, "--set", "repeats=1")
    assert done.stdout.endswith("1 round\n"), done.stderr


def test_a_tier_directory_of_somebody_else(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "tier").mkdir()
    (tmp_path / "tier" / "thesis.txt").write_text("do not delete")
    done = kvbench("run", scenario, "--results", tmp_path / "results")
    assert "does not carry kvbench's marker" in one_sentence_with_remedy(done)
    assert (tmp_path / "tier" / "thesis.txt").read_text() == "do not delete"
    assert "marker" in one_sentence_with_remedy(kvbench("clean", tmp_path / "tier"))
    assert (tmp_path / "tier" / "thesis.txt").exists()


def test_a_result_folder_that_cannot_be_written(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = kvbench("run", scenario, "--results", tmp_path / "file")
    assert "cannot write" in one_sentence_with_remedy(done)


def test_more_prompts_than_the_disk_has_room_for(scenario: Path, tmp_path: Path) -> None:
    changes = [
        "--set",
        "prompts.lengths=[130k]",
        "--set",
        "prompts.per_length=900000",
        "--set",
        "tiers.g4.capacity=100TB",
    ]
    said = one_sentence_with_remedy(kvbench("check", scenario, *changes))
    assert "free, the scenario's prompts take" in said


def test_what_cannot_work_is_refused_before_anything_is_made(scenario: Path, tmp_path: Path) -> None:
    results = ["--results", str(tmp_path / "results")]
    cases = [
        ("published=nobody/benchmark-1", "no published document nobody", 1),
        ("server.emulator.profile=gpt-oss-120b_abacus", "no profile gpt-oss-120b_abacus", 2),
        ("tiers.g4.capacity=2MB", "cannot be warm", 2),
    ]
    for change, words, code in cases:
        assert words in one_sentence_with_remedy(kvbench("run", scenario, "--set", change, *results), code), change
    said = one_sentence_with_remedy(kvbench("run", scenario, "--endpoint", "https://127.0.0.1:1/v1", *results))
    assert "https" in said or "no server answers" in said
    assert not (tmp_path / "results").exists()


def test_a_pid_or_tier_that_is_not_on_this_host_is_refused(scenario: Path, tmp_path: Path) -> None:
    with serving("--cache", "off") as url:
        for change in ("pid: 999999999", f"tier_path: {tmp_path}/nowhere"):
            text = SCENARIO.replace("emulator: {scale: {time: 1, bytes: 512}}", f"external: {{url: '{url}', {change}}}")
            scenario.write_text(text)
            said = one_sentence_with_remedy(kvbench("check", scenario))
            assert "server.external." in said


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_driver_is_named_before_a_run_too(command: str, scenario: Path) -> None:
    wrong = kvbench(command, scenario, "--driver", "aiperf", "--set", "load.request_rate=2")
    assert "an open loop is driven by the native driver only" in one_sentence_with_remedy(wrong, 2)
    assert kvbench(command, scenario, "--driver", "native").returncode == 0


def test_an_aiperf_that_is_none_is_told_by_its_variable(scenario: Path, tmp_path: Path) -> None:
    done = kvbench("check", scenario, "--driver", "aiperf", KVBENCH_AIPERF=str(tmp_path / "nothing"))
    said = one_sentence_with_remedy(done)
    assert "Set KVBENCH_AIPERF to the program's path, or unset it" in said


def test_the_port_of_serve_is_told_and_can_be_given_in_both_forms() -> None:
    help_text = " ".join(kvbench("serve", "--help").stdout.split())
    assert "0 takes a free one (default: 8000)" in help_text
    for given in (["--port", "0"], ["--port=0"]):
        assert settings.parse_arguments(given, port=8000).port == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--time", "0"], "a scale must be positive"),
        (["--io-threads", "0"], "must be at least 1"),
        (["--g4-path", "tier"], "G4 has a path and no capacity"),
        (["--g4-shared"], "there is no G4 to share"),
        (["--write-delay-ms", "-1"], "a write delay cannot be negative"),
    ],
)
def test_settings_of_serve_that_cannot_be_meant_are_usage(given: list[str], told: str) -> None:
    done = kvbench("serve", "--port", "0", *given)
    assert told in one_sentence_with_remedy(done, 2)
