"""Reads a large file in ranges that end at line ends, on all processors, with the memory of a few ranges.

A range is a few MB. A worker process reads its range itself, so only what it made of it travels back. Workers are
started anew and hear of their parent by a pipe: when the parent dies, however it dies, the pipe ends and so do they.
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from kvbench.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

RANGE_BYTES = 8 * 1024 * 1024
_FEW_RANGES = 6  # below this the start of processes costs more than it saves
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a file, from a line's first byte to a line's end or the end of the file."""

    offset: int
    length: int

    def read(self, file: BinaryIO) -> bytes:
        """Return the bytes of the range."""
        file.seek(self.offset)
        return file.read(self.length)


def ranges(path: Path) -> Iterator[Range]:
    """Cut a file into ranges of about `RANGE_BYTES`; a longer line makes a longer range."""
    with path.open("rb") as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while offset < size:
            file.seek(min(offset + RANGE_BYTES, size))
            file.readline()
            end = min(file.tell(), size)
            yield Range(offset, end - offset)
            offset = end


def map_ranges(work: Callable[[bytes], _T], path: Path) -> Iterator[tuple[Range, _T]]:
    """Give each range of a file with what `work` makes of its bytes, in order.

    `work` is a function of a module, and what it returns can be pickled.

    Raises:
        ResultError: a worker process ended.

    """
    processors = len(os.sched_getaffinity(0))
    if processors < 2 or path.stat().st_size < _FEW_RANGES * RANGE_BYTES:
        with path.open("rb") as file:
            for one in ranges(path):
                yield one, work(one.read(file))
        return
    yield from _map_in_processes(work, path, processors)


def _map_in_processes(work: Callable[[bytes], _T], path: Path, processors: int) -> Iterator[tuple[Range, _T]]:
    """Deal the ranges to the workers in turn; each has one in hand and one waiting."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for _ in range(processors):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work, path), daemon=True)
        process.start()
        theirs.close()
        workers.append((process, ours))
    try:
        waiting: list[tuple[Range, Connection]] = []
        for number, one in enumerate(ranges(path)):
            pipe = workers[number % processors][1]
            if len(waiting) >= 2 * processors:
                yield _take(*waiting.pop(0))
            _ask(pipe, one)
            waiting.append((one, pipe))
        for one, pipe in waiting:
            yield _take(one, pipe)
    finally:
        for process, pipe in workers:
            pipe.close()
            process.terminate()
            process.join()


def _ask(pipe: Connection, lines: Range) -> None:
    try:
        pipe.send(lines)
    except OSError:
        raise _ended() from None


def _take(lines: Range, pipe: Connection) -> tuple[Range, Any]:
    try:
        made = pipe.recv()
    except (EOFError, OSError):
        raise _ended() from None
    return lines, made


def _ended() -> ResultError:
    return ResultError("a process that read the export ended", "Free some memory, then import again.")


def _serve(pipe: Connection, work: Callable[[bytes], Any], path: Path) -> None:
    """Answer ranges until the parent closes its end."""
    with path.open("rb") as file:
        while True:
            try:
                one = pipe.recv()
                pipe.send(work(one.read(file)))
            except (EOFError, OSError):
                return
