from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.emulator import file_io
from kvbench.emulator.blocks import HASH_BYTES
from kvbench.emulator.direct_io import ALIGN_BYTES, Access, aligned_buffer, filesystem_of, probe, read_into, write_from
from kvbench.emulator.file_io import MARKER, ThreadedFiles, claim
from kvbench.emulator.files import Geometry, check, encode, read_header
from kvbench.emulator.tier_file import FileRead, TierFile
from kvbench.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

GEOMETRY = Geometry(2304, 28)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the usual tmpfs


def file_of(blocks: int) -> TierFile:
    return TierFile(os.urandom(blocks * HASH_BYTES), GEOMETRY.file_bytes(blocks))


class Disk:
    """A `ThreadedFiles` on a path, driven from a test."""

    def __init__(self, path: Path, access: Access = Access.DIRECT) -> None:
        self.path, self.access = path, access

    def write(self, *files: TierFile) -> list[str | None]:
        async def run(io: ThreadedFiles, answers: asyncio.Queue[str | None]) -> list[str | None]:
            for file in files:
                io.write(file, lambda _file, error: answers.put_nowait(error))
            return [await answers.get() for _ in files]

        async def main() -> list[str | None]:
            io = self._io()
            try:
                return await run(io, asyncio.Queue())
            finally:
                io.close()

        return asyncio.run(main())

    def read(self, *files: TierFile) -> Sequence[FileRead]:
        async def main() -> Sequence[FileRead]:
            io, done = self._io(), asyncio.get_running_loop().create_future()
            io.read(files, done.set_result)
            try:
                reads: Sequence[FileRead] = await done
                return reads
            finally:
                io.close()

        return asyncio.run(main())

    def _io(self) -> ThreadedFiles:
        return ThreadedFiles(self.path, GEOMETRY, self.access, asyncio.get_running_loop().call_soon_threadsafe)

    def path_of(self, file: TierFile) -> Path:
        return self.path / f"{file.key.hex()}.kv"

    def scan(self) -> file_io.Scan:
        io = ThreadedFiles(self.path, GEOMETRY, self.access, lambda *_: None)
        try:
            return io.scan()
        finally:
            io.close()


@given(st.integers(1, 28), st.sampled_from([16, 112, 2304, 300_000]))
def test_geometry_is_aligned_and_holds_everything(blocks: int, block_bytes: int) -> None:
    geometry = Geometry(block_bytes, 28)
    assert geometry.header_bytes(blocks) % ALIGN_BYTES == geometry.file_bytes(blocks) % ALIGN_BYTES == 0
    assert geometry.header_bytes(blocks) >= 64 + 16 * blocks
    assert geometry.file_bytes(blocks) >= geometry.header_bytes(blocks) + blocks * block_bytes


def test_one_mebibyte_holds_455_blocks_of_2304_bytes() -> None:
    geometry = Geometry.for_payload(2304, 1024 * 1024)
    assert (geometry.blocks_per_file, geometry.header_bytes(455), geometry.max_file_bytes) == (455, 8192, 1_056_768)
    assert Geometry.for_payload(2 * 1024 * 1024, 1024 * 1024).blocks_per_file == 1


def test_a_file_is_the_same_each_time_and_cannot_be_compressed() -> None:
    hashes = hashlib.shake_128(b"blocks").digest(28 * HASH_BYTES)
    one, two = (bytes(encode(aligned_buffer(GEOMETRY.max_file_bytes), hashes, GEOMETRY)) for _ in range(2))
    assert one == two
    payload = one[4096 : 4096 + 28 * 2304]
    assert len(zlib.compress(payload)) > len(payload)
    assert read_header(memoryview(one), GEOMETRY) == hashes
    assert check(memoryview(one), hashes, GEOMETRY) is None
    assert check(memoryview(one), os.urandom(len(hashes)), GEOMETRY) == "hashes"


@given(st.integers(0, GEOMETRY.file_bytes(3) - 1), st.integers(1, 255))
def test_any_flipped_byte_that_matters_is_found(at: int, flip: int) -> None:
    hashes = b"0123456789abcdef" * 3
    view = encode(aligned_buffer(GEOMETRY.max_file_bytes), hashes, GEOMETRY)
    view[at] ^= flip
    unused = 48 <= at < 64 or 64 + 48 <= at < 4096 or at >= 4096 + 3 * 2304
    assert (check(view, hashes, GEOMETRY) is None) == unused


