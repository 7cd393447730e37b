"""Makes texts of exact length, the same for the same seed.

A text is a row of words of five letters and a space, drawn from 4,096 pronounceable words by a generator that is seeded
with the text's key. kvbench's emulator counts one token a word, so a text of n words is n tokens by construction. Other
tokenizers count differently: `fit` then finds the text by asking a token counter. Either way `usage.prompt_tokens` of
the answer is held against the length that was asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from kvbench.errors import DriverError, ScenarioError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WORD_BYTES = 6
_FILLERS = (" a", "a", ".")
_MOST_FILLERS, _MOST_TRIES = 4, 60


class TokenCounter(Protocol):
    """Counts the tokens that a server would make of a text."""

    def __call__(self, text: str) -> int:
        """Return the number of prompt tokens, template included."""


def _vocabulary() -> NDArray[np.uint8]:
    """Return the 4,096 words as rows of bytes; each is consonant, vowel, consonant, vowel, consonant, space."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    words = itertools.product(consonants, vowels, consonants, vowels, consonants)
    chosen = ["".join(word) + " " for word in itertools.islice(words, 0, None, 16)][:4096]
    return np.frombuffer("".join(chosen).encode(), dtype=np.uint8).reshape(-1, WORD_BYTES)


_WORDS = _vocabulary()


def _generator(seed: int, key: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


def words_text(seed: int, key: str, words: int) -> str:
    """Return `words` words, separated by single spaces, that depend on nothing but `seed` and `key`."""
    picks = _generator(seed, key).integers(0, len(_WORDS), words, dtype=np.uint16)
    return _WORDS[picks].tobytes()[:-1].decode("ascii")


def token_ids(seed: int, key: str, tokens: int, vocabulary: tuple[int, int]) -> list[int]:
    """Return `tokens` token ids in the half-open range `vocabulary`, for servers that take ids instead of text."""
    low, high = vocabulary
    ids: list[int] = _generator(seed, key).integers(low, high, tokens, dtype=np.int64).tolist()
    return ids


class Fitting(NamedTuple):
    """What makes a text exactly as long as it should be: so many words, and what follows them.

    Kept instead of the text, which takes a megabyte where this takes a hundred bytes.
    """

    words: int
    filling: str = ""

    def text(self, seed: int, key: str) -> str:
        """Return the text."""
        return (words_text(seed, key, self.words) if self.words else "") + self.filling


def fit(seed: int, key: str, tokens: int, count: TokenCounter) -> Fitting:
    """Find a text that `count` says is exactly `tokens` tokens long.

    The number of words is found by false position, the last few tokens by a filler word, in about six calls of `count`.

    Raises:
        DriverError: no such text was found, for example because the chat template alone is longer.

    """
    words, counted, slope = 0, count(""), 1.0
    for _ in range(_MOST_TRIES):
        missing = tokens - counted
        text = words_text(seed, key, words) if words else ""
        few = 0 <= missing <= max(_MOST_FILLERS, math.ceil(slope))  # less than another word
        if missing == 0:
            return Fitting(words)
        for filling in _fillings(missing) if few else ():
            if count(text + filling) == tokens:
                return Fitting(words, filling)
        step = -1 if few else round(missing / slope) or (1 if missing > 0 else -1)
        words_before, counted_before = words, counted
        words = max(words + step, 0)
        counted = count(words_text(seed, key, words)) if words else count("")
        if words != words_before and counted != counted_before:
            slope = (counted - counted_before) / (words - words_before)
    raise DriverError(
        f"found no text of exactly {tokens:,} tokens for this server's tokenizer",
        "Ask for other lengths, or set prompts.form: token_ids with load.api: completions.",
    )


def _fillings(missing: int) -> list[str]:
    """Return endings that may be `missing` tokens long, the likeliest first: most tokenizers make one token of " a"."""
    return [filler * times for filler in _FILLERS for times in range(missing, 0, -1)]


def local_counter(directory: Path) -> TokenCounter:
    """Return a counter that uses a tokenizer on this host: a folder with a `tokenizer.json`, as models ship it.

    Special tokens that the tokenizer adds by itself are counted, as servers do for completions. A chat template is not
    applied, so this is for `load.api: completions`.

    Raises:
        ScenarioError: the package `tokenizers` is missing, or the folder holds no tokenizer.

    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - only scenarios that name a tokenizer need the package
    except ImportError:
        raise ScenarioError("prompts.tokenizer needs the package tokenizers", "Run `pip install tokenizers`.") from None
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ScenarioError(f"prompts.tokenizer: there is no {file}", "Name the folder that holds tokenizer.json.")
    tokenizer = Tokenizer.from_file(str(file))

    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    return count
