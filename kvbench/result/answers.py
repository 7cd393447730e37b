"""Compares answers: those that came from a cache with those that recomputing gave for the same prompt."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from kvbench.result import parquet_file
from kvbench.result.files import storage_faults
from kvbench.result.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kvbench.result.records import Row


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
    sealed = _sealed(runs)
    reference = _reference_of(sealed, reference_runs)
    for path in sealed.values():
        with storage_faults(path):
            parquet_file.replace_column(
                path, "answers_match", Answer._fields, lambda *values: answer_matches(Answer(*values), reference)
            )


def are_settled(runs: Path, reference_runs: list[str]) -> bool:
    """Tell whether every row holds what comparing its answer gives: a kill may come between sealing and comparing."""
    sealed = _sealed(runs)
    reference = _reference_of(sealed, reference_runs)
    return all(
        answer_matches(Answer(*values), reference) == kept
        for path in sealed.values()
        for part in parquet_file.parts(path, (*Answer._fields, "answers_match"))
        for *values, kept in part
    )


def _sealed(runs: Path) -> dict[str, Path]:
    """Return the file of rows of each sealed run, by the run's name."""
    return {path.parent.name: path.with_name(ROWS) for path in sorted(runs.glob("*/run.json"))}


def _reference_of(sealed: dict[str, Path], reference_runs: list[str]) -> dict[tuple[str, int], str]:
    files = [sealed[run_id] for run_id in reference_runs if run_id in sealed]
    return reference_answers(answer for path in files for answer in _answers_of(path))


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
