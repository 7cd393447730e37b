"""Importing, showing and reporting results of very many requests: seconds and peak memory of each step.

    python bench/large_result.py --rows 1000000 --folder DIR      # needs 25 GB there

The data are made first, in the forms that the tools write: vLLM's detailed result, AIPerf's records and its raw export,
and a report of GuideLLM, from samples under tests/data; and a result of kvbench's own kind: 6 runs, 2 treatments, 4
prompt lengths. Each step is the `kvbench` command, or its own function, in a process of its own. What `kvbench run`
does with its plan and its rows is measured by the parts of `large_run.py`.

`CPU s` is the processor time of the process and its workers. `peak GB` is that process's largest resident set (VmHWM),
or the largest sum of the proportional set sizes of it and its workers at one time, if that is more. The source is
copied into the result and flushed to the disk, so a slow disk shows in the seconds. On a busy machine the seconds say
little; the processor seconds say what it costs.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from made_result import make_result
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS, SMALL_ROWS = 1_000_000, 10_000
GB, MB = 1e9, 1e6
SAMPLE_S = 0.05
MOST_PAGE_MB = 3.0
OWN, IMPORTED = "own-kind", "import-vllm"


@dataclass(frozen=True)
class Step:
    """One thing to measure; goals are for 1,000,000 rows and hold for fewer rows as they are."""

    name: str
    command: tuple[str, ...]
    input_bytes: int = 0
    goal_s: float | None = None
    goal_gb: float | None = None
    goal_mb_s: float | None = None
    page: Path | None = None


@dataclass(frozen=True)
class Measured:
    """What one step took; `cpu_s` is of the process and its workers, `page_mb` the size of the page that it wrote."""

    step: Step
    seconds: float
    cpu_s: float
    peak_gb: float
    written_gb: float
    code: int
    page_mb: float | None = None

    @property
    def goal(self) -> str | None:
        """The goal in words."""
        parts = [f"<= {self.step.goal_s:g} s" if self.step.goal_s else None]
        parts += [f">= {self.step.goal_mb_s:g} MB/s" if self.step.goal_mb_s else None]
        parts += [f"<= {self.step.goal_gb:g} GB" if self.step.goal_gb else None]
        parts += [f"page <= {MOST_PAGE_MB:g} MB" if self.step.page else None]
        return ", ".join(filter(None, parts)) or None

    @property
    def met(self) -> bool | None:
        """Whether every goal was met; None where there is none."""
        if self.goal is None:
            return None
        fast = self.step.goal_s is None or self.seconds <= self.step.goal_s
        steady = self.step.goal_mb_s is None or self.rate_mb_s >= self.step.goal_mb_s
        small = self.step.goal_gb is None or self.peak_gb <= self.step.goal_gb
        is_light = self.step.page is None or (self.page_mb is not None and self.page_mb <= MOST_PAGE_MB)
        return self.code in (0, 3) and fast and steady and small and is_light

    @property
    def rate_mb_s(self) -> float:
        """Input bytes a second."""
        return self.step.input_bytes / MB / self.seconds


def main() -> int:
    """Print the table, and JSON if asked; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=SMALL_ROWS, help=f"the goals are for {ROWS:,}")
    parser.add_argument("--folder", type=Path, help="where data and results go; kept if it is named")
    parser.add_argument("--only", default="", help="names of steps that contain this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        steps = [step for step in all_steps(folder, options.rows, options.only) if options.only in step.name]
        measured = [show_and_measure(step) for step in steps]
    Console(width=130).print(table(measured, options.rows))
    if options.json:
        figures = [figure_of(one, options.rows) for one in measured]
        steps_taken = [asdict(one) for one in measured]
        options.json.write_text(
            json.dumps({"figures": figures, "rows": options.rows, "steps": steps_taken}, default=str) + "\n"
        )
    return 1 if any(one.met is False for one in measured) else 0


def all_steps(folder: Path, rows: int, only: str) -> list[Step]:
    """Return the steps in their order, with their data made."""
    return [*import_steps(folder, rows, only), *show_steps(folder, rows, only), *run_steps(folder, rows, only)]


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """What a tool writes of its load, how it is made here, and the goals of its import."""

    name: str
    tool: str
    file: str
    make: Callable[[Path, int], None]
    goal_s: float | None = None
    goal_gb: float | None = None
    goal_mb_s: float | None = None


def import_steps(folder: Path, rows: int, only: str) -> list[Step]:
    """Make the exports and return the imports."""
    exports = [
        Export("import vllm", "vllm", "vllm.json", make_vllm, goal_s=10, goal_gb=1),
        Export("import aiperf records", "aiperf", "told/profile_export.jsonl", make_records, goal_s=30, goal_gb=0.5),
        Export("import aiperf raw", "aiperf", "raw/profile_export_raw.jsonl", make_raw, goal_mb_s=100, goal_gb=0.5),
        Export("import guidellm", "guidellm", "guidellm.json", make_guidellm, goal_mb_s=100, goal_gb=0.5),
    ]
    steps = []
    for export in exports:
        if only not in export.name:
            continue
        path = folder / "exports" / export.file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            export.make(path, rows)
        arguments = (export.tool, str(path), str(folder / "results"), export.name.replace(" ", "-"))
        steps.append(
            Step(
                export.name,
                (sys.executable, "-c", IMPORT, *arguments),
                path.stat().st_size,
                goal_s=export.goal_s,
                goal_gb=export.goal_gb,
                goal_mb_s=export.goal_mb_s if rows >= ROWS else None,  # a start takes 1 s
            )
        )
    return steps


IMPORT = """
import sys
from pathlib import Path
from kvbench.importers.write_result import import_result
if __name__ == "__main__":
    tool, path, results, name = sys.argv[1:]
    print(import_result(tool, Path(path), Path(results), name))
"""


def show_steps(folder: Path, rows: int, only: str) -> list[Step]:
    """Return the commands that read a result: an imported one, and one of kvbench's own kind, which is made here."""
    results, out = folder / "results", folder / "reports"
    steps = []
    for name, kind in ((IMPORTED, "imported"), (OWN, "own")):
        for verb in ("show", "report"):
            step = f"{verb} {kind}"
            if only not in step:
                continue
            if name == OWN and not (results / OWN).exists():
                make_result(results, OWN, rows)
            page = out / f"{name}.html" if verb == "report" else None
            options = ("--results", str(results), *(("--out", str(out)) if page else ()))
            command = (sys.executable, "-m", "kvbench", verb, name, *options)
            steps.append(Step(step, command, goal_s=10, goal_gb=1, page=page))
    return steps


def run_steps(folder: Path, rows: int, only: str) -> list[Step]:
    """Return the parts of a run that grow with its requests; each works on what the one before it left."""
    script = str(Path(__file__).with_name("large_run.py"))
    arguments = ("--folder", str(folder / "run"), "--requests", str(rows))
    names = [part for part in ("plan", "journal", "seal", "answers") if only in f"run {part}"]
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return [Step(f"run {part}", (sys.executable, script, "--part", part, *arguments), goal_gb=0.5) for part in names]


def make_vllm(path: Path, rows: int) -> None:
    """Write a result of `vllm bench serve --save-detailed`, list by list."""
    draw = random.Random(1)  # noqa: S311 - made-up times
    lists: dict[str, Callable[[], Any]] = {
        "input_lens": lambda: draw.randrange(1000, 1010),
        "output_lens": lambda: 2,
        "ttfts": lambda: draw.uniform(0.1, 0.3),
        "itls": lambda: [draw.uniform(0.01, 0.02)],
        "generated_texts": lambda: "",
        "errors": lambda: "",
    }
    head = {"backend": "openai", "model_id": "m", "request_rate": "inf", "max_concurrency": 32, "completed": rows}
    with path.open("w") as file:
        file.write(json.dumps(head | {"duration": rows / 100})[:-1])
        for name, value in lists.items():
            file.write(f', "{name}": [' + ", ".join(json.dumps(value()) for _ in range(rows)) + "]")
        file.write("}")


SAMPLE_RECORDS = Path("tests/data/aiperf/two_phases")


def make_records(path: Path, rows: int) -> None:
    """Write AIPerf's records from one that it wrote itself, with a list of gaps that makes it 4.1 KB long."""
    record = json.loads((SAMPLE_RECORDS / "profile_export.jsonl").read_text().splitlines()[-1])
    record["metrics"]["inter_chunk_latency"]["value"] = [10.060165, 9.876981, 9.98291, 10.005247] * 44
    write_records(path, rows, record)


def make_raw(path: Path, rows: int) -> None:
    """Write AIPerf's raw export from a record that it wrote itself."""
    record = json.loads((SAMPLE_RECORDS / "profile_export_raw.jsonl").read_text().splitlines()[-1])
    write_records(path, rows, record)


def write_records(path: Path, rows: int, record: dict[str, Any]) -> None:
    """Write one record again and again; identifier, conversation and time of sending differ."""
    told = record["metadata"]
    told["x_request_id"], told["conversation_id"], told["request_start_ns"] = "ID-OF-IT", "CONVERSATION", 123456789
    told["credit_issued_ns"] = 123456788
    before, rest = json.dumps(record, separators=(",", ":")).split("ID-OF-IT", 1)
    middle, rest = rest.split("CONVERSATION", 1)
    after, rest = rest.split("123456788", 1)
    between, end = rest.split("123456789", 1)
    with path.open("w", buffering=1 << 22) as file:
        for number in range(rows):
            sent_ns = 1_795_305_029_000_000_000 + number * 10_000_000
            name, session = f"a5f19842-afb5-4f0e-afb1-{number:012d}", f"session_{number % 1000:06d}"
            file.write(f"{before}{name}{middle}{session}{after}{sent_ns - 9}{between}{sent_ns}{end}\n")


def make_guidellm(path: Path, rows: int) -> None:
    """Write a report of GuideLLM from one that it wrote itself, its first request again and again."""
    report = json.loads(Path("tests/data/guidellm/two_rates.json").read_text())
    benchmark = report["benchmarks"][0]
    report["benchmarks"] = [benchmark]
    request = json.dumps(benchmark["requests"]["successful"][0])
    benchmark["requests"] = {"successful": ["ALL"], "errored": [], "incomplete": []}
    benchmark["scheduler_metrics"]["requests_made"]["total"] = rows
    head, tail = json.dumps(report).split('"ALL"')
    with path.open("w", buffering=1 << 22) as file:
        file.write(head + request)
        for _ in range(rows - 1):
            file.write(",\n" + request)
        file.write(tail)


# -- measuring ---------------------------------------------------------------------------------------------------------


def show_and_measure(step: Step) -> Measured:
    """Measure a step and say so at once."""
    measured = measure(step)
    told = f"{measured.seconds:.1f} s, {measured.cpu_s:.1f} CPU s, peak {measured.peak_gb:.2f} GB"
    print(f"{step.name}: {told}", flush=True)
    return measured


def measure(step: Step) -> Measured:
    """Run a step in a process of its own; sample it and its workers while it runs."""
    started, cpu_before_s = time.perf_counter(), children_cpu_s()
    process = psutil.Popen(list(step.command), stdout=subprocess.DEVNULL)
    peak_bytes, written = 0, 0
    while process.poll() is None:
        seen = [usage for one in family(process) if (usage := usage_of(one)) is not None]
        peak_bytes = max(peak_bytes, sum(usage.own_bytes for usage in seen), *(usage.peak_bytes for usage in seen[:1]))
        written = max(written, sum(usage.written_bytes for usage in seen))
        time.sleep(SAMPLE_S)
    seconds = time.perf_counter() - started
    page_mb = step.page.stat().st_size / MB if step.page is not None and step.page.exists() else None
    cpu_s = children_cpu_s() - cpu_before_s
    return Measured(step, seconds, cpu_s, peak_bytes / GB, written / GB, process.returncode, page_mb)


def children_cpu_s() -> float:
    """Return the processor time of all processes that were started here and have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def family(process: psutil.Process) -> Iterator[psutil.Process]:
    """Give a process and those that it started and that live."""
    yield process
    try:
        yield from process.children(recursive=True)
    except psutil.NoSuchProcess:
        return


@dataclass(frozen=True)
class Usage:
    """What one process has used up to now; `own_bytes` is its proportional set size at this moment."""

    peak_bytes: int
    own_bytes: int
    written_bytes: int


def usage_of(process: psutil.Process) -> Usage | None:
    """Look at a process; None if it has just ended."""
    try:
        peak_bytes = kilobytes(Path(f"/proc/{process.pid}/status"), "VmHWM:") * 1024
        own_bytes = kilobytes(Path(f"/proc/{process.pid}/smaps_rollup"), "Pss:") * 1024
        return Usage(peak_bytes, own_bytes, process.io_counters().write_bytes)
    except (OSError, StopIteration, psutil.Error):
        return None


def kilobytes(path: Path, name: str) -> int:
    """Return one line of a file of the kernel."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name))


# -- telling -----------------------------------------------------------------------------------------------------------


def table(measured: list[Measured], rows: int) -> Table:
    """Lay out what was measured."""
    laid = Table(title=f"{rows:,} requests", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("step", "input", "seconds", "CPU s", "MB/s", "peak GB", "written GB", "page MB", "goal", "met"):
        laid.add_column(heading, justify="left" if heading in ("step", "goal", "met") else "right")
    words = {True: "yes", False: "NO", None: ""}
    for one in measured:
        size = f"{one.step.input_bytes / MB:,.0f} MB" if one.step.input_bytes else ""
        rate = f"{one.rate_mb_s:.0f}" if one.step.input_bytes else ""
        figures = (f"{one.seconds:.1f}", f"{one.cpu_s:.1f}", rate, f"{one.peak_gb:.2f}", f"{one.written_gb:.2f}")
        page = f"{one.page_mb:.1f}" if one.page_mb is not None else ""
        code = "" if one.code in (0, 3) else f" (exit code {one.code})"
        laid.add_row(one.step.name + code, size, *figures, page, one.goal or "", words[one.met])
    return laid


def figure_of(one: Measured, rows: int) -> dict[str, Any]:
    """Return a line of the table of all benchmarks."""
    told = f"{one.seconds:.1f} s, {one.cpu_s:.1f} CPU s, {one.peak_gb:.2f} GB"
    return {"figure": f"{one.step.name}, {rows:,} requests", "measured": told, "goal": one.goal, "met": one.met}


if __name__ == "__main__":
    if not SAMPLE_RECORDS.exists():
        sys.exit("run it in the repository's root")
    sys.exit(main())
