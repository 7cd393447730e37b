"""Shows a run while it goes on: a live view on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType

    from kvbench.result.records import Row
    from kvbench.scenario.plan import Plan, RunSpec

_LINE_EVERY_S = 5.0


class Progress:
    """Follows the runs of a plan and knows when they should be over.

    ETA: each remaining run takes as long as the last run of its treatment, or as the mean of all runs. The last,
    because a treatment's first run may have primed a tier for all of them.
    """

    def __init__(self, plan: Plan) -> None:
        """Nothing has happened yet."""
        self.plan = plan
        self.spec: RunSpec | None = None
        self.number = 0
        self.text = "starting"
        self.measured = 0
        self.sent = 0
        self.failed = 0
        self.last: Row | None = None
        self.kept = 0
        self._started = self._run_started = time.monotonic()
        self._took: dict[str, list[float]] = defaultdict(list)
        self._sealed = False

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:  # noqa: ARG002 - the plan has the total
        """A run begins."""
        self.spec, self.number, self.measured, self.text = spec, number, 0, "server starts"
        self._sealed = False
        self._run_started = time.monotonic()

    def run_kept(self, spec: RunSpec) -> None:  # noqa: ARG002
        """A run of an earlier session is not done again."""
        self.kept += 1
        self.number += 1

    def step(self, text: str) -> None:
        """The next step of the current run."""
        self.text = text

    def request_done(self, row: Row) -> None:
        """A request ended."""
        self.sent += 1
        self.measured += row.phase == "measure"
        self.failed += row.status != "ok"
        self.last = row

    def run_ends(self, spec: RunSpec) -> None:
        """The run is sealed."""
        self._took[spec.treatment].append(time.monotonic() - self._run_started)
        self._sealed = True

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def remaining_s(self) -> float | None:
        """Seconds until all runs should be over; None before the first run is."""
        all_took = [took for times in self._took.values() for took in times]
        if not all_took:
            return None
        mean = sum(all_took) / len(all_took)
        ahead = self.plan.runs[self.number :]
        expected = sum(self._took[spec.treatment][-1] if self._took.get(spec.treatment) else mean for spec in ahead)
        if self.spec is not None and not self._sealed:
            took = self._took.get(self.spec.treatment)
            expected += max((took[-1] if took else mean) - (time.monotonic() - self._run_started), 0.0)
        return expected


class LineWatch(Progress):
    """Writes a plain line when a run starts or ends, and every few seconds in between."""

    def __init__(self, plan: Plan, console: Console) -> None:
        """Write to `console`."""
        super().__init__(plan)
        self._console = console
        self._last_line = 0.0

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:
        """Say which run begins."""
        super().run_starts(spec, number, total)
        self._say(f"run {number} of {total}: {spec.treatment}, round {spec.repeat}")

    def run_kept(self, spec: RunSpec) -> None:
        """Say that an earlier run is kept."""
        super().run_kept(spec)
        self._say(f"run {spec.run_id} is done already")

    def request_done(self, row: Row) -> None:
        """Say now and then how far the run is."""
        super().request_done(row)
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._say(f"  {describe_row(row)}")

    def run_ends(self, spec: RunSpec) -> None:
        """Say that a run is over, and what is left."""
        super().run_ends(spec)
        left = f", about {about(self.remaining_s)} left" if self.remaining_s else ""
        self._say(f"  sealed after {format_duration(self._took[spec.treatment][-1])}{left}")

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, highlight=False, markup=False)


class LiveWatch(Progress):
    """Draws one small panel that is updated in place."""

    def __init__(self, plan: Plan, console: Console) -> None:
        """Draw on `console`, which must be a terminal."""
        super().__init__(plan)
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self.draw, transient=True)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def draw(self) -> RenderableType:
        """Return the panel for this moment."""
        total = len(self.plan.runs)
        spec = self.spec
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", min_width=9)
        grid.add_column()
        grid.add_row("scenario", Text(self.plan.scenario, style="bold"))
        if spec is not None:
            rounds = max(run.repeat for run in self.plan.runs)
            text = f"{spec.treatment}, round {spec.repeat} of {rounds}, run {self.number} of {total}"
            grid.add_row("run", Text(text))
            grid.add_row("step", Text(f"{self.text} ({self.measured} of {len(spec.draws)} measured)"))
        grid.add_row("last", Text(describe_row(self.last) if self.last else "no request yet"))
        failed = Text(f"{self.sent} sent, {self.failed} failed", style="red" if self.failed else "")
        grid.add_row("requests", failed)
        grid.add_row("time", Text(self._time_line()))
        done = max(self.number - 1, 0) + (self.measured / max(len(spec.draws), 1) if spec else 0)
        return Group(grid, ProgressBar(total=total, completed=done, width=60))

    def _time_line(self) -> str:
        left = self.remaining_s
        eta = "not known before the first run is over" if left is None else f"about {about(left)} left"
        return f"{about(self.elapsed_s)} so far, {eta}"


def about(seconds: float) -> str:
    """Write a time in whole seconds, as an estimate deserves: "16 s", "2 min 06 s"."""
    return f"{round(seconds)} s" if seconds < 59.5 else format_duration(round(seconds))


def describe_row(row: Row) -> str:
    """Say in one line what a request was and how it ended."""
    prompt = row.phase if row.length is None else f"{row.phase} {format_count(row.length)} tokens"
    if row.status != "ok" or row.ttft_s is None:
        return f"{prompt}: {row.status}"
    cached = "" if row.cached_tokens is None else f", {row.cached_tokens:,} cached"
    return f"{prompt}: TTFT {format_duration(row.ttft_s)}{cached}"


def watch_for(plan: Plan, console: Console) -> Any:
    """Return the view that suits the console: live on a terminal, lines elsewhere."""
    return LiveWatch(plan, console) if console.is_terminal else LineWatch(plan, console)
