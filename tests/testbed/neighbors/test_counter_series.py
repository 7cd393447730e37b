"""Delivered load over exactly a window: interpolation, coverage, and what makes a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.result.verdict import Verdict
from kvbench.scenario.neighbors import Target
from kvbench.testbed.neighbors.counter_series import Cumulative, Series, delivered
from kvbench.testbed.neighbors.delivery import report
from kvbench.testbed.neighbors.trial import Evidence, Lost, Member, Trial

if TYPE_CHECKING:
    from kvbench.result.run_record import NeighborRecord
    from kvbench.testbed.neighbors.agent_event import AgentEvent

S = 10**9


def ramp(rate: float, start_s: float = 0.0, end_s: float = 20.0, step_s: float = 0.2) -> Cumulative:
    """A counter that grows evenly between two times, sampled at odd instants."""
    counter = Cumulative()
    counter.add(int(-5 * S), 0.0)
    steps = round((end_s - start_s) / step_s)
    for step in range(steps + 1):
        t_s = start_s + step * step_s
        counter.add(int(t_s * S), (t_s - start_s) * rate)
    counter.add(int(30 * S), (end_s - start_s) * rate)
    return counter


def test_bytes_between_samples_are_interpolated() -> None:
    counter = Cumulative([0, 10, 20], [0.0, 100.0, 400.0])
    assert counter.at(5) == 50.0
    assert counter.at(15) == 250.0
    assert (counter.at(-1), counter.at(99)) == (0.0, 400.0)
    assert counter.rate(5, 15) == pytest.approx(200 / 10 * 1e9)


def test_a_point_that_is_not_later_says_nothing() -> None:
    counter = Cumulative([5], [7.0])
    counter.add(5, 9.0)
    counter.add(6, 6.0)
    assert (counter.times_ns, counter.values) == ([5], [7.0])


def test_a_client_that_runs_through_covers_everything_whatever_the_sampling() -> None:
    for step_s in (0.1, 0.2, 0.25, 0.5):
        assert ramp(100.0, step_s=step_s).coverage(int(3.03 * S), int(9.41 * S), 90.0) == 1.0


def test_a_client_that_stops_in_the_middle_covers_half() -> None:
    coverage = ramp(100.0, end_s=10.0).coverage(5 * S, 15 * S, 90.0)
    assert coverage == pytest.approx(0.455, abs=0.02)  # a second that is 10 % short is out: (5 - 1 + 0.1) / (10 - 1)


def test_one_second_at_half_rate_is_seen() -> None:
    counter = Cumulative([0, 5 * S, 6 * S, 10 * S], [0.0, 500.0, 550.0, 950.0])
    assert counter.coverage(0, 10 * S, 90.0) == pytest.approx(1 - 1.6 / 9, abs=0.02)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**6)), min_size=2, max_size=30), st.data())
def test_a_window_split_in_two_holds_the_same_bytes(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    counter, t_ns, value = Cumulative(), 0, 0
    for gap, more in steps:
        t_ns, value = t_ns + gap, value + more
        counter.add(t_ns, value)
    start, middle, end = sorted(data.draw(st.lists(st.integers(0, t_ns + 5), min_size=3, max_size=3)))
    parts = (counter.at(middle) - counter.at(start)) + (counter.at(end) - counter.at(middle))
    assert parts == pytest.approx(counter.at(end) - counter.at(start))
    assert 0 <= counter.at(start) <= counter.at(middle) <= counter.at(end) <= value


def test_a_second_start_goes_on_where_the_first_ended() -> None:
    series = Series()
    series.begin(0)
    series.finish({"moved": [0, 500]}, 5 * S)
    series.begin(10 * S)
    series.finish({"moved": [0, 300]}, 13 * S)
    assert series.moved.at(7 * S) == 500
    assert series.moved.rate(10 * S, 13 * S) == pytest.approx(100)


def test_pressure_and_processor_of_a_window() -> None:
    series = Series()
    for second in range(5):
        cpu = {"busy": 50 * second, "all": 200 * second, "steal": 2 * second}
        event: AgentEvent = {"nic": [0, 0], "disk": None, "cpu": cpu, "psi": {"io": 100_000 * second}}
        series.sample(second * S, event, None)
    host = delivered(series, (0, 4 * S), None, by_disk=False).host
    assert host == {"cpu_busy": 0.25, "cpu_steal": 0.01, "psi_io": pytest.approx(0.1)}


WINDOW = (4 * S, 14 * S)


def member(moved: Cumulative, device_factor: float = 1.05, *, shared: bool = False, name: str = "") -> Member:
    device = Cumulative(list(moved.times_ns), [value * device_factor for value in moved.values])
    series = Series(moved=moved, nic=device)
    return Member(series, f"{name}eth0", by_disk=False, shared=shared, clock_error_s=1e-4, drift_s=0.0, facts={})


def judged(rates: dict[str, Cumulative], target: float | None, **changes: Any) -> NeighborRecord:
    trial = Trial(Target(), dict.fromkeys(rates, target), None, at_ns=0, steady=True, ready_ns=3 * S)
    trial.stop_asked_ns = 15 * S
    trial.started_ns = {name: 2_000_000 * number for number, name in enumerate(rates)}
    trial.ended_ns = dict.fromkeys(rates, 15 * S + 80_000_000)
    settings: dict[str, Any] = {
        "members": {name: member(moved, name=name) for name, moved in rates.items()},
        "trial": trial,
        "outcomes": {name: {"error": None} for name in rates},
        "lost": (),
        "lost_host": "retry",
        "generator": "fio",
    }
    return report(Evidence(**{**settings, **changes}), WINDOW)


def rules(kept: NeighborRecord) -> list[tuple[str, str]]:
    return [(reason.level, reason.rule) for reason in kept.verdict.reasons]


def test_all_at_their_target_is_valid() -> None:
    kept = judged({"c1": ramp(100.0), "c2": ramp(98.0)}, 100.0)
    assert kept.verdict == Verdict("valid")
    assert kept.delivered_bytes_per_s == pytest.approx(198.0)
    assert kept.delivered_over_asked == pytest.approx(0.99)
    assert kept.trial is not None
    assert kept.trial.start_skew_s == 0.002
    assert kept.trial.stop_s == pytest.approx(0.08)


def test_the_label_is_what_was_delivered() -> None:
    kept = judged({"c1": ramp(60e6), "c2": ramp(60e6)}, 100e6)
    assert kept.label == "120 MB/s"
    assert rules(kept) == [("suspect", "neighbour short")]
    assert "120 MB/s of 200 MB/s asked" in kept.verdict.reasons[0].text


def test_a_client_that_stood_still_is_invalid() -> None:
    kept = judged({"c1": ramp(100.0), "c2": ramp(100.0, end_s=10.0)}, 100.0)
    assert rules(kept) == [("invalid", "neighbour short")]
    assert (kept.hosts["c2"].moving or 0.0) < 0.95


def test_one_short_client_of_ten_is_suspect() -> None:
    rates = {f"c{number}": ramp(100.0) for number in range(9)} | {"c9": ramp(60.0)}
    assert rules(judged(rates, 100.0)) == [("suspect", "neighbour short")]


def test_a_generator_that_ended_by_itself_is_invalid() -> None:
    rates = {"c1": ramp(100.0)}
    outcomes = {"c1": {"error": "iperf3 ended by itself with exit code 0"}}
    assert ("invalid", "neighbour failed") in rules(judged(rates, 100.0, outcomes=outcomes))


def test_an_unlimited_client_must_only_move() -> None:
    assert judged({"c1": ramp(3.0)}, None).verdict.word == "valid"
    assert judged({"c1": ramp(3.0, end_s=6.0)}, None).verdict.word == "invalid"


@pytest.mark.parametrize(("policy", "level"), [("retry", "invalid"), ("continue", "suspect")])
def test_a_lost_host_by_policy(policy: str, level: str) -> None:
    rates = {"c1": ramp(100.0), "c2": ramp(100.0, end_s=6.0)}
    kept = judged(rates, 100.0, lost=(Lost("c2", "no word for 3 s", 9 * S),), lost_host=policy)
    assert rules(kept) == [(level, "neighbour lost")]


def test_bytes_that_no_device_saw_are_suspect() -> None:
    cached = {"c1": member(ramp(100.0), device_factor=0.1)}
    assert rules(judged({"c1": ramp(100.0)}, 100.0, members=cached)) == [("suspect", "neighbour counters")]


def test_clients_on_one_disk_share_its_counter() -> None:
    """Each says 100 and the common disk counted 105: half of it cannot have come from there."""
    both = {"c1": member(ramp(100.0)), "c2": member(ramp(100.0))}
    kept = judged({"c1": ramp(100.0), "c2": ramp(100.0)}, 100.0, members=both)
    assert rules(kept) == [("suspect", "neighbour counters")]


def test_an_unknown_clock_is_suspect() -> None:
    blurred = {"c1": Member(Series(moved=ramp(100.0)), "x", False, False, 0.5, 0.0, {})}  # noqa: FBT003
    assert rules(judged({"c1": ramp(100.0)}, 100.0, members=blurred)) == [("suspect", "neighbour clock")]


def test_a_window_before_the_ramp_was_over_is_invalid() -> None:
    trial = Trial(Target(), {"c1": 100.0}, None, at_ns=0, steady=True, ready_ns=5 * S)
    trial.ended_ns = {"c1": 15 * S}
    assert ("invalid", "neighbour ramp") in rules(judged({"c1": ramp(100.0)}, 100.0, trial=trial))


@pytest.mark.parametrize(
    ("foreign", "shared", "word"),
    [(0.0, False, "valid"), (1.9, False, "valid"), (5.0, False, "suspect"), (5.0, True, "valid")],
)
def test_the_negative_control(foreign: float, *, shared: bool, word: str) -> None:
    """A device that the server shares cannot tell: its bytes may be the server's own."""
    silent = Cumulative([0, 30 * S], [0.0, 0.0])
    quiet = Member(Series(moved=silent, nic=ramp(foreign)), "x", False, shared, 1e-4, 0.0, {})  # noqa: FBT003
    kept = judged({}, None, trial=None, outcomes={}, members={"c1": quiet}, reference_bytes_per_s=100.0)
    assert kept.verdict.word == word
    assert kept.label == "quiet"


def test_a_generator_in_a_quiet_window_is_invalid() -> None:
    kept = judged({}, None, trial=None, outcomes={}, members={"c1": member(ramp(1.0))})
    assert rules(kept) == [("invalid", "neighbour noise")]
