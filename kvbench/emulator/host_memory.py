"""G2: KV in buffers of host memory, copied in and out for real."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kvbench.emulator.files import payload
from kvbench.emulator.tier_file import FileRead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.emulator.files import Geometry
    from kvbench.emulator.tier_file import TierFile

COPY_THREADS = 2


class HostFiles:
    """`FileIo` on buffers. `post` runs a callback on the engine's thread, e.g. `loop.call_soon_threadsafe`.

    Onboarding copies every byte into memory that stands for the GPU's, and is timed; numpy lets the GIL go meanwhile.
    Nobody checks what comes from memory, as in real engines.
    """

    def __init__(self, geometry: Geometry, post: Callable[..., object]) -> None:
        """Hold nothing yet; memory is taken with each file and given back when it is removed."""
        self._geometry = geometry
        self._post = post
        self._buffers: dict[bytes, np.ndarray] = {}
        self._readers = ThreadPoolExecutor(COPY_THREADS, "host-read")
        self._writers = ThreadPoolExecutor(1, "host-write")
        self._own = threading.local()

    def read(self, files: Sequence[TierFile], done: Callable[[Sequence[FileRead]], None]) -> None:
        """Copy all files to the GPU's side, one after another."""
        self._readers.submit(self._read_all, list(files), partial(self._post, done), time.monotonic())

    def _read_all(
        self, files: Sequence[TierFile], done: Callable[[Sequence[FileRead]], object], started_s: float
    ) -> None:
        reads = []
        for file in files:
            buffer = self._buffers.get(file.key)
            if buffer is None or buffer.nbytes < file.size_bytes:
                reads.append(FileRead(file, "missing", 0, started_s, time.monotonic()))
                continue
            reads.append(self._copy_out(file, buffer, started_s))
        done(reads)

    def _copy_out(self, file: TierFile, buffer: np.ndarray, started_s: float) -> FileRead:
        try:
            np.copyto(self._staging()[: file.size_bytes], buffer[: file.size_bytes])
        except MemoryError:  # a copy that could not be made is no hit
            return FileRead(file, "io_error", 0, started_s, time.monotonic())
        return FileRead(file, None, file.size_bytes, started_s, time.monotonic())

    def _staging(self) -> np.ndarray:
        """Return this thread's own stand-in for GPU memory, touched once so that no copy waits for new pages."""
        if not hasattr(self._own, "staging"):
            self._own.staging = np.ones(self._geometry.max_file_bytes, np.uint8)
        staging: np.ndarray = self._own.staging
        return staging

    def write(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        """Copy a file in, from the GPU's side."""
        self._writers.submit(self._write_one, file, done)

    def _write_one(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        try:
            self._buffers[file.key] = np.frombuffer(payload(file.hashes, self._geometry.block_bytes), np.uint8)
        except MemoryError:  # the host is full: without a word the file would be pending for ever
            self._post(done, file, "no_space")
            return
        self._post(done, file, None)

    def remove(self, file: TierFile) -> None:
        """Give the memory of a file back."""
        self._buffers.pop(file.key, None)

    def content(self, file: TierFile) -> memoryview | str:
        """Return the KV of a file; it stays whole even if the file is removed meanwhile."""
        buffer = self._buffers.get(file.key)
        return "missing" if buffer is None else buffer.data

    def close(self) -> None:
        """Wait for what is queued and stop the threads."""
        self._readers.shutdown()
        self._writers.shutdown()
