"""The format of a tier file: a header, then the KV of a run of consecutive blocks of one prompt.

    offset  bytes
    0       8     magic "KVBTIER1"
    8       4     header bytes (a multiple of 4,096)
    12      4     blocks in this file
    16      4     bytes per block
    20      4     tokens per block
    24      8     payload bytes, without padding
    32      8     xxh3_64 of the payload
    40      8     xxh3_64 of the block hashes
    64      16 n  the block hashes
    header        the payload, padded to a multiple of 4,096

The payload stands for KV that no model ever computed: slices of one buffer of random bytes, chosen by the block hash,
so that storage can neither compress it nor find equal blocks, and the same prompt always writes the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from kvbench.emulator.blocks import BLOCK_TOKENS, HASH_BYTES
from kvbench.emulator.direct_io import ALIGN_BYTES

MAGIC = b"KVBTIER1"
SUFFIX = ".kv"
FIXED_HEADER_BYTES = 64
MIN_PAYLOAD_BYTES = 64 * 1024
_FIELDS = struct.Struct("<8sIIIIQQQ")
_NOISE_BYTES = 8 * 1024 * 1024


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES


@dataclass(frozen=True, slots=True)
class Geometry:
    """How many blocks go into a file, and how large that makes it."""

    block_bytes: int
    blocks_per_file: int

    @classmethod
    def for_payload(cls, block_bytes: int, payload_bytes: int) -> Geometry:
        """Put as many blocks into a file as `payload_bytes` holds, at least one."""
        return cls(block_bytes, max(1, payload_bytes // block_bytes))

    def header_bytes(self, blocks: int) -> int:
        """Bytes of the header of a file of `blocks` blocks."""
        return _padded(FIXED_HEADER_BYTES + blocks * HASH_BYTES)

    def file_bytes(self, blocks: int) -> int:
        """Bytes of a whole file, with header and padding."""
        return self.header_bytes(blocks) + _padded(blocks * self.block_bytes)

    @property
    def max_file_bytes(self) -> int:
        """Bytes of a full file."""
        return self.file_bytes(self.blocks_per_file)


@functools.cache
def _noise(_seed: bytes = b"kvbench") -> bytes:
    """Return the random bytes that all payloads are cut from; made when the first file is written."""
    return hashlib.shake_128(_seed).digest(_NOISE_BYTES)


def encode(view: memoryview, hashes: bytes, geometry: Geometry) -> memoryview:
    """Fill `view` with the file of these blocks and return the part of it that is the file."""
    blocks = len(hashes) // HASH_BYTES
    header_bytes, payload_bytes = geometry.header_bytes(blocks), blocks * geometry.block_bytes
    size_bytes = geometry.file_bytes(blocks)
    at = header_bytes
    for block in range(blocks):
        at = _put_block(view, at, hashes[block * HASH_BYTES : block * HASH_BYTES + 8], geometry.block_bytes)
    view[at:size_bytes] = bytes(size_bytes - at)
    payload = view[header_bytes : header_bytes + payload_bytes]
    view[:header_bytes] = bytes(header_bytes)
    fields = (MAGIC, header_bytes, blocks, geometry.block_bytes, BLOCK_TOKENS, payload_bytes)
    _FIELDS.pack_into(view, 0, *fields, xxh3_64_intdigest(payload), xxh3_64_intdigest(hashes))
    view[FIXED_HEADER_BYTES : FIXED_HEADER_BYTES + len(hashes)] = hashes
    return view[:size_bytes]


def _put_block(view: memoryview, at: int, seed: bytes, block_bytes: int) -> int:
    """Copy the payload of one block to `at` and return where it ends."""
    noise, left = _noise(), block_bytes
    offset = int.from_bytes(seed, "little")
    while left:
        length = min(left, _NOISE_BYTES // 2)
        start = offset % (_NOISE_BYTES - length)
        view[at : at + length] = noise[start : start + length]
        at, left, offset = at + length, left - length, offset // 3
    return at


def check(view: memoryview, hashes: bytes, geometry: Geometry) -> str | None:
    """Return why the file in `view` is not the file of these blocks, or None if it is."""
    found = read_header(view, geometry)
    if isinstance(found, str):
        return found
    if found != hashes:
        return "hashes"
    blocks = len(hashes) // HASH_BYTES
    start, checksum = geometry.header_bytes(blocks), _FIELDS.unpack_from(view)[6]
    payload = view[start : start + blocks * geometry.block_bytes]
    return None if xxh3_64_intdigest(payload) == checksum else "checksum"


def read_header(view: memoryview, geometry: Geometry) -> bytes | str:
    """Return the block hashes (bytes) of the file that begins in `view`, or why it is no such file (str)."""
    if len(view) < ALIGN_BYTES:
        return "truncated"
    magic, header_bytes, blocks, block_bytes, block_tokens, payload_bytes, _, hash_sum = _FIELDS.unpack_from(view)
    if magic != MAGIC:
        return "magic"
    wanted = (geometry.header_bytes(blocks), geometry.block_bytes, BLOCK_TOKENS, blocks * geometry.block_bytes)
    if not blocks or (header_bytes, block_bytes, block_tokens, payload_bytes) != wanted:
        return "header"
    hashes = bytes(view[FIXED_HEADER_BYTES : FIXED_HEADER_BYTES + blocks * HASH_BYTES])
    return hashes if xxh3_64_intdigest(hashes) == hash_sum else "hashes"
