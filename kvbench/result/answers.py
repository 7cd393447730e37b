"""Compares answers: those that came from a cache with those that recomputing gave for the same prompt."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from kvbench.result import parquet_file
from kvbench.store import ROWS, storage_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kvbench.records import Row


class Answer(NamedTuple):
    """What is compared of an answer: the prompt and turn that it is to, and its hash."""

    phase: str
    prompt_id: str
    turn: int
    answer_hash: str | None


def settle_answers(runs: Path, reference_runs: list[str]) -> None:
    """Compare every answer with the one that recomputing gave for the same prompt.

    Writes `answers_match` into the rows of every sealed run, which pass in a stream. The reference is the first answer
    of the runs named in `reference_runs`, whose prompts, and turns of them, must be the same texts. A prompt without a
    reference stays null.
    """
    sealed = {path.parent.name: path.with_name(ROWS) for path in sorted(runs.glob("*/run.json"))}
    of_reference = [sealed[run_id] for run_id in reference_runs if run_id in sealed]
    reference = reference_answers(answer for path in of_reference for answer in _answers_of(path))
    for path in sealed.values():
        with storage_faults(path):
            parquet_file.replace_column(
                path, "answers_match", Answer._fields, lambda *values: answer_matches(Answer(*values), reference)
            )


def _answers_of(path: Path) -> Iterator[Answer]:
    for part in parquet_file.parts(path, Answer._fields):
        yield from itertools.starmap(Answer, part)


def reference_answers(answers: Iterable[Answer | Row]) -> dict[tuple[str, int], str]:
    """Return the hash of the first measured answer to each prompt, and turn of it."""
    reference: dict[tuple[str, int], str] = {}
    for one in answers:
        if one.phase == "measure" and one.answer_hash is not None:
            reference.setdefault((one.prompt_id, one.turn), one.answer_hash)
    return reference


def answer_matches(answer: Answer | Row, reference: dict[tuple[str, int], str]) -> bool | None:
    """Tell whether a measured answer equals that of the reference; None where one of the two is missing."""
    wanted = reference.get((answer.prompt_id, answer.turn))
    if answer.phase != "measure" or answer.answer_hash is None or wanted is None:
        return None
    return answer.answer_hash == wanted
