"""Calibration: its arithmetic by hand, which one a result gets, and the command from end to end without any timing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from kvbench.analysis.checks.expected import Expected
from kvbench.analysis.checks.judge import judge_run
from kvbench.errors import DriverError, OptionError
from kvbench.experiment import calibrate
from kvbench.percentile import needed_n
from kvbench.report.tables import client_error
from kvbench.result import calibration
from kvbench.result.calibration import CalibrationRow, CellKey, Effort
from kvbench.result.calibration_record import Spread
from kvbench.result.files import read_json
from kvbench.result.records import Request, Response
from kvbench.result.run_record import DriverRecord
from kvbench.this_host import facts
from tests.builders.made_up_runs import honest_run
from tests.builders.requests import frame_of
from tests.result.test_folder import row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvbench.drivers.target import Target

KEY = CellKey("native", 2, 500)
GAP_S = 0.02
US = 1_000


def answered(name: str, start_ns: int, error_us: int = 10, **changes: Any) -> Response:
    """Sent, 1 ms later at the server, 100 ms later its first chunk, `error_us` later seen, 140 ms later ended."""
    first_chunk_ns = start_ns + 101_000 * US
    seen = Response(
        request_id=name,
        status="ok",
        scheduled_ns=start_ns,
        sent_ns=start_ns,
        first_token_ns=first_chunk_ns + error_us * US,
        last_token_ns=first_chunk_ns + 140_000 * US,
        ttft_bound="exact",
        receive_lag_s=1e-3,
        osl=8,
        server={"arrived_ns": start_ns + 1_000 * US, "first_chunk_sent_ns": first_chunk_ns},
    )
    return replace(seen, **changes)


def rows(*responses: Response, number: int = 1) -> list[CalibrationRow]:
    return [calibration.make_row(KEY, number, response) for response in responses]


def test_a_cell_by_hand() -> None:
    good = rows(answered("a", 0, 10), answered("b", 500_000 * US, 30)) + rows(answered("c", 10**10, 20), number=2)
    bad = rows(
        Response("d", "refused", 0),
        answered("e", 0, status="cut"),
        answered("f", 0, first_token_ns=None),
        answered("g", 0, ttft_bound="upper", server={}),
    )
    efforts = [Effort(0.25, 0.5, 0.001), Effort(0.5, 0.25, 0.003)]
    cell = calibration.summarise_cell(KEY, [*good, *bad], efforts, GAP_S)
    assert (cell.n, cell.failed, cell.failures) == (3, 3, {"refused": 1, "cut": 1, "no token": 1})
    assert cell.without_server_stamp == 1
    assert (cell.upper_bounds, cell.upper_share) == (1, 0.25)  # of the four that were answered
    assert [cell.error_s.min, cell.error_s.p50, cell.error_s.max] == pytest.approx([10e-6, 20e-6, 30e-6])
    assert cell.error_s.p90 is None  # of three rows
    assert cell.error_s.mean == pytest.approx(20e-6)
    assert cell.over_server_s.p50 == pytest.approx(1e-3 + 20e-6)  # a millisecond of sending, then the error
    assert cell.sending_s.max == pytest.approx(1e-3)
    assert cell.user_clock_s is not None
    assert cell.user_clock_s.p50 == pytest.approx(1e-3 + 20e-6)
    assert cell.offered_rps == pytest.approx(2 / (0.1 + 7 * GAP_S))
    assert cell.measured_s == pytest.approx(0.5 + 0.241 + 0.241)  # first send to last token of each call
    assert cell.achieved_rps == pytest.approx(4 / 0.982)
    assert (cell.client_cpu_s, cell.server_cpu_s, cell.start_s, cell.calls) == (0.75, 0.75, 0.002, 2)


def test_an_error_below_zero_is_kept() -> None:
    cell = calibration.summarise_cell(KEY, rows(answered("a", 0, -5)), [Effort(0, 0, 0)], GAP_S)
    assert cell.error_s.max == pytest.approx(-5e-6)


def test_a_cell_of_failures_has_no_figure_and_says_why() -> None:
    cell = calibration.summarise_cell(KEY, rows(Response("a", "timeout", 0)), [Effort(0, None, None)], GAP_S)
    assert (cell.n, cell.failed, cell.failures) == (0, 1, {"timeout": 1})
    assert cell.error_s == Spread(n=0, min=None, p50=None, p90=None, p99=None, max=None, mean=None)
    assert cell.achieved_rps is cell.offered_rps is cell.server_cpu_s is cell.start_s is None


# Interpolated at rank 1 + 0.99 (n - 1): 296.02, 297.01 and 990.01.
@pytest.mark.parametrize(("n", "p99"), [(1, None), (298, None), (299, 296.02), (300, 297.01), (1000, 990.01)])
def test_a_p99_needs_299_rows(n: int, p99: float | None) -> None:
    found = calibration.spread(float(value) for value in range(n, 0, -1))
    assert (found.n, found.max) == (n, float(n))
    assert found.p99 == pytest.approx(p99)


def test_cells_take_turns_and_none_is_always_first() -> None:
    cells = [replace(KEY, connections=count) for count in (1, 2, 3, 4, 5, 6)]
    turns = calibration.in_turns(cells, 3)
    assert [key.connections for _, key in turns] == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 1, 2, 5, 6, 1, 2, 3, 4]
    assert [number for number, _ in turns] == [1] * 6 + [2] * 6 + [3] * 6


def test_every_cell_gets_enough_rows_in_whole_turns_of_its_connections() -> None:
    settings = calibrate.Settings()
    asked = {
        (count, tokens): settings.requests_of(CellKey("native", count, tokens))
        for count in settings.connections
        for tokens in settings.prompt_tokens
    }
    assert asked == {
        (1, 500): 100,
        (1, 130_000): 100,
        (28, 500): 280,
        (28, 130_000): 112,
        (100, 500): 1000,
        (100, 130_000): 400,
    }
    assert all(count * settings.rounds >= needed_n(99, two_sided=False) for count in asked.values())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"rounds": 0}, "0 rounds"), ({"requests": -1}, "-1 requests"), ({"output_tokens": 0}, "0 output tokens")],
)
def test_the_count_that_is_too_small_is_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=f"cannot have {words}"):
        calibrate.Settings(**wrong).check()


@pytest.mark.parametrize(
    "wrong", [{"connections": (0,)}, {"connections": ()}, {"connections": (901,)}, {"prompt_tokens": (131_001,)}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="not"):
        calibrate.Settings(**wrong).check()


# -- the order of what is done, with made-up drivers ------------------------------------------------------------------


class MadeUp:
    """A driver that answers by itself and writes down what is done to it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def __enter__(self) -> Self:
        self.log.append(f"{self.name} opened")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append(f"{self.name} closed")

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> list[Response]:
        asked = list(requests)
        assert all(json.loads(request.body)["stream"] for request in asked)
        assert all(json.loads(request.body)["prompt"].count("token ") == request.isl_target for request in asked)
        self.log.append(f"{self.name} {len(asked)} at {concurrency}, {asked[0].isl_target} tokens")
        responses = [answered(request.request_id, 0) for request in asked]
        for response in responses:
            on_response(response)
        return responses

    def health(self) -> DriverRecord:
        return DriverRecord(self.name, client_cpu_s=float(len(self.log)))


