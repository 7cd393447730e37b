"""G2 where the host has no memory left: a copy that cannot be made is told, and nothing waits for it for ever."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kvbench.emulator import host_memory
from kvbench.emulator.counts import BAD_FILE_REASONS, WRITE_ERROR_REASONS
from kvbench.emulator.files import Geometry
from kvbench.emulator.tier_file import TierFile
from tests.builders.hashing import hash_prompt
from tests.builders.patience import PATIENCE_S
from tests.builders.virtual_world import words

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES, BLOCKS = 144 * 16, 4
GEOMETRY = Geometry(BLOCK_BYTES, BLOCKS, bare=True)
FILE = TierFile(hash_prompt(words(16 * BLOCKS), b"root").chain, BLOCKS * BLOCK_BYTES)


def no_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError


@pytest.fixture
def told() -> queue.Queue[tuple[Any, ...]]:
    return queue.Queue()


@pytest.fixture
def host(told: queue.Queue[tuple[Any, ...]]) -> Iterator[host_memory.HostFiles]:
    files = host_memory.HostFiles(GEOMETRY, lambda done, *found: done(*found))
    yield files
    files.close()


def test_a_write_without_memory_is_a_write_error(
    host: host_memory.HostFiles, told: queue.Queue[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "payload", no_memory)
    host.write(FILE, lambda file, error: told.put((file, error)))
    assert told.get(timeout=PATIENCE_S) == (FILE, "no_space")
    assert "no_space" in WRITE_ERROR_REASONS
    assert host.content(FILE) == "missing"


def test_a_read_without_memory_is_a_bad_file(
    host: host_memory.HostFiles, told: queue.Queue[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write(FILE, lambda file, error: told.put((file, error)))
    assert told.get(timeout=PATIENCE_S) == (FILE, None)
    monkeypatch.setattr(np, "ones", no_memory)
    host.read([FILE], lambda reads: told.put((reads,)))
    ((read,),) = told.get(timeout=PATIENCE_S)
    assert (read.bad, read.read_bytes) == ("io_error", 0)
    assert read.bad in BAD_FILE_REASONS
