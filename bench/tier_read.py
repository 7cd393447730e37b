"""How close the emulator's tier reads come to what fio gets from the same file system.

Both read the same files with O_DIRECT, each file in one call, on the same number of threads. They take turns, first one
and then the other, each after the same rest: a disk that is rationed saves up credit while it idles, and whoever reads
second finds the caches below the file system warmer. The goal is a ratio of at least 0.85.

    python bench/tier_read.py [DIRECTORY] [--files 256] [--threads 8] [--repeats 15]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.direct_io import Access, probe
from kvbench.emulator.file_io import ThreadedFiles
from kvbench.emulator.files import SUFFIX, Geometry
from kvbench.emulator.tier_file import FileRead, TierFile
from kvbench.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK_BYTES = 2304
GOAL = 0.85
REST_S = 0.5


def write_files(directory: Path, geometry: Geometry, count: int) -> list[TierFile]:
    """Write full tier files of random blocks."""
    hashes = [os.urandom(geometry.blocks_per_file * HASH_BYTES) for _ in range(count)]
    files = [TierFile(value, geometry.max_file_bytes) for value in hashes]

    async def write() -> None:
        loop, left = asyncio.get_running_loop(), asyncio.Semaphore(0)
        io = ThreadedFiles(directory, geometry, Access.DIRECT, loop.call_soon_threadsafe)
        for file in files:
            io.write(file, lambda _file, error: left.release() if error is None else sys.exit(error))
        for _ in files:
            await left.acquire()
        io.close()

    asyncio.run(write())
    return files


def tier_rate(directory: Path, geometry: Geometry, files: list[TierFile], threads: int, batch: int) -> float:
    """Read all files, `batch` at a time as a prompt does, and return bytes per second."""

    async def read() -> float:
        loop = asyncio.get_running_loop()
        io = ThreadedFiles(directory, geometry, Access.DIRECT, loop.call_soon_threadsafe, threads)
        started_s, total = time.perf_counter(), 0
        for at in range(0, len(files), batch):
            done: asyncio.Future[Sequence[FileRead]] = loop.create_future()
            io.read(files[at : at + batch], done.set_result)
            reads = await done
            if bad := [read.bad for read in reads if read.bad]:
                sys.exit(f"a file is bad: {bad[0]}")
            total += sum(read.read_bytes for read in reads)
        seconds = time.perf_counter() - started_s
        io.close()
        return total / seconds

    return asyncio.run(read())


def fio_rate(directory: Path, chunk_bytes: int, names: list[str], threads: int) -> float:
    """Let fio read the same files, each thread its share of them, and return bytes per second."""
    options = ["rw=read", "direct=1", "ioengine=psync", f"bs={chunk_bytes}", "thread", "group_reporting"]
    lines = ["[global]", *options, "file_service_type=sequential", "openfiles=1", f"directory={directory}"]
    for thread in range(threads):
        share = names[thread::threads]
        lines += [f"[t{thread}]", f"filename={':'.join(share)}", f"size={len(share) * chunk_bytes}"]
    job = directory / "read.fio"
    job.write_text("\n".join(lines) + "\n")
    command = ["fio", str(job), "--output-format=json", "--eta=never", "--readonly"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.JSONDecoder().raw_decode(text, text.index("{"))[0]["jobs"][0]["read"]
    if report["io_bytes"] != len(names) * chunk_bytes:
        sys.exit(f"fio read {report['io_bytes']} bytes and not {len(names) * chunk_bytes}")
    return float(report["bw_bytes"])


def short_names(directory: Path, files: list[TierFile]) -> list[str]:
    """Link the files under numbers, because fio takes no more than 4 kB of names a job."""
    for number, file in enumerate(files):
        (directory / str(number)).hardlink_to(directory / f"{file.key.hex()}{SUFFIX}")
    return [str(number) for number in range(len(files))]


def spread(values: list[float], scale: float = 1.0) -> str:
    """Return median [min-max]."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle / scale:.2f} [{low / scale:.2f}-{high / scale:.2f}]"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path(), help="on the file system to be measured")
    parser.add_argument("--json", type=Path, help="write the rates of every repeat there")
    parser.add_argument("--files", type=int, default=256)
    parser.add_argument("--batch", type=int, default=0, help="files per load; 0: all at once")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--payload", type=parse_size, default=1024 * 1024, help="bytes of KV in a file")
    return parser.parse_args()


def main() -> int:
    """Measure, print a table, and return 0 if the goal is met."""
    given = parse()
    if shutil.which("fio") is None:
        print("fio is not installed, so there is nothing to compare with: apt-get install fio")
        return 1
    geometry = Geometry.for_payload(BLOCK_BYTES, given.payload)
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        directory = Path(folder)
        found = probe(directory)
        files = write_files(directory, geometry, given.files)
        names = short_names(directory, files)
        batch, size = given.batch or given.files, geometry.max_file_bytes
        turns = {
            "ours": lambda: tier_rate(directory, geometry, files, given.threads, batch),
            "fio": lambda: fio_rate(directory, size, names, given.threads),
        }
        rates: dict[str, list[float]] = {"ours": [], "fio": []}
        for repeat in range(given.repeats):
            for name in sorted(turns, reverse=bool(repeat % 2)):
                time.sleep(REST_S)
                rates[name].append(turns[name]())
    ratios = [a / b for a, b in zip(rates["ours"], rates["fio"], strict=True)]
    print(f"{given.files} files of {geometry.max_file_bytes} B on {found.filesystem}, O_DIRECT {found.status},")
    print(f"{given.threads} threads, {given.repeats} interleaved repeats; median [min-max]")
    print(f"  tier reads       {spread(rates['ours'], 1e9)} GB/s")
    print(f"  fio psync        {spread(rates['fio'], 1e9)} GB/s")
    print(f"  ratio            {spread(ratios)}   (goal: at least {GOAL})")
    met = statistics.median(ratios) >= GOAL
    print(f"goal: {'met' if met else 'missed'}")
    if given.json:
        figure = {
            "figure": f"emulator's tier reads over fio, {given.threads} threads, O_DIRECT",
            "measured": f"{spread(ratios)}, n = {len(ratios)}",
            "goal": f">= {GOAL}",
            "met": met,
        }
        given.json.write_text(json.dumps({"figures": [figure], "bytes_per_s": rates}) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
