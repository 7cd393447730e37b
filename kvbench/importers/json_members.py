"""Finds the members of a JSON document's long lists one by one, with the memory of a few MB.

Only the structure is looked at: numpy finds the quotes and brackets of one block at a time, so that a list is cut into
its members without parsing them. The rest of the document, with those lists empty, is small and is parsed at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from kvbench.importers.line_ranges import Range
from kvbench.lenient_json import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_BLOCK_BYTES = 4 * 1024 * 1024
_NAME = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\Z')
_LONGEST_NAME = 200
_OPENING = tuple(b"{[")
_ARE_BRACKETS = bytes(letter in b"{}[]" for letter in range(256))
_BETWEEN = re.compile(rb"[\s,]*")


class NotAnObjectError(Exception):
    """A member of a list is no object."""

    def __init__(self, place: Place, number: int) -> None:
        """Keep the list and the number of the member in it."""
        super().__init__(f"{place}[{number}]")
        self.place, self.number = place, number


@dataclass(frozen=True, slots=True)
class Place:
    """A list of members: `outer[outer_place].middle.name`."""

    outer_place: int
    name: str


class MemberReader:
    """Reads a document like `{outer: [{middle: {name: [member, ...]}}]}`, whatever else is in it."""

    def __init__(self, outer: str, middle: str, names: tuple[str, ...]) -> None:
        """Get ready to read one document."""
        self._wanted = {(None, outer, None, middle, name) for name in names}
        self._outer = outer
        self._rest = bytearray()
        self._depth = 0
        self._in_string = False
        self._names: list[str | None] = [None] * 6
        self._outer_place = -1
        self._list: Place | None = None
        self._number = 0
        self._begin: int | None = None
        self._last = 0

    @property
    def rest(self) -> Any:
        """The document without the members, once they have been given; None where it is no JSON."""
        return parse(bytes(self._rest))

    def members(self, path: Path) -> Iterator[tuple[Place, Range]]:
        """Give where each member stands, in the order of the document.

        Raises:
            NotAnObjectError: a member is no object.

        """
        text, start = b"", 0  # what is not yet dealt with, and where in the file it begins
        with path.open("rb") as file:
            while block := _read_block(file):
                shift, text, self._last = len(text), text + block, 0
                for offset, is_open, depth in self._brackets(block):
                    at = offset + shift
                    if depth <= 5 and self._begin is None:
                        self._note_rest(text, at, depth, is_open=is_open)
                    elif self._list is not None and is_open:
                        self._begin_member(text, at)
                    elif self._list is not None and self._begin is not None:
                        yield self._list, Range(start + self._begin, at + 1 - self._begin)
                        self._begin, self._last, self._number = None, at + 1, self._number + 1
                start += len(text)
                text = self._left_over(text)
                start -= len(text)
        self._rest += text

    def _begin_member(self, text: bytes, at: int) -> None:
        self._check_between(text[self._last : at])
        if self._list is not None and text[at] != ord("{"):
            raise NotAnObjectError(self._list, self._number)
        self._begin = at

    def _note_rest(self, text: bytes, at: int, depth: int, *, is_open: bool) -> None:
        """Take a bracket outside of members, and what stands before it."""
        if self._list is not None:
            self._check_between(text[self._last : at])
            self._list, self._last = None, at
        self._rest += text[self._last : at]
        self._last = at
        if is_open:
            self._open(depth, text[at])
            if self._list is not None:
                self._rest += b"["
                self._last = at + 1

    def _left_over(self, text: bytes) -> bytes:
        """Return what the next block goes on with."""
        if self._begin is not None:
            begin, self._begin = self._begin, 0
            return text[begin:]
        if self._list is not None:
            return text[self._last :]
        self._rest += text[self._last :]
        return b""

    def _check_between(self, text: bytes) -> None:
        if self._list is not None and _BETWEEN.fullmatch(text) is None:
            raise NotAnObjectError(self._list, self._number)

    def _open(self, depth: int, bracket: int) -> None:
        """Note an object or a list that begins; its name stands before it."""
        named = _NAME.search(bytes(self._rest[-_LONGEST_NAME:]))
        self._names[depth] = named.group(1).decode(errors="replace") if named else None
        if depth == 3 and tuple(self._names[1:3]) == (None, self._outer):
            self._outer_place += 1
        if depth == 5 and bracket == ord("[") and tuple(self._names[1:6]) in self._wanted:
            self._list, self._number = Place(self._outer_place, str(self._names[5])), 0

    def _brackets(self, block: bytes) -> list[tuple[int, bool, int]]:
        """Return where brackets of at most depth 6 stand, whether they open, and the depth after them."""
        letters = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(letters == ord('"'))
        quotes = quotes[~_is_escaped(letters, quotes)]
        places = np.flatnonzero(np.frombuffer(block.translate(_ARE_BRACKETS), np.bool_))
        places = places[(np.searchsorted(quotes, places) + self._in_string) % 2 == 0]
        is_open = np.isin(letters[places], _OPENING)
        depths = self._depth + np.cumsum(np.where(is_open, 1, -1))
        self._in_string = bool((len(quotes) + self._in_string) % 2)
        self._depth = int(depths[-1]) if len(depths) else self._depth
        near = np.flatnonzero(depths <= np.where(is_open, 6, 5))
        return list(zip(places[near].tolist(), is_open[near].tolist(), depths[near].tolist(), strict=True))


def _read_block(file: BinaryIO) -> bytes:
    """Read some MB that do not end within an escape."""
    block = file.read(_BLOCK_BYTES)
    while block.endswith(b"\\") and (more := file.read(1)):
        block += more
    return block


def _is_escaped(letters: np.ndarray[Any, Any], quotes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Tell of each quote whether an odd number of backslashes stands before it."""
    backslashes = np.flatnonzero(letters == ord("\\"))
    if not len(backslashes):
        return np.zeros(len(quotes), dtype=bool)
    starts = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(backslashes))
    escaped = (backslashes[starts] + lengths)[lengths % 2 == 1]  # the letter after a run
    found: np.ndarray[Any, Any] = np.isin(quotes, escaped, assume_unique=True)
    return found