def test_kept_drivers_stay_open_and_others_are_opened_for_each_call(tmp_path: Path) -> None:
    log: list[str] = []

    def opener(name: str) -> Callable[[Target, Path], MadeUp]:
        return lambda _target, _folder: MadeUp(name, log)

    candidates = {
        "kept": calibrate.Candidate(opener("kept")),
        "each": calibrate.Candidate(opener("each"), is_kept=False),
    }
    server = calibrate.Server("http://127.0.0.1:9/v1", os.getpid(), GAP_S)
    settings = calibrate.Settings((2,), (7,), rounds=2, requests=1)
    told: list[str] = []
    runner = calibrate.Runner(server, settings, candidates, tmp_path / "rows.jsonl", tmp_path, told.append)
    busy = MadeUp("busy", log)
    cells = runner.run({"busy": lambda: busy})
    assert log == [
        *("kept opened", "kept 2 at 2, 7 tokens"),  # thrown away
        *("busy opened", "kept 20 at 2, 7 tokens", "busy closed"),
        *("busy opened", "each opened", "each 20 at 2, 7 tokens", "each closed", "busy closed"),
        *("busy opened", "each opened", "each 20 at 2, 7 tokens", "each closed", "busy closed"),
        *("busy opened", "kept 20 at 2, 7 tokens", "busy closed"),
        "kept closed",
    ]
    assert [(cell.driver, cell.machine, cell.n, cell.client_cpu_s) for cell in cells] == [
        ("kept", "busy", 40, 2.0),
        ("each", "busy", 40, 2.0),
    ]
    kept = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(kept) == 80
    assert told[0] == "1 of 4: kept, 2 connections, 7 tokens, busy, round 1"
    assert not (tmp_path / "each").exists()


# -- from end to end --------------------------------------------------------------------------------------------------

