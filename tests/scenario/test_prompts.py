"""Prompts: exact lengths, the same for the same seed, different for every key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.errors import DriverError, ScenarioError
from kvbench.scenario import prompts

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(1, 5000), st.text(max_size=20), st.integers(0, 2**32))
def test_a_text_has_exactly_so_many_words_of_fixed_width(words: int, key: str, seed: int) -> None:
    text = prompts.words_text(seed, key, words)
    assert len(text.split(" ")) == words
    assert {len(word) for word in text.split(" ")} == {prompts.WORD_BYTES - 1}
    assert text.isascii()


def test_the_same_key_gives_the_same_text_and_another_key_another() -> None:
    text = prompts.words_text(1, "p130000-0", 130_000)
    assert text == prompts.words_text(1, "p130000-0", 130_000)
    assert text[:95] != prompts.words_text(1, "p130000-1", 130_000)[:95]  # the first hash block already differs
    assert text[:95] != prompts.words_text(2, "p130000-0", 130_000)[:95]


def test_this_text_stays_the_same_from_version_to_version() -> None:
    assert prompts.words_text(1, "a", 6) == "rerop rinas vutok senob tamef folok"


@given(st.integers(20, 3000), st.integers(0, 17), st.integers(1, 7))
@settings(deadline=None)
def test_fit_finds_the_exact_length_for_uneven_tokenizers(tokens: int, overhead: int, longest: int) -> None:
    """A tokenizer that cuts words into pieces of `longest` letters, behind a template of `overhead` tokens."""

    def count(text: str) -> int:
        return overhead + sum(math.ceil(len(word) / longest) for word in text.split(" ") if word)

    text = prompts.fit(1, "key", tokens, count).text(1, "key")
    assert count(text) == tokens


@given(st.integers(1, 3000), st.integers(0, 3))
@settings(deadline=None)
def test_fit_finds_the_exact_length_where_every_byte_is_a_token(tokens: int, overhead: int) -> None:
    text = prompts.fit(1, "key", tokens + overhead, lambda text: overhead + len(text)).text(1, "key")
    assert len(text) == tokens


def test_fit_gives_up_on_a_template_longer_than_the_prompt() -> None:
    with pytest.raises(DriverError, match="exactly 10 tokens") as error:
        prompts.fit(1, "key", 10, lambda text: 50 + len(text.split()))
    assert "token_ids" in error.value.remedy


def test_a_tokenizer_on_this_host(tmp_path: Path) -> None:
    """A byte-level tokenizer with a beginning-of-text token: every letter counts, and one more."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    vocabulary = {chr(code): code for code in range(32, 127)} | {"<s>": 0}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<s>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    count = prompts.local_counter(tmp_path)
    assert count("abc") == 4
    assert count(prompts.fit(1, "key", 500, count).text(1, "key")) == 500


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    with pytest.raises(ScenarioError, match=r"tokenizer\.json"):
        prompts.local_counter(tmp_path)


def test_token_ids_stay_in_their_range() -> None:
    ids = prompts.token_ids(1, "key", 10_000, (1_000, 30_000))
    assert len(ids) == 10_000
    assert min(ids) >= 1_000
    assert max(ids) < 30_000
