"""Writes files so that a crash leaves the old or the new content, and locks a folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import orjson

from kvbench.errors import ResultError, StorageError
from kvbench.result.records import READ_VERSIONS, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from kvbench.typed_json import JsonObject

_FREE_SPACE_REMEDY = "Free some space there, then run the same command again: it resumes and loses nothing."


@contextlib.contextmanager
def storage_faults(path: Path) -> Iterator[None]:
    """Turn what a file system can refuse into one sentence with a remedy."""
    try:
        yield
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        full = fault.errno in (28, 122)  # ENOSPC, EDQUOT
        remedy = _FREE_SPACE_REMEDY if full else "Choose a folder that you may write, with --results DIR."
        raise StorageError(f"cannot write {path}: {reason}", remedy) from fault


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, also after a crash.

    Raises:
        StorageError: the folder is full or may not be written.

    """
    with writing_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write piece by piece; a reader sees it when all of it is on the disk, or never.

    Raises:
        StorageError: the folder is full or may not be written.

    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def json_line(value: Mapping[str, object]) -> bytes:
    """Return a value as one line of JSON."""
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write JSON atomically, with the schema version in it."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **value}, indent=1, ensure_ascii=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON that `write_json` wrote.

    Raises:
        ResultError: missing, unreadable, or of another schema version.

    """
    try:
        value: JsonObject = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise ResultError(f"cannot read {path}: {fault}", "Name a result folder that `kvbench run` wrote.") from None
    if value.get("schema_version") not in READ_VERSIONS:
        found = value.get("schema_version")
        raise ResultError(
            f"{path} has schema version {found}, this kvbench reads {' and '.join(map(str, READ_VERSIONS))}",
            "Use the kvbench version that wrote the result.",
        )
    return value


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process: two runs in one result, or in one tier, would destroy each other's work.

    Raises:
        StorageError: another process holds it.

    """
    with storage_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"another kvbench is using {what} {folder}", "Wait until it has ended.") from None
        yield
    finally:
        os.close(handle)
