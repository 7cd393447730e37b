"""Copies an export into the result without its secrets, in the memory of a few ranges of the file.

Searching JSON for secrets means to parse it and to look at every string. So each range of a file is first searched for
the few letters that every secret has in or before it; only lines that have them are parsed. The search may find too
much, never too little. What holds nothing is copied by the kernel, byte for byte. Files above `MOST_PLAIN_BYTES` are
compressed on the way, range by range: the disk would take longer than all else. A link instead of a copy would
change when the original is edited.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from kvbench.importers.line_ranges import map_ranges
from kvbench.lenient_json import parse
from kvbench.result.files import writing_atomically
from kvbench.result.redact import without_named_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvbench.importers.line_ranges import Range

MOST_PLAIN_BYTES = 100_000_000
_COMPRESSED = ".zst"
_SUSPECT = (
    "(?i)authorization|api[-_]?key|cookie|passw|secret|bearer"
    r'|(access|refresh|auth|bearer|hf|session|id)[-_]?token(\\*"|=)'
    r"|:(\\?/){2}[^\s/?#\"'<>]*@"
    r"|[?&](key|token)="
    r'|(sk|hf|nvapi|ghp)[-_][^"\s]{16}'
    r"|\\u00[0-7]"  # a letter that is written as its number
)
_MASKED = tuple(  # what tools write themselves instead of a secret, or for none
    f'"{name}":{space}{value}'.encode()
    for name, value in (("Authorization", '"<redacted>"'), ("api_key", "null"), ("api_key", '"**********"'))
    for space in ("", " ")
)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy tells: its name, the digest of the original, and how many lines, or documents, held a secret."""

    name: str
    sha256: bytes
    hidden: int


@dataclass(frozen=True, slots=True)
class _Clean:
    """A range without its secrets; `content` is None where it is copied as it is.

    `hidden` counts the lines that held a secret. Of a document, which is cleaned as a whole, it says that one may be in
    this range.
    """

    content: bytes | None
    hidden: int


def copy_without_secrets(file: Path, folder: Path) -> Copied:
    """Copy a file of JSON, or of JSON lines, into a folder without what looks like a secret.

    Raises:
        StorageError: the folder cannot be written.

    """
    digest = hashlib.sha256()
    is_document, is_large = _is_document(file), file.stat().st_size > MOST_PLAIN_BYTES
    clean_range = _search if is_document else _clean_lines
    target = folder / (file.name + _COMPRESSED if is_large else file.name)
    hidden = 0
    with file.open("rb") as source, writing_atomically(target) as copy:
        for one, clean in map_ranges(partial(_compressed, clean_range) if is_large else clean_range, file):
            digest.update(one.read(source))
            hidden += clean.hidden
            if clean.content is not None:
                copy.write(clean.content)
            else:
                _copy_range(source, copy, one)
        if is_document and hidden:
            document, hidden = _clean_document(file.read_bytes())
            copy.seek(0)
            copy.truncate()
            copy.write(_compress(document) if is_large else document)
    return Copied(target.name, digest.digest(), hidden)


def _clean_document(content: bytes) -> tuple[bytes, int]:
    """Return a document without its secrets, and 1 if it held one."""
    document = parse(content)
    clean = without_named_secrets(document)
    return (content, 0) if clean == document else (json.dumps(clean, indent=1).encode() + b"\n", 1)


def _is_document(file: Path) -> bool:
    """Tell one JSON value over the whole file from lines of JSON: by what the first line is."""
    with file.open("rb") as lines:
        first = next((line for line in lines if not line.isspace()), b"")
        is_alone = all(line.isspace() for line in lines)
    return is_alone or parse(first) is None


def _copy_range(source: BinaryIO, copy: BinaryIO, part: Range) -> None:
    """Copy bytes within the kernel."""
    copy.flush()
    os.lseek(copy.fileno(), 0, os.SEEK_END)
    offset, left = part.offset, part.length
    while left:
        done = os.copy_file_range(source.fileno(), copy.fileno(), left, offset_src=offset)
        offset, left = offset + done, left - done
    copy.seek(0, os.SEEK_END)


def _compressed(clean_range: Callable[[bytes], _Clean], block: bytes) -> _Clean:
    """Clean a range and compress it; the frames of all ranges, one after another, are one file of zstd."""
    clean = clean_range(block)
    return replace(clean, content=_compress(block if clean.content is None else clean.content))


def _compress(content: bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - only large files need it

    return zstandard.compress(content, 1)


def _is_suspect(content: bytes) -> bool:
    """Tell whether bytes may hold a secret."""
    if not _has_signs(content):
        return False
    for masked in _MASKED:
        content = content.replace(masked, b"")
    return _has_signs(content)


def _has_signs(content: bytes) -> bool:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    found: bool = pc.match_substring_regex(pa.array([content], pa.large_binary()), pattern=_SUSPECT)[0].as_py()
    return found


def _search(block: bytes) -> _Clean:
    """Tell whether a range of a document may hold a secret."""
    return _Clean(None, int(_is_suspect(block)))


def _clean_lines(block: bytes) -> _Clean:
    """Take the secrets out of each line of a range that is JSON."""
    if not _is_suspect(block):
        return _Clean(None, 0)
    lines, hidden = [], 0
    for line in block.splitlines(keepends=True):
        value = parse(line) if _is_suspect(line) else None
        clean = without_named_secrets(value)
        hidden += clean != value
        lines.append(line if clean == value else json.dumps(clean).encode() + b"\n")
    return _Clean(b"".join(lines) if hidden else None, hidden)
