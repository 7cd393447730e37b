"""Looks at a directory tier from outside the server: its content, its deletion, and its pages in the page cache.

Nothing is ever deleted in a directory without the marker of kvbench's emulator, and no symbolic link is followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
from pathlib import Path

from kvbench.errors import StorageError

MARKER = ".kvbench-tier.json"
SUFFIXES = (".kv", ".bin", ".safetensors", ".data")  # kvbench's emulator; vLLM's file tier; LMCache
_HALF_WRITTEN = re.compile(r"\.(kv|bin|safetensors|data)[._].*\.tmp")  # a server that was killed leaves these
_VLLM_FOLDER = re.compile(r"_[0-9a-f]{12}$")  # it describes the layout of its files in one beside them
_PAGE = mmap.PAGESIZE


def listing(root: Path) -> dict[str, int]:
    """Return the size in bytes of every tier file by its path below `root`; what else is there does not count."""
    found: dict[str, int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            if not name.endswith(SUFFIXES) or name.startswith("."):
                continue
            path = os.path.join(folder, name)  # noqa: PTH118 - listed many times a second
            try:
                found[os.path.relpath(path, root)] = os.lstat(path).st_size
            except FileNotFoundError:
                continue  # evicted meanwhile
    return found


def check_marker(root: Path) -> None:
    """Refuse a directory that kvbench has not made.

    Raises:
        StorageError: it carries no marker, or is a symbolic link.

    """
    if root.is_symlink() or not (root / MARKER).is_file():
        raise StorageError(
            f"{root} does not carry kvbench's marker {MARKER}, so nothing in it is touched",
            "Name a directory that kvbench made, or a new one, as the tier's path.",
        )


def is_empty(root: Path) -> bool:
    """Tell whether nothing at all is in a directory: one that was held for a server which never used it."""
    return not root.is_symlink() and root.is_dir() and not any(root.iterdir())


def claim(root: Path) -> None:
    """Mark a new or empty directory as ours, so that its tier files may be deleted later.

    Raises:
        StorageError: somebody else's files are there, or nothing can be written.

    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            check_marker(root)
            return
        (root / MARKER).write_text('{"made_by": "kvbench"}\n')
    except OSError as fault:
        raise StorageError(f"cannot use {root} as a tier: {fault.strerror}", "Choose another path.") from None


def wipe(root: Path) -> int:
    """Delete all tier files; return how many there were.

    Raises:
        StorageError: the directory does not carry our marker, or a file cannot be deleted.

    """
    check_marker(root)
    files = listing(root)
    for name in files:
        try:
            (root / name).unlink(missing_ok=True)
        except OSError as fault:
            raise StorageError(f"cannot empty {root}: {fault.strerror}", "Check who owns the tier's files.") from None
    return len(files)


def clear(root: Path) -> int:
    """Delete what is left of a tier that nobody uses any more; return how many tier files there were.

    Beside tier files these are files that were never finished, folders that are empty then, and the marker with the
    directory itself, if nothing else is in it.

    Raises:
        StorageError: the directory is not empty and does not carry our marker, or a file cannot be deleted.

    """
    count = 0 if is_empty(root) else wipe(root)
    for folder, folders, names in os.walk(root, topdown=False):
        for name in names:
            if _HALF_WRITTEN.search(name) or (name == "config.json" and _VLLM_FOLDER.search(folder)):
                Path(folder, name).unlink(missing_ok=True)
        for name in folders:
            with contextlib.suppress(OSError):  # not empty, or a link
                Path(folder, name).rmdir()
    if {path.name for path in root.iterdir()} <= {MARKER}:
        (root / MARKER).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a mount point, or in a folder that is not ours to change
            root.rmdir()
    return count


def drop_page_cache(root: Path) -> int:
    """Ask the kernel to forget the pages of all tier files; return how many bytes are still resident."""
    resident = 0
    for name, size in listing(root).items():
        try:
            with (root / name).open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                resident += _resident_bytes(file.fileno())
        except FileNotFoundError:
            continue  # evicted meanwhile
        except OSError:
            resident += size  # not ours to look at: nothing was shown
    return resident


def _resident_bytes(fd: int) -> int:
    """Count the bytes of an open file that the page cache holds, by mincore(2)."""
    size = os.fstat(fd).st_size
    if size == 0:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    pages = (size + _PAGE - 1) // _PAGE
    vector = ctypes.create_string_buffer(pages)
    try:
        failed = libc.mincore(address, size, vector)
    finally:
        libc.munmap(address, size)
    return size if failed else sum(page & 1 for page in vector.raw) * _PAGE
