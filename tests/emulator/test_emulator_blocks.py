from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from kvbench.emulator.blocks import (
    BLOCK_TOKENS,
    CHAT_TOKENS_PER_MESSAGE,
    CHAT_TOKENS_PER_PROMPT,
    HASH_BYTES,
    KnownPrompts,
    answer_word,
    chain_root,
    count_only,
    hash_steps,
    render_chat,
    token_ids,
)
from tests.builders.hashing import hash_prompt

ROOT = chain_root("model", 144)
TEXTS = st.one_of(
    st.text(),
    st.lists(st.text("abc", min_size=5, max_size=5), max_size=100).map(" ".join),
    st.lists(
        st.sampled_from(["a", "bc", " ", "\n", "\t", "\x1c", "\u2003", "é", "\ud800", "", "   "]), max_size=80
    ).map("".join),
)


def slow_chain(text: str) -> tuple[int, bytes]:
    """The definition, word by word."""
    words = [word.encode("utf-8", "surrogatepass") + b" " for word in text.split()]
    parent, chain = ROOT, b""
    for start in range(0, len(words) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        parent = xxh3_128_digest(parent + b"".join(words[start : start + BLOCK_TOKENS]))
        chain += parent
    return len(words), chain


@given(TEXTS)
def test_fast_path_is_the_definition(text: str) -> None:
    prompt = hash_prompt(text, ROOT)
    assert (prompt.tokens, prompt.chain) == slow_chain(text)


@given(TEXTS)
def test_spacing_does_not_matter(text: str) -> None:
    assert hash_prompt(text, ROOT) == hash_prompt(" ".join(text.split()), ROOT)
    assert hash_prompt(text, ROOT) == hash_prompt(f"\n {text}  ", ROOT)
    assert count_only(text).tokens == len(text.split()) == len(token_ids(text))


@given(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=100), st.lists(st.sampled_from("ab"), min_size=1, max_size=100)
)
def test_equal_hashes_mean_equal_prefixes(one: list[str], two: list[str]) -> None:
    a, b = hash_prompt(" ".join(one), ROOT), hash_prompt(" ".join(two), ROOT)
    for block in range(min(a.blocks, b.blocks)):
        same = one[: (block + 1) * BLOCK_TOKENS] == two[: (block + 1) * BLOCK_TOKENS]
        at = slice(block * HASH_BYTES, (block + 1) * HASH_BYTES)
        assert (a.chain[at] == b.chain[at]) == same


@pytest.mark.parametrize(("tokens", "blocks", "reusable"), [(1, 0, 0), (16, 1, 0), (17, 1, 1), (32, 2, 1), (33, 2, 2)])
def test_one_token_is_always_computed(tokens: int, blocks: int, reusable: int) -> None:
    prompt = hash_prompt(list(range(tokens)), ROOT)
    assert (prompt.blocks, prompt.reusable_blocks) == (blocks, reusable)


def test_ids_chain_like_words_and_never_meet_them() -> None:
    ids = list(range(100))
    short, long = hash_prompt(ids[:50], ROOT), hash_prompt(ids, ROOT)
    assert long.chain.startswith(short.chain)
    assert short.digest != long.digest
    assert not long.chain.startswith(hash_prompt(" ".join(map(str, ids)), ROOT).chain[:16])
    assert token_ids(ids) == ids
    assert count_only(ids).tokens == 100


@pytest.mark.parametrize("ids", [[1, 2.5], [1, "a"], [1, None], [1, 2**70]])
def test_what_is_no_id_is_refused(ids: list[int]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        hash_prompt(ids, ROOT)


def test_another_model_never_matches() -> None:
    text = " ".join(["a"] * 16)
    assert hash_prompt(text, chain_root("one", 144)).chain != hash_prompt(text, chain_root("two", 144)).chain
    assert hash_prompt(text, chain_root("one", 144)).chain != hash_prompt(text, chain_root("one", 288)).chain


def test_a_long_prompt_is_hashed_in_steps() -> None:
    assert len(list(hash_steps(" ".join(["word"] * 130_000), ROOT))) == 4  # 8,125 blocks, 2,048 a step


def test_chat_overhead_and_prefix_of_the_next_turn() -> None:
    turn = [("user", "one two three")]
    first = render_chat(turn)
    assert len(first.split()) == 3 + CHAT_TOKENS_PER_MESSAGE + CHAT_TOKENS_PER_PROMPT
    second = render_chat([*turn, ("assistant", "four"), ("user", "five")])
    assert second.split()[: len(first.split())] == first.split()


def test_answers_are_words_that_depend_on_the_prompt() -> None:
    one = [answer_word(b"x" * 16, index) for index in range(50)]
    assert one == [answer_word(b"x" * 16, index) for index in range(50)]
    assert one != [answer_word(b"y" * 16, index) for index in range(50)]
    assert all(len(word) == 5 and word.isalpha() for word in one)


@given(st.lists(st.text("abc", min_size=3, max_size=3), min_size=1, max_size=100))
def test_words_of_one_width_hash_as_any_others(words: list[str]) -> None:
    text = " ".join(words)
    assert hash_prompt(text, ROOT) == hash_prompt(f"{text} ", ROOT), "a space at the end takes the way of all texts"
    assert hash_prompt(text, ROOT).tokens == len(words)


def test_texts_that_were_hashed_lately_are_known_up_to_a_bound() -> None:
    texts = [" ".join([word] * 40) for word in ("one", "two", "six")]  # two blocks each
    known = KnownPrompts(most_bytes=2 * 2 * HASH_BYTES)
    for text in texts:
        assert known.find(text) is None
        known.keep(text, hash_prompt(text, ROOT))
        known.keep(text, hash_prompt(text, ROOT))
    assert [known.find(text) is None for text in texts] == [True, False, False]
    assert known.find(texts[2]) == hash_prompt(texts[2], ROOT)
    known.keep([1, 2, 3], hash_prompt([1, 2, 3], ROOT))
    assert known.find([1, 2, 3]) is None
