"""What a run shows while it goes on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from kvbench.report import progress_view
from kvbench.scenario import plan
from tests.builders.worlds import make_scenario
from tests.result.test_folder import row

if TYPE_CHECKING:
    import pytest

PLAN = plan.expand(make_scenario())


def lines_of(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def go_through(watch: progress_view.Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 10 s, then one of 2 s: the first of a treatment primes, the next ones do not."""
    clock = iter(float(tick) for tick in range(0, 10_000, 10))
    monkeypatch.setattr("kvbench.report.progress_view.time.monotonic", lambda: next(clock))
    for number, spec in enumerate(PLAN.runs[:2], 1):
        watch.run_starts(spec, number, len(PLAN.runs))
        watch.step("measure")
        watch.request_done(row(0))
        watch.run_ends(spec)


def test_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=100)
    with progress_view.watch_for(PLAN, console) as watch:
        assert isinstance(watch, progress_view.LineWatch)
        go_through(watch, monkeypatch)
    text = lines_of(console)
    assert "run 1 of 4: " in text
    assert "measure 1k tokens: TTFT 1.00 us" in text
    assert "sealed after" in text
    assert "\x1b" not in text


def test_a_panel_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with progress_view.watch_for(PLAN, console) as watch:
        assert isinstance(watch, progress_view.LiveWatch)
    go_through(watch, monkeypatch)
    plain = Console(file=io.StringIO(), width=100)
    plain.print(watch.draw())
    text = lines_of(plain)
    assert "made-up" in text
    assert "run 2 of 4" in text
    assert "1 of 2 measured" in text
    assert "2 sent, 0 failed" in text
    assert "left" in text


def test_nothing_is_left_after_the_last_run() -> None:
    watch = progress_view.Progress(PLAN)
    for number, spec in enumerate(PLAN.runs, 1):
        watch.run_starts(spec, number, len(PLAN.runs))
        watch.run_ends(spec)
    assert watch.remaining_s == 0


def test_runs_of_an_earlier_session_are_counted() -> None:
    watch = progress_view.Progress(PLAN)
    watch.run_kept(PLAN.runs[0])
    assert (watch.number, watch.kept, watch.remaining_s) == (1, 1, None)


def test_estimates_are_whole_seconds() -> None:
    assert [progress_view.about(seconds) for seconds in (0.2, 16.4, 59.9, 126.0)] == [
        "0 s",
        "16 s",
        "1 min 00 s",
        "2 min 06 s",
    ]


def test_a_failed_request_is_named() -> None:
    assert progress_view.describe_row(row(0, status="timeout", ttft_s=None)) == "measure 1k tokens: timeout"