@pytest.mark.parametrize("access", list(Access))
def test_round_trip(tmp_path: Path, access: Access) -> None:
    disk, files = Disk(tmp_path, access), [file_of(blocks) for blocks in (28, 1, 7)]
    assert disk.write(*files) == [None] * 3
    reads = disk.read(*files)
    assert [(read.file, read.bad, read.read_bytes) for read in reads] == [(f, None, f.size_bytes) for f in files]
    assert all(read.ended_s >= read.started_s for read in reads)
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == sorted(file.size_bytes for file in files)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: os.truncate(path, 8192), "truncated"),
        (lambda path: os.truncate(path, 5000), "truncated"),
        (lambda path: os.truncate(path, 0), "truncated"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "magic"),
        (lambda path: path.write_bytes(path.read_bytes()[:8] + b"x" + path.read_bytes()[9:]), "header"),
        (lambda path: path.write_bytes(path.read_bytes()[:64] + b"x" + path.read_bytes()[65:]), "hashes"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000] + b"xx" + path.read_bytes()[5002:]), "checksum"),
        (lambda path: (path.rename(path.with_suffix(".old")), path.symlink_to(path.with_suffix(".old"))), "io_error"),
    ],
)
def test_a_bad_file_is_a_reason_and_never_an_exception(tmp_path: Path, damage: object, reason: str) -> None:
    disk, good, bad = Disk(tmp_path), file_of(5), file_of(28)
    disk.write(good, bad)
    assert callable(damage)
    damage(disk.path_of(bad))
    assert [read.bad for read in disk.read(good, bad)] == [None, reason]


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "no_space"), (errno.EDQUOT, "no_space"), (errno.EIO, "io_error")]
)
def test_a_write_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file_io, "write_from", refuse)
    assert Disk(tmp_path).write(file_of(1)) == [reason]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "dir.kv"
    (target / "x").mkdir(parents=True)  # a rename onto it must fail
    with pytest.raises(OSError, match="dir"):
        write_from(str(target), aligned_buffer(4096), Access.DIRECT)
    assert [path.name for path in tmp_path.iterdir()] == ["dir.kv"]


def test_a_wiped_directory_is_made_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "tier")
    assert disk.write(file_of(1)) == [None]
    assert (tmp_path / "tier" / MARKER).exists()


def test_scan_finds_good_files_oldest_first_and_cleans_up(tmp_path: Path) -> None:
    disk, files = Disk(tmp_path), [file_of(blocks) for blocks in (3, 28, 5, 6, 7)]
    disk.write(*files)
    for second, file in enumerate(reversed(files)):
        os.utime(disk.path_of(file), (second, second))
    os.truncate(disk.path_of(files[0]), 8192)
    disk.path_of(files[1]).write_bytes(b"x" * 8192)
    disk.path_of(files[2]).rename(tmp_path / f"{'0' * 32}.kv")
    (tmp_path / "half.kv.tmp").touch()
    os.utime(tmp_path / "half.kv.tmp", (0, 0))
    (tmp_path / "other.kv.1f-2e.tmp").touch()  # may be another server at work
    (tmp_path / "notes.txt").touch()
    scan = disk.scan()
    assert [file.hashes for file in scan.files] == [files[4].hashes, files[3].hashes]
    assert sorted(scan.bad) == ["hashes", "magic", "truncated"]
    assert len(list(tmp_path.iterdir())) == 4  # the two good ones and what is not ours


def test_scan_never_follows_links(tmp_path: Path) -> None:
    (tmp_path / "tier").mkdir()
    outside = tmp_path / "outside.kv"
    outside.write_bytes(b"x" * 8192)
    (tmp_path / "tier" / "link.kv").symlink_to(outside)
    assert Disk(tmp_path / "tier").scan().bad == []
    assert outside.exists()


def test_files_of_another_geometry_are_left_alone(tmp_path: Path) -> None:
    disk, file = Disk(tmp_path), file_of(1)
    disk.write(file)
    other = ThreadedFiles(tmp_path, Geometry(1152, 56), Access.DIRECT, lambda *_: None)
    assert other.scan().bad == ["header"]
    other.close()
    assert disk.path_of(file).exists()


def test_claim_marks_a_new_and_an_empty_directory_and_takes_its_own_again(tmp_path: Path) -> None:
    for _ in range(2):
        found = claim(tmp_path / "a" / "b", allow_tmpfs=False)
    assert json.loads((tmp_path / "a" / "b" / MARKER).read_text())["owner"] == "kvbench"
    assert found.filesystem == filesystem_of(tmp_path)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [MARKER]


def test_claim_refuses_what_belongs_to_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StorageError, match="is not empty"):
        claim(tmp_path, allow_tmpfs=False)
    for path in (tmp_path / "thesis.tex", Path("/dev/null")):
        with pytest.raises(StorageError, match="cannot be used as a tier"):
            claim(path, allow_tmpfs=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(filesystem_of(SHARED_MEMORY) != "tmpfs", reason="no tmpfs here")
def test_memory_is_no_storage_unless_allowed() -> None:
    directory = SHARED_MEMORY / f"kvbench-test-{os.getpid()}"
    try:
        with pytest.raises(StorageError, match="memory and not storage"):
            claim(directory, allow_tmpfs=False)
        found = claim(directory, allow_tmpfs=True)
        assert found.filesystem == "tmpfs"
        assert found.status in ("accepted-not-enforced", "refused")
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    assert probe(tmp_path).status in ("enforced", "accepted-not-enforced", "refused")
    assert not list(tmp_path.iterdir())


def test_read_stops_at_the_end_of_the_view(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 12_288)
    assert read_into(str(path), aligned_buffer(8192), Access.DIRECT) == 8192
    assert read_into(str(path), aligned_buffer(16_384), Access.DIRECT) == 12_288
