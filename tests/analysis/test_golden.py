"""The figures of the committed result are those that an independent, earlier version computed from the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvbench.analysis import summary
from kvbench.typed_json import to_json

RESULT = Path("results/examples/vllm-gpu-fs/20261121T224531Z")
GOLDEN = Path("tests/data/golden/vllm-gpu-fs.json")


def figures_by_path(value: object, path: str = "") -> dict[str, object]:
    """Return every number, word and null of a summary by its path, such as /lengths/0/isl."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {path: value}
    return {place: one for key, item in items for place, one in figures_by_path(item, f"{path}/{key}").items()}


def test_the_figures_of_the_example_are_those_that_an_earlier_version_computed() -> None:
    expected: dict[str, object] = json.loads(GOLDEN.read_text())
    computed = figures_by_path(json.loads(json.dumps(to_json(summary.summarise(RESULT)))))
    assert len(expected) > 1000
    assert expected.keys() <= computed.keys()
    for path, value in expected.items():
        if isinstance(value, float):
            assert computed[path] == pytest.approx(value, rel=1e-9), path
        else:
            assert computed[path] == value, path
