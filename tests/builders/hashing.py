"""A prompt's hashes in one go; the server takes them step by step, so that others run in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.emulator.blocks import hash_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.emulator.blocks import Prompt


def hash_prompt(source: str | Sequence[int], root: bytes) -> Prompt:
    steps = hash_steps(source, root)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            prompt: Prompt = end.value
            return prompt
