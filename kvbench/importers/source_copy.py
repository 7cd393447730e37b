"""Copies an export into the result without its secrets, in the memory of a few ranges of the file.

Searching JSON for secrets means to parse it and to look at every string. So each range of a file is first searched for
the few letters that every secret has in or before it; only lines that have them are parsed. The search may find too
much, never too little. What holds nothing is copied by the kernel, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from kvbench.importers.line_ranges import map_ranges
from kvbench.lenient_json import parse
from kvbench.result.files import writing_atomically
from kvbench.result.redact import without_named_secrets

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.importers.line_ranges import Range

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
    """What a copy tells: the digest of the original, and how many lines, or whole documents, held a secret."""

    sha256: bytes
    hidden: int


@dataclass(frozen=True, slots=True)
class _Clean:
    """A range without its secrets; `content` is None where it holds none."""

    content: bytes | None
    hidden: int


def copy_without_secrets(file: Path, target: Path) -> Copied:
    """Copy a file of JSON, or of JSON lines, without what looks like a secret.

    Raises:
        StorageError: the target cannot be written.

    """
    digest = hashlib.sha256()
    is_document = _is_document(file)
    hidden = 0
    with file.open("rb") as source, writing_atomically(target) as copy:
        for one, clean in map_ranges(_is_suspect if is_document else _clean_lines, file):
            digest.update(one.read(source))
            if clean is True:
                hidden = 1
            elif isinstance(clean, _Clean) and clean.content is not None:
                copy.write(clean.content)
                hidden += clean.hidden
            else:
                _copy_range(source, copy, one)
        if is_document and hidden:
            content = file.read_bytes()
            document = parse(content)
            clean_document = without_named_secrets(document)
            hidden = int(clean_document != document)
            copy.seek(0)
            copy.truncate()
            copy.write(content if not hidden else json.dumps(clean_document, indent=1).encode() + b"\n")
    return Copied(digest.digest(), hidden)


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


def _is_suspect(content: bytes) -> bool:
    """Tell whether bytes may hold a secret."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    for masked in _MASKED:
        content = content.replace(masked, b"")
    found: bool = pc.match_substring_regex(pa.array([content], pa.large_binary()), pattern=_SUSPECT)[0].as_py()
    return found


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
