"""Text to tokens to a chain of block hashes.

One word is one token; a block is 16 tokens. The hash of a block covers the hash of the block before it, so that equal
hashes mean equal prefixes. A chain is kept as one `bytes` of 16 per block: a prompt of 130k tokens has 8,125 of them,
and comparing two runs of blocks is then one comparison of memory.

Text is hashed as its words with one space after each. Prompts that are already written that way (the prompts of
kvbench are) are sliced as they are; anything else is brought to that form first, so both give the same hashes.
Token ids are hashed as they are and never meet the hashes of text.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128_digest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

BLOCK_TOKENS = 16
HASH_BYTES = 16
CHAT_TOKENS_PER_MESSAGE = 4
CHAT_TOKENS_PER_PROMPT = 2
VOCABULARY = 200_000
_ID_BYTES = 8
_BLOCKS_PER_STEP = 2048  # about 0.3 ms, so that hashing a long prompt does not stall the streams of others
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the engine sees it: its length, the hashes of its full blocks, and a digest of the whole.

    `parent` and `rest` are what the next block is hashed from: the hash before it, and the tokens after the last full
    block. `ids` tells token ids from text.
    """

    tokens: int
    chain: bytes
    digest: bytes
    parent: bytes = b""
    rest: bytes = b""
    ids: bool = False

    @property
    def blocks(self) -> int:
        """Full blocks; what is left over is never stored."""
        return len(self.chain) // HASH_BYTES

    @property
    def reusable_blocks(self) -> int:
        """Blocks that may come from a cache: at least one token of a prompt is always computed."""
        return min(self.blocks, (self.tokens - 1) // BLOCK_TOKENS)


def chain_root(model: str, kv_bytes_per_token: int) -> bytes:
    """Return what chains start from: blocks of another model or another scale must never match."""
    return xxh3_128_digest(f"{model} {kv_bytes_per_token} {BLOCK_TOKENS}".encode())


def hash_steps(source: str | Sequence[int], root: bytes) -> Generator[None, None, Prompt]:
    """Hash a prompt in steps of about 0.3 ms and return it; between steps the caller may serve others.

    Raises:
        TypeError: a token id is not an integer.
        OverflowError: a token id does not fit 64 bits.

    """
    if isinstance(source, str):
        raw, ends = _words(source)
        tokens, seed = len(ends), root
    else:
        raw, tokens, seed = array("q", source).tobytes(), len(source), xxh3_128_digest(root + b"ids")
        ends = np.arange(1, tokens + 1) * _ID_BYTES
    block_ends: list[int] = ends[BLOCK_TOKENS - 1 :: BLOCK_TOKENS].tolist()
    hashes: list[bytes] = []
    parent, start, digest = seed, 0, xxh3_128_digest
    for first in range(0, len(block_ends), _BLOCKS_PER_STEP):
        yield
        ends_here = block_ends[first : first + _BLOCKS_PER_STEP]
        starts_here = [start, *ends_here[:-1]]
        hashes += [parent := digest(parent + raw[a:b]) for a, b in zip(starts_here, ends_here, strict=True)]
        start = ends_here[-1]
    rest = raw[start:]
    return Prompt(tokens, b"".join(hashes), digest(parent + rest), parent, rest, ids=not isinstance(source, str))


class KnownPrompts:
    """The hashes of texts that were sent lately, the oldest of them dropped above a number of bytes.

    An engine's tokenizer runs beside its GPU; here it shares two cores with storage and the client, and the time that
    it takes beyond the model would be counted as overrun.
    """

    def __init__(self, most_bytes: int = 1 << 26) -> None:
        """Start with none."""
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._prompts: dict[bytes, Prompt] = {}

    def find(self, source: str | Sequence[int]) -> Prompt | None:
        """Return a text's hashes if they are known; token ids never are."""
        return self._prompts.get(self._key(source)) if isinstance(source, str) else None

    def keep(self, source: str | Sequence[int], prompt: Prompt) -> None:
        """Take in a text's hashes."""
        if not isinstance(source, str) or (key := self._key(source)) in self._prompts:
            return
        self._prompts[key] = prompt
        self._held_bytes += len(prompt.chain)
        while self._held_bytes > self._most_bytes:
            self._held_bytes -= len(self._prompts.pop(next(iter(self._prompts))).chain)

    @staticmethod
    def _key(text: str) -> bytes:
        return xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def extend_chain(prompt: Prompt, words: Sequence[str]) -> bytes:
    """Return the chain of a prompt that is followed by these words of its answer.

    It is the chain of the longer prompt that repeats both: the words stand in the text after a space, or their
    `token_ids` in the list of ids.
    """
    hashes: list[bytes] = []
    parent, block, tokens = prompt.parent, prompt.rest, prompt.tokens % BLOCK_TOKENS
    for word in words:
        block += array("q", token_ids(word)).tobytes() if prompt.ids else f"{word} ".encode()
        tokens += 1
        if tokens == BLOCK_TOKENS:
            parent = xxh3_128_digest(parent + block)
            hashes.append(parent)
            block, tokens = b"", 0
    return prompt.chain + b"".join(hashes)


def count_only(source: str | Sequence[int]) -> Prompt:
    """Count the tokens and hash no blocks, for a server that caches nothing."""
    if isinstance(source, str):
        raw, ends = _words(source)
        return Prompt(len(ends), b"", xxh3_128_digest(raw))
    return Prompt(len(source), b"", xxh3_128_digest(array("q", source).tobytes()))


def _words(text: str) -> tuple[bytes, np.ndarray]:
    """Return the words with one space after each, and where each of them ends."""
    raw = text.encode() if text.isascii() else b""
    if (width := _width_of_all(raw)) is not None:
        return raw + b" ", np.arange(width, len(raw) + 2, width)
    spaces = _single_spaces(raw)
    if spaces is None:
        raw = " ".join(text.split()).encode("utf-8", "surrogatepass")
        spaces = np.flatnonzero(np.frombuffer(raw, np.uint8) == 32)
    if not raw:
        return raw, spaces
    if raw.endswith(b" "):
        return raw, spaces + 1
    return raw + b" ", np.append(spaces, len(raw)) + 1


def _width_of_all(raw: bytes) -> int | None:
    """Return the bytes of each word with its space if all have the same, as kvbench's prompts have."""
    width = raw.find(b" ") + 1
    if width < 2 or (len(raw) + 1) % width:
        return None
    codes = np.frombuffer(raw, np.uint8)
    ends = codes[width - 1 :: width]
    return width if (ends == 32).all() and np.count_nonzero(codes <= 32) == len(ends) else None


def _single_spaces(raw: bytes) -> np.ndarray | None:
    """Return the positions of the spaces of a text that is words with single spaces between, None for any other."""
    codes = np.frombuffer(raw, np.uint8)
    blanks = np.flatnonzero(codes <= 32)
    if not raw or codes[0] <= 32 or not (codes[blanks] == 32).all() or not (np.diff(blanks) > 1).all():
        return None
    return blanks


def render_chat(messages: Sequence[tuple[str, str]]) -> str:
    """Write (role, content) pairs as the text that the model would see.

    Each message costs `CHAT_TOKENS_PER_MESSAGE` tokens and the invitation to answer `CHAT_TOKENS_PER_PROMPT`. The
    invitation is how an assistant message begins, so the prompt of a turn is a prefix of the prompt of the next.
    """
    parts = [f"<|start|>{''.join(role.split())} <|message|> {content} <|end|> <|next|> " for role, content in messages]
    return "".join(parts) + "<|start|>assistant <|message|>"


def token_ids(source: str | Sequence[int]) -> list[int]:
    """Return an id for each token; of text it is a hash of the word, which no text can be made from."""
    if not isinstance(source, str):
        return list(source)
    return [xxh3_64_intdigest(word.encode("utf-8", "surrogatepass")) % VOCABULARY for word in source.split()]


def answer_word(digest: bytes, index: int) -> str:
    """Return the word that is the `index`-th token of the answer to a prompt, the same on every run."""
    value = xxh3_64_intdigest(digest + index.to_bytes(4, "little"))
    letters = []
    for _ in range(5):
        value, letter = divmod(value, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)
