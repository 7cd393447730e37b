"""Secrets are found by their shape and by the name that they stand under; what is no secret stays."""

from __future__ import annotations

from typing import Any

import pytest

from kvbench.result.redact import HIDDEN, without_named_secrets

KEY = "abc-123-no-known-shape"


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": KEY},
        {"x-goog-api-key": KEY},
        {"X-API-Key": [KEY]},
        {"Authorization": [f"Basic {KEY}"]},
        {"AWS_SECRET_ACCESS_KEY": KEY},
        {"client_secret": KEY},
        {"access_token": KEY},
        {"headers": [["Authorization", KEY]]},
        {"headers": [{"name": "api-key", "value": KEY}]},
        {"headers": [{"key": "Cookie", "value": KEY}]},
        {"text": f'{{"headers": {{"authorization": "{KEY}"}}}}'},
        f"curl -H 'x-api-key: {KEY}' http://host",
        f"error: Bearer {KEY}",
        f"http://user:{KEY}@host/v1",
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(value: Any) -> None:
    hidden = str(without_named_secrets(value))
    assert KEY not in hidden
    assert HIDDEN in hidden


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": 8, "prompt_tokens": 5, "token_ids": [1, 2]},
        {"tokens": ["a", "b"], "tokenizer": "words", "token": " word"},
        {"api_key": "<redacted>", "Authorization": None},
        {"name": "a", "value": "b"},
        ["two", "texts"],
        "an answer that speaks of tokens and of keys",
    ],
)
def test_what_is_no_secret_stays(value: Any) -> None:
    assert without_named_secrets(value) == value
