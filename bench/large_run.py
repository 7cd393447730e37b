"""Measures what a run of many requests costs `kvbench run` itself: time and peak memory of each part, at several sizes.

    python bench/large_run.py --requests 10000 100000 1000000

`plan` lays out a scenario of one run and writes plan.json and draws.parquet. `journal` appends a row for each request,
as the run client does, and adds it to the run's sums. `seal` turns the journal into requests.parquet with a tier for
each row. `answers` compares all answers with those of another run. Each part is a process of its own; `grown` is its
peak above what it took before it began.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kvbench.experiment.run_client import make_row
from kvbench.experiment.run_ledger import RunSums, answer_tier_tokens, close_ledger, judge_by_ledger
from kvbench.experiment.tier_proof import Blocks
from kvbench.result import answers
from kvbench.result.draw_file import write_draws
from kvbench.result.folder import RunFolder
from kvbench.result.record_files import write_plan
from kvbench.result.records import Response
from kvbench.result.run_record import CacheRecord, DriverRecord, RunRecord, ServerRecord
from kvbench.scenario import plan
from kvbench.scenario.scenario import Scenario
from kvbench.testbed.servers.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.typed_json import JsonObject

RUN = "r01-off"
PROMPTS = 1000
BLOCKS = Blocks(16, 73_728.0, "g4")


def main() -> None:
    """Measure every part at every size and print a table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--requests", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.part is not None:
        print(json.dumps(measured(PARTS[asked.part], asked.folder, asked.requests[0])))
        return
    print(f"{'requests':>10} {'part':10} {'seconds':>8} {'CPU s':>8} {'peak MB':>8} {'grown MB':>9}")
    for requests in asked.requests:
        with tempfile.TemporaryDirectory(prefix="kvbench-large-") as folder:
            for part in PARTS:
                command = [sys.executable, __file__, "--part", part, "--folder", folder, "--requests", str(requests)]
                found = Cost(*json.loads(subprocess.check_output(command)))
                figures = f"{found.seconds:>8.1f} {found.cpu_s:>8.1f} {found.peak_mb:>8.0f} {found.grown_mb:>9.0f}"
                print(f"{requests:>10,} {part:10} {figures}", flush=True)
            for path in sorted(Path(folder).glob("**/*.*")):
                if path.is_file():
                    print(f"{'':10} {path.name:24} {path.stat().st_size / 1e6:>10.2f} MB")


class Cost(NamedTuple):
    """What a part takes: wall time, processor time, the peak of memory, and what of it was not there before."""

    seconds: float
    cpu_s: float
    peak_mb: float
    grown_mb: float


def measured(part: Callable[[Path, int], None], folder: Path, requests: int) -> Cost:
    """Return what a part takes in this process; pyarrow is loaded before, which takes 90 MB at any size."""
    import pyarrow.parquet  # noqa: F401, PLC0415

    before_mb, started_s, started_cpu_s = peak_mb(), time.monotonic(), time.process_time()
    part(folder, requests)
    return Cost(time.monotonic() - started_s, time.process_time() - started_cpu_s, peak_mb(), peak_mb() - before_mb)


def peak_mb() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def laid_out(requests: int) -> plan.Plan:
    """Return the plan of one run that draws so many requests from a small pool."""
    scenario = Scenario.model_validate(
        {
            "name": "large",
            "question": "What does it cost?",
            "server": {"emulator": {"scale": {"time": 8, "bytes": 512}}},
            "tiers": {"g1": "1GB"},
            "prompts": {"lengths": [1000, 4000], "per_length": PROMPTS // 2},
            "load": {"requests": requests, "draw": "zipf", "concurrency": 28},
            "treatments": {"off": {"cache": "off"}},
            "repeats": 1,
        }
    )
    return plan.expand(scenario)


def make_plan(folder: Path, requests: int) -> None:
    """Lay out and write the plan."""
    made = laid_out(requests)
    write_draws(folder, made.draw_rows())
    write_plan(folder, made.record())


def keep_journal(folder: Path, requests: int) -> None:
    """Keep a row of each request, and the sums of all."""
    spec, sums = laid_out(requests).runs[0], RunSums(BLOCKS, None, warm=False)
    run = RunFolder(folder / "runs" / RUN, 1)
    run.path.mkdir(parents=True)
    with contextlib.closing(run.open_journal()) as journal:
        for number, draw in enumerate(spec.draws):
            response = _response(draw, number)
            journal.append(make_row(spec, 1, draw, "measure", response, "native"), answer_tier_tokens(response))
            sums.add(draw, response)
    (folder / "sums.json").write_text(json.dumps([sums.prompt_tokens, sums.known_cached_tokens]))


def _response(draw: plan.Draw, number: int) -> Response:
    sent_ns = 1_760_000_000_000_000_000 + number * 1_000_000
    cached = BLOCKS.cacheable(draw.isl_target)
    told: JsonObject = {"tier_tokens": {"g4": cached}, "storage_s": 0.01, "overrun_s": 0.0, "path_s": 0.01}
    return Response(
        draw.request_id,
        "ok",
        scheduled_ns=sent_ns,
        sent_ns=sent_ns,
        first_token_ns=sent_ns + 50_000_000,
        first_content_ns=sent_ns + 50_000_000,
        last_token_ns=sent_ns + 90_000_000,
        ttft_bound="exact",
        receive_lag_s=2e-5,
        isl=draw.isl_target,
        osl=8,
        cached_tokens=cached,
        http_status=200,
        text=draw.prompt_id,
        server=told,
    )


def seal(folder: Path, _requests: int) -> None:
    """Seal the run, each tier decided by its ledger."""
    prompt_tokens, cached = json.loads((folder / "sums.json").read_text())
    delta = Counters(
        local_hits=0.0,
        external_hits=cached,
        computed_tokens=prompt_tokens - cached,
        read_bytes={"g4": cached * 73_728.0},
    )
    sums = RunSums(BLOCKS, None, warm=False, prompt_tokens=prompt_tokens, known_cached_tokens=cached, requests=1)
    ledger = close_ledger(sums, delta)
    record = RunRecord(
        RUN, "off", 1, None, 1.0, CacheRecord("off"), ledger, None, DriverRecord("native"), ServerRecord(None, None)
    )
    run = RunFolder(folder / "runs" / RUN, 1)
    run.seal(record, lambda row, tier_tokens: judge_by_ledger(BLOCKS, row, tier_tokens, ledger, delta))


def compare_answers(folder: Path, _requests: int) -> None:
    """Compare the answers of the run with the first to each prompt."""
    answers.settle_answers(folder / "runs", [RUN])


PARTS: dict[str, Callable[[Path, int], None]] = {
    "plan": make_plan,
    "journal": keep_journal,
    "seal": seal,
    "answers": compare_answers,
}

if __name__ == "__main__":
    main()
