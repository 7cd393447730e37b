"""`kvbench run` of a result that was killed after its last run: it is finished, and nothing is measured again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from kvbench.analysis import summary
from kvbench.cli import app
from kvbench.cli.write_summary import write_summary
from kvbench.result import answers, parquet_file
from kvbench.result.files import read_json
from kvbench.testbed import testbed
from tests.experiment.test_run import FakeTestbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvbench.scenario.scenario import Scenario

SCENARIO = """\
name: made-up
question: Does it hold?
server: {emulator: {scale: {time: 8, bytes: 512}}}
tiers: {g4: {path: kvcache, capacity: 1GB}}
prompts: {lengths: [1000, 2000]}
treatments:
  recompute: {cache: off}
  g4: {cache: {warm: g4}}
baseline: recompute
repeats: 1
check_answers: true
"""


class KilledError(BaseException):
    """Ends the command as `kill -9` would: nothing in kvbench catches it."""


class MadeUpBed(FakeTestbed):
    attached = None


def die(*_: Any) -> None:
    raise KilledError


def before_the_answers_are_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(answers, "settle_answers", die)


def while_the_answers_are_compared(patch: pytest.MonkeyPatch) -> None:
    write: Callable[..., None] = parquet_file.replace_column
    written: set[Path] = set()

    def write_one(path: Path, *rest: Any) -> None:
        if written:
            raise KilledError
        written.add(path)
        write(path, *rest)

    patch.setattr(parquet_file, "replace_column", write_one)


def before_the_summary(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(summary, "summary_of", die)


def while_the_summary_is_written(patch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def replace_others(self: Path, target: Path) -> Path:
        if target.name == "summary.json":
            raise KilledError
        return replace(self, target)

    patch.setattr(Path, "replace", replace_others)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command in this process, on a made-up server; without `is_up` a server must not be asked for."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "made-up.yaml"
    file.write_text(SCENARIO)

    def invoke(*, is_up: bool = True) -> str:
        @contextlib.contextmanager
        def stand_up(_: Scenario) -> Iterator[MadeUpBed]:
            assert is_up, "nothing is left to measure"
            yield MadeUpBed(tmp_path / "tier")

        monkeypatch.setattr(testbed, "stand_up", stand_up)
        done = CliRunner().invoke(app.app, ["run", str(file)], catch_exceptions=False, env={**os.environ})
        assert done.exit_code in (0, 3), done.output
        return done.output

    return invoke


@pytest.mark.parametrize("is_reported", [False, True], ids=["left alone", "reported before it is run again"])
@pytest.mark.parametrize(
    "moment",
    [
        before_the_answers_are_compared,
        while_the_answers_are_compared,
        before_the_summary,
        while_the_summary_is_written,
    ],
    ids=lambda moment: moment.__name__,
)
def test_a_run_that_is_killed_after_its_last_seal_is_finished(
    moment: Callable[[pytest.MonkeyPatch], None], *, is_reported: bool, run: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        moment(patch)
        with pytest.raises(KilledError):
            run()
    (folder,) = (tmp_path / "results" / "made-up").iterdir()
    assert len(list(folder.glob("runs/*/run.json"))) == 2
    is_left_to_do = not is_reported or "answers" in moment.__name__  # a report writes the summary, and nothing else
    if is_reported:
        write_summary(folder)
    if is_left_to_do:
        assert f"all runs of {folder.relative_to(tmp_path)} are done already" in run(is_up=False)
    assert list(folder.parent.iterdir()) == [folder]
    summed = read_json(folder / "summary.json")
    assert (summed["complete"], summed["answers_compared"]) == (True, True)
    assert {name: one["answers_match"] for name, one in summed["treatments"].items()} == {"recompute": 1.0, "g4": 1.0}
    assert summed["facts_changed"] == []
    run()
    assert len(list(folder.parent.iterdir())) == 2, "a finished result is never gone on with"
