"""fio as a generator: its command lines, and how its last document is read.

`rate=` is per job, and fio reads suffixes as binary: plain bytes are passed, divided by the jobs. `thread=1` keeps all
jobs in one process, so that no forked job lives on alone. The files are laid out before the barrier and removed by the
agent, not by `unlink=1`: they serve several starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.lenient_json import items
from kvbench.scenario.neighbors import FioJob
from kvbench.testbed.neighbors.generator import Generator, Layout, Start, Work, missing

if TYPE_CHECKING:
    from kvbench.result.run_record import Resource
    from kvbench.testbed.neighbors.agent_event import AgentEvent
    from kvbench.typed_json import JsonObject

_STOPPED = 128  # fio's exit code after SIGINT
_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}


def layout_command(job: FioJob) -> list[str]:
    """Return the command that makes the files and moves nothing else; the agent puts the folder in."""
    return [*_files(job), "--create_only=1", *(["--overwrite=1"] if job.writes else []), *_QUIET]


def run_command(job: FioJob, rate_bytes_per_s: float | None, max_runtime_s: float, status_s: float) -> list[str]:
    """Return the command that loads the laid-out files until it is told to stop, at a rate of all jobs together."""
    return [
        *_files(job),
        f"--ioengine={job.engine}",
        f"--direct={job.direct:d}",
        f"--iodepth={job.iodepth}",
        "--allow_file_create=0",
        *(["--overwrite=1"] if job.writes else ["--readonly"]),
        *([f"--rwmixread={round(job.read_share * 100)}"] if job.rw in ("rw", "randrw") else []),
        *([] if job.ionice is None else [f"--prioclass={_CLASSES[job.ionice]}"]),
        *(f"--{name}={value}" for name, value in sorted(job.options.items())),
        *_rate(job, rate_bytes_per_s),
        "--time_based",
        f"--runtime={int(max_runtime_s) + 60}",  # the agent ends it before
        "--group_reporting=1",
        f"--status-interval={round(status_s * 1000)}ms",
        *_QUIET,
    ]


def outcome(final: AgentEvent) -> JsonObject:
    """Return what a `final` event of the agent says: {"error": sentence or None, "bytes": ..., ...}."""
    document = final.get("document") or {}
    jobs = items(document.get("jobs"))
    error = next((job["error"] for job in jobs if job.get("error")), 0)
    sentence = None
    if error == 28 or "No space left" in final.get("output", ""):
        sentence = "its target filled up"
    elif error:
        sentence = f"fio failed with error {error}"
    elif final["why"] == "itself":
        sentence = f"fio ended by itself with exit code {final['code']}: {_last_line(final)}"
    elif final["code"] not in (_STOPPED, 0, None):
        sentence = f"fio did not stop when asked (exit code {final['code']})"
    return {
        "error": sentence,
        "version": document.get("fio version"),
        "bytes": sum(job[way]["io_bytes"] for job in jobs for way in ("read", "write")),
        "ionice": _stated_class(jobs),
        "clat_ns": {way: _latency(jobs, way) for way in ("read", "write")},
    }


_QUIET = ("--thread=1", "--eta=never", "--output-format=json")


def _files(job: FioJob) -> list[str]:
    return [
        "fio",
        "--name=kvbench",
        "--directory={folder}",
        "--filename_format=neighbour.$jobnum",
        f"--rw={job.rw}",
        f"--bs={job.block_size}",
        f"--size={job.size}",
        f"--numjobs={job.numjobs}",
    ]


def _rate(job: FioJob, rate_bytes_per_s: float | None) -> list[str]:
    """Return the rate option; reads and writes of a mixed job have a cap each."""
    if rate_bytes_per_s is None:
        return []
    each = rate_bytes_per_s / job.numjobs
    if job.rw not in ("rw", "randrw"):
        return [f"--rate={max(1, round(each))}"]
    read = round(each * job.read_share)
    return [f"--rate={max(1, read)},{max(1, round(each) - read)}"]


def _latency(jobs: list[Any], way: str) -> JsonObject | None:
    """Return the completion latency of the group: only with one reported group, as ours is, can it be said."""
    if len(jobs) != 1 or not jobs[0][way].get("total_ios"):
        return None
    clat = jobs[0][way]["clat_ns"]
    percentiles = clat.get("percentile", {})
    return {"mean": clat["mean"], **{f"p{float(name):g}": value for name, value in percentiles.items()}}


def _stated_class(jobs: list[Any]) -> str | None:
    """Return the I/O class that fio says it ran in, None where none was asked for."""
    said = {job.get("job options", {}).get("prioclass") for job in jobs}
    return next((name for name, code in _CLASSES.items() if said == {str(code)}), None)


def _last_line(final: AgentEvent) -> str:
    lines = [line.strip() for line in str(final.get("output", "")).splitlines() if line.strip()]
    return (lines or ["it said nothing"])[-1]


def _preflight(_job: FioJob, hello: JsonObject) -> tuple[str, str] | None:
    if finding := missing("fio", hello):
        return finding
    return None if str(hello["fio"]).startswith("fio-3.") else (f"{hello['fio']} is not fio 3", "Install fio 3 there.")


def _layout(job: FioJob) -> Layout:
    return Layout(layout_command(job), job.layout_bytes, job.direct)


def _start(job: FioJob, start: Start) -> Work:
    return Work(run_command(job, start.rate_bytes_per_s, start.max_runtime_s, start.sample_s), "fio")


def _passes(job: FioJob) -> tuple[Resource, ...]:
    return ("disk", "link") if job.rw in ("read", "randread") else ()


GENERATOR = Generator("fio", FioJob, _start, outcome, _preflight, layout=_layout, passes=_passes)
