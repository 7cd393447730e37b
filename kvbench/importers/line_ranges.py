"""Reads a large file in ranges, on all processors, with the memory of a few ranges.

A range is a few MB. A worker process reads its range itself, so only what it made of it travels back. Workers are
started anew and hear of their parent by a pipe: when the parent dies, however it dies, the pipe ends and so do they.
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from kvbench.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

RANGE_BYTES = 8 * 1024 * 1024
_FEW_RANGES = 6  # below this the start of processes costs more than it saves
_T = TypeVar("_T")
_Task = TypeVar("_Task")


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
    return map_tasks(partial(_work_on, work, path), ranges(path), path.stat().st_size)


def _work_on(work: Callable[[bytes], _T], path: Path, lines: Range) -> _T:
    with path.open("rb") as file:
        return work(lines.read(file))


def map_tasks(work: Callable[[_Task], _T], tasks: Iterable[_Task], size_bytes: int) -> Iterator[tuple[_Task, _T]]:
    """Give each task with what `work` makes of it, in order; in several processes where all of it is large.

    Both can be pickled. A task is small: it names a range and does not hold it, because a worker takes a task only when
    its result before that was taken.

    Raises:
        ResultError: a worker process ended.

    """
    processors = len(os.sched_getaffinity(0))
    if processors < 2 or size_bytes < _FEW_RANGES * RANGE_BYTES:
        for one in tasks:
            yield one, work(one)
        return
    yield from _map_in_processes(work, tasks, processors)


def _map_in_processes(
    work: Callable[[_Task], _T], tasks: Iterable[_Task], processors: int
) -> Iterator[tuple[_Task, _T]]:
    """Deal the tasks to the workers in turn; each has one in hand and one waiting."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for _ in range(processors):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        workers.append((process, ours))
    try:
        waiting: list[tuple[_Task, Connection]] = []
        for number, one in enumerate(tasks):
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


def _ask(pipe: Connection, task: Any) -> None:
    try:
        pipe.send(task)
    except OSError:
        raise _ended() from None


def _take(task: _Task, pipe: Connection) -> tuple[_Task, Any]:
    try:
        made = pipe.recv()
    except (EOFError, OSError):
        raise _ended() from None
    return task, made


def _ended() -> ResultError:
    return ResultError("a process that read the export ended", "Free some memory, then import again.")


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """Answer tasks until the parent closes its end."""
    while True:
        try:
            pipe.send(work(pipe.recv()))
        except (EOFError, OSError):
            return
