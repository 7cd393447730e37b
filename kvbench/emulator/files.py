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

The payload stands for KV that no model ever computed: random bytes chosen by the block hash and mixed with it, so that
storage can neither compress it nor find equal blocks, and the same prompt always writes the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass

import numpy as np
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
    """How many blocks go into a file, and how large that makes it; a block is a multiple of 16 bytes.

    A `bare` file is KV alone, without header and padding: a buffer in host memory.
    """

    block_bytes: int
    blocks_per_file: int
    bare: bool = False

    @classmethod
    def for_payload(cls, block_bytes: int, payload_bytes: int) -> Geometry:
        """Put as many blocks into a file as `payload_bytes` holds, at least one."""
        return cls(block_bytes, max(1, payload_bytes // block_bytes))

    def header_bytes(self, blocks: int) -> int:
        """Bytes of the header of a file of `blocks` blocks."""
        if self.bare:
            return 0
        return _padded(FIXED_HEADER_BYTES + blocks * HASH_BYTES)

    def file_bytes(self, blocks: int) -> int:
        """Bytes of a whole file, with header and padding."""
        if self.bare:
            return blocks * self.block_bytes
        return self.header_bytes(blocks) + _padded(blocks * self.block_bytes)

    @property
    def max_file_bytes(self) -> int:
        """Bytes of a full file."""
        return self.file_bytes(self.blocks_per_file)


@functools.cache
def _noise() -> np.ndarray:
    """Return the random words that all payloads are made from; built when the first file is written."""
    return np.frombuffer(hashlib.shake_128(b"kvbench").digest(_NOISE_BYTES), "<u8")


def payload(hashes: bytes, block_bytes: int) -> bytes:
    """Return the KV of these blocks: for each a piece of the noise, from where its hash says, mixed with its hash."""
    keys = np.frombuffer(hashes, "<u8").reshape(-1, 2)
    starts = (keys[:, :1] % (_NOISE_BYTES // 8)).astype(np.int64)
    pieces = _noise().take(starts + np.arange(block_bytes // 8), mode="wrap")
    mixed: bytes = (pieces ^ keys[:, 1:]).tobytes()
    return mixed


def encode(view: memoryview, hashes: bytes, geometry: Geometry, content: memoryview | None = None) -> memoryview:
    """Fill `view` with the file of these blocks and return the part of it that is the file.

    `content` is their KV where it comes from another tier; without it the GPU has just made it.
    """
    blocks = len(hashes) // HASH_BYTES
    header_bytes, payload_bytes = geometry.header_bytes(blocks), blocks * geometry.block_bytes
    size_bytes = geometry.file_bytes(blocks)
    body = view[header_bytes : header_bytes + payload_bytes]
    body[:] = payload(hashes, geometry.block_bytes) if content is None else content
    view[header_bytes + payload_bytes : size_bytes] = bytes(size_bytes - header_bytes - payload_bytes)
    view[:header_bytes] = bytes(header_bytes)
    fields = (MAGIC, header_bytes, blocks, geometry.block_bytes, BLOCK_TOKENS, payload_bytes)
    _FIELDS.pack_into(view, 0, *fields, xxh3_64_intdigest(body), xxh3_64_intdigest(hashes))
    view[FIXED_HEADER_BYTES : FIXED_HEADER_BYTES + len(hashes)] = hashes
    return view[:size_bytes]


def check(view: memoryview, hashes: bytes, geometry: Geometry) -> str | None:
    """Return why the file in `view` is not the file of these blocks, or None if it is."""
    found = read_header(view, geometry)
    if isinstance(found, str):
        return found
    if found != hashes:
        return "hashes"
    blocks = len(hashes) // HASH_BYTES
    start, checksum = geometry.header_bytes(blocks), _FIELDS.unpack_from(view)[6]
    body = view[start : start + blocks * geometry.block_bytes]
    return None if xxh3_64_intdigest(body) == checksum else "checksum"


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