SCENARIO = """\
name: tiny
question: Does it carry its calibration?
server: {emulator: {scale: {time: 8, bytes: 512}}}
tiers: {g4: {path: TIER, capacity: 1GB}}
prompts: {lengths: [1k], output_tokens: 2}
treatments: {recompute: {cache: off}}
repeats: 1
"""


def kvbench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvbench", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def run_tiny(tmp_path: Path) -> Path:
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(SCENARIO.replace("TIER", str(tmp_path / "tier")))
    done = kvbench("run", scenario, "--results", tmp_path / "results")
    assert done.returncode in (0, 3), done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_calibrate_and_what_a_result_carries_before_and_after(tmp_path: Path) -> None:
    results = tmp_path / "results"
    before = run_tiny(tmp_path)
    assert not (before / "calibration.json").exists()
    assert client_error.not_attached("native") in kvbench("show", before).stdout
    assert json.loads(kvbench("show", before, "--json").stdout)["calibration"] is None
    written = kvbench("report", before, "--html", "--out", tmp_path / "before")
    assert written.returncode == 0, written.stderr
    assert "No calibration is attached to this result" in Path(written.stdout.strip()).read_text()

    asked = ("--driver", "native", "--connections", "2", "--prompt-tokens", "50", "--rounds", "1")
    done = kvbench("calibrate", *asked, "--results", results)
    assert done.returncode == 0, done.stderr
    assert "1 of 1: native, 2 connections, 50 tokens, round 1" in done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder.parent == results / "calibrations"
    made = read_json(folder / "calibration.json")
    (cell,) = made["cells"]
    assert (cell["driver"], cell["connections"], cell["prompt_tokens"], cell["machine"]) == ("native", 2, 50, "idle")
    assert (cell["n"], cell["failed"], cell["without_server_stamp"]) == (100, 0, 0)
    assert cell["error_s"]["p99"] is None  # of 100 rows
    assert cell["error_s"]["n"] == cell["over_server_s"]["n"] == cell["sending_s"]["n"] == 100
    assert cell["error_s"]["min"] <= cell["error_s"]["p50"] <= cell["error_s"]["p90"] <= cell["error_s"]["max"]
    assert cell["client_cpu_s"] > 0
    assert made["host_identity"] == facts.host_identity(made["facts"])
    assert len((folder / "rows.jsonl").read_text().splitlines()) == 100
    assert not (folder / "scratch").exists()

    after = run_tiny(tmp_path)
    assert after != before
    told = json.loads(kvbench("show", after, "--json").stdout)["calibration"]
    assert (told["made"], told["driver"], told["cells"]) == (made["made"], "native", [cell])
    assert told["age_s"] > 0
    assert "native, 2 connections, the nearest to 1): max" in " ".join(kvbench("show", after).stdout.split())
    written = kvbench("report", after, "--html", "--out", tmp_path / "after")
    page = Path(written.stdout.strip()).read_text()
    assert "No calibration" not in page
    assert "Client error (calibrated" in page
    assert "n=100 &lt; 299" in page


def test_json_is_all_that_is_on_stdout(tmp_path: Path) -> None:
    asked = ("--connections", "25", "--prompt-tokens", "50", "--rounds", "1", "--json", "--results", tmp_path)
    done = kvbench("calibrate", *asked)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["cells"][0]["n"] == 250
    assert (Path(made["folder"]) / "calibration.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--driver", "wrk"], 2, "'wrk' is not one of"),
        (["--connections", "0"], 2, "drives 1 to 900 connections, not 0"),
        (["--prompt-tokens", "many"], 2, "is not a count"),
        (["--rounds", "0"], 2, "rounds"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    done = kvbench("calibrate", *arguments, "--results", tmp_path / "results")
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in " ".join(done.stderr.split())
    assert not (tmp_path / "results").exists()


def test_a_driver_that_is_not_installed_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVBENCH_AIPERF", str(tmp_path / "nowhere"))
    with pytest.raises(DriverError) as caught:
        calibrate.calibrate(["native", "aiperf"], calibrate.Settings(), tmp_path / "results", lambda _: None)
    assert "nowhere" in caught.value.message
    assert caught.value.remedy
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("error_s", "notes"), [(None, []), (0.0499, []), (0.0501, ["note"])])
def test_an_error_above_5_percent_of_the_smallest_median_ttft_is_only_noted(
    error_s: float | None, notes: list[str]
) -> None:
    rows = [row(number, ttft_s=ttft_s, isl_target=isl) for number, (ttft_s, isl) in enumerate([(1.0, 1), (9.0, 2)])]
    judged = judge_run(honest_run().record, frame_of(rows), Expected(2, 8, client_error_s=error_s))
    found = [reason for reason in judged.reasons if "calibrated error" in reason.text]
    assert [reason.level for reason in found] == notes
