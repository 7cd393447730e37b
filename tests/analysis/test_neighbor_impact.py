"""What neighbours cost: the arithmetic, on a made-up result whose rates are known."""

from __future__ import annotations

import json
import math
import statistics
from typing import TYPE_CHECKING, Any, Literal

import pytest

from kvbench.analysis import dataset
from kvbench.analysis.neighbor_impact import MOST_DRAW, impact
from kvbench.analysis.neighbor_time_series import moved, neighbor_time_series
from kvbench.analysis.neighbor_types import BrokenTry, Capacity, LostSideClient
from tests.builders import results as synthetic
from tests.builders.made_up_doses import ALONE, LIMIT, Dose, build

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.analysis.measured_result import Dataset
    from kvbench.analysis.neighbor_types import Change, NeighborImpact, NeighborLevel

T4 = 2.776445  # t quantile of four degrees of freedom, 95 %


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five rounds, of which one try was broken off and one run lost a host for good."""
    dose = Dose(lost=("r02-storage_25",), gone=("r03-storage_50",))
    return dataset.read(build(dose, tmp_path_factory.mktemp("doses")))


@pytest.fixture(scope="module")
def found(result: Dataset) -> NeighborImpact:
    return told(result)


def told(result: Dataset) -> NeighborImpact:
    known = impact(result)
    assert known is not None
    return known


def interval(change: Change) -> tuple[float, float, float]:
    """Return the lower end, the value and the upper end of a change that has an interval."""
    assert change.low is not None
    assert change.value is not None
    assert change.high is not None
    return change.low, change.value, change.high


def made(dose: Dose, folder: Path) -> NeighborImpact:
    return told(dataset.read(build(dose, folder)))


def level(found: NeighborImpact, name: str) -> NeighborLevel:
    return next(one for one in found.levels if one.treatment == name)


def test_a_scenario_without_neighbours_has_no_doses(tmp_path: Path) -> None:
    folder = synthetic.build(synthetic.Case(repeats=1, lengths=["10k"]), tmp_path)
    assert impact(dataset.read(folder)) is None


def test_delivered_is_a_mean_with_its_range_never_what_was_asked(found: NeighborImpact) -> None:
    one, known = level(found, "storage_25"), [Dose().delivered("storage_25", number) for number in range(1, 6)]
    assert one.delivered_bytes_per_s.mean == pytest.approx(statistics.fmean(known))
    assert one.delivered_bytes_per_s.least == min(known)
    assert one.delivered_bytes_per_s.most == max(known)
    assert one.asked_bytes_per_s == pytest.approx(0.25 * ALONE)
    assert one.delivered_over_asked == pytest.approx(statistics.fmean(known) / (0.25 * ALONE))
    assert one.of_capacity == pytest.approx(statistics.fmean(known) / LIMIT)


def test_the_share_left_is_paired_by_round_with_a_t_interval(found: NeighborImpact) -> None:
    dose, one = Dose(), level(found, "storage_63")
    logs = [math.log(dose.draws("storage_63", n) / dose.draws("quiet", n)) for n in range(1, 6)]
    reach = T4 * statistics.stdev(logs) / math.sqrt(5)
    assert one.kv_share.value == pytest.approx(math.exp(statistics.fmean(logs)), rel=1e-6)
    assert one.kv_share.low == pytest.approx(math.exp(statistics.fmean(logs) - reach), rel=1e-5)
    assert one.kv_share.high == pytest.approx(math.exp(statistics.fmean(logs) + reach), rel=1e-5)
    assert one.kv_share.rounds == 5


def test_loss_and_increase_are_two_numbers_of_one_ratio(found: NeighborImpact) -> None:
    """The same requests at 40 % of the rate: 60 % of the throughput lost, and 150 % more time."""
    one = level(found, "storage_63")
    low, loss, high = interval(one.throughput_loss)
    assert loss == pytest.approx(1 - interval(one.requests_share)[1])
    assert low < loss < high
    low, longer, high = interval(one.time_increase)
    assert longer == pytest.approx(1 / (1 - loss) - 1, rel=1e-6)
    assert low < longer < high
    assert [loss, longer] == [pytest.approx(0.60, abs=0.01), pytest.approx(1.5, abs=0.03)]


def test_what_is_left_of_the_capacity_is_expected_and_found(found: NeighborImpact) -> None:
    for name in ("storage_25", "storage_63"):
        one = level(found, name)
        left = statistics.fmean((LIMIT - Dose().delivered(name, number)) / LIMIT for number in range(1, 6))
        assert one.expected_share == pytest.approx(left)
        assert one.over_expected.value == pytest.approx(1.0, abs=0.02)
        assert (one.agreement, one.unjudged) == ("shown", None)
    assert found.quiet["quiet"].storage_bound is True


def test_both_together_pass_no_more_than_the_limit(found: NeighborImpact) -> None:
    dose, one = Dose(), level(found, "storage_25")
    total = statistics.fmean(dose.draws("storage_25", n) + dose.delivered("storage_25", n) for n in range(1, 6))
    assert one.passed_bytes_per_s == pytest.approx(total, rel=1e-6)
    assert one.passed_over_limit == pytest.approx(total / LIMIT, rel=1e-6)


def test_unlimited_neighbours_have_no_expected_share(found: NeighborImpact) -> None:
    one = level(found, "storage_unlimited")
    assert (one.unlimited, one.asked_bytes_per_s, one.delivered_over_asked) == (True, None, None)
    assert (one.expected_share, one.unjudged) == (None, "nothing paces it")
    assert one.of_capacity == pytest.approx(5 / 6, rel=0.01)


def test_a_load_that_does_not_pass_the_bottleneck_has_no_capacity(found: NeighborImpact) -> None:
    one = level(found, "fabric")
    assert (one.capacity, one.of_capacity, one.passed_over_limit) == (None, None, None)
    assert one.unjudged == "no shared bottleneck"
    low, _, high = interval(one.throughput_loss)
    assert low < 0 < high


@pytest.mark.parametrize(
    ("kind", "spec", "shared"),
    [
        ("disk", {"fio": {"rw": "read"}}, True),
        ("disk", {"fio": {"rw": "write"}}, False),
        ("link", {"fio": {"rw": "randread"}}, True),
        ("link", {"iperf3": {"reverse": True}}, True),
        ("link", {"iperf3": {"reverse": False}}, False),
    ],
)
def test_only_bytes_that_pass_the_bottleneck_count_against_it(
    tmp_path: Path,
    kind: Literal["disk", "link"],
    spec: dict[str, Any],
    shared: bool,  # noqa: FBT001
) -> None:
    levels: Any = {"load_25": ("storage", {"aggregate": None, "fraction": 0.25})}
    dose = Dose(repeats=1, levels=levels, kind=kind, loads={"storage": spec}, with_recompute=False)
    one = level(made(dose, tmp_path), "load_25")
    assert one.capacity is not None
    assert (one.capacity.source != "calibrated") is shared
    assert (one.expected_share is not None) is shared


def test_a_link_is_counted_by_its_payload(tmp_path: Path) -> None:
    found = made(Dose(repeats=1, kind="link", draw=0.95), tmp_path)
    assert found.limit_bytes_per_s == pytest.approx(LIMIT * 8948 / 9014)
    assert found.quiet["quiet"].of_limit == pytest.approx(0.95 * 9014 / 8948, rel=0.02)
    assert found.quiet["quiet"].storage_bound is True


def test_the_capacity_is_the_quiet_draw_where_that_is_more_than_the_limit(tmp_path: Path) -> None:
    one = level(made(Dose(repeats=1, draw=1.04), tmp_path), "storage_25")
    assert one.capacity is not None
    assert one.capacity.source == "quiet draw"
    assert one.capacity.bytes_per_s == pytest.approx(Dose(draw=1.04).draws("quiet", 1), rel=1e-6)


def test_a_quiet_draw_far_above_the_limit_is_not_judged(tmp_path: Path) -> None:
    """In a second or two, what a limit lets pass at once is not little."""
    found = made(Dose(repeats=3, draw=1.1), tmp_path)
    assert (found.quiet["quiet"].of_limit or 0.0) > MOST_DRAW
    assert level(found, "storage_25").unjudged == "quiet too short"


def test_an_experiment_that_storage_does_not_bind_is_not_judged(tmp_path: Path) -> None:
    found = made(Dose(repeats=3, draw=0.7), tmp_path)
    one = level(found, "storage_25")
    assert found.quiet["quiet"].storage_bound is False
    assert one.expected_share is not None
    assert (one.agreement, one.unjudged) == (None, "not storage-bound")


def test_without_a_bottleneck_shares_are_of_what_neighbours_reach_alone(tmp_path: Path) -> None:
    found = made(Dose(repeats=1, made=False), tmp_path)
    one = level(found, "storage_50")
    assert found.bottleneck is not None
    assert (found.limit_bytes_per_s, found.bottleneck.how) == (None, None)
    assert one.capacity == Capacity(ALONE, "calibrated")
    assert (one.expected_share, one.agreement) == (None, None)


def test_one_round_has_a_ratio_and_no_interval(tmp_path: Path) -> None:
    one = level(made(Dose(repeats=1), tmp_path), "storage_50")
    loss = one.throughput_loss
    assert (one.agreement, one.unjudged) == (None, "too few rounds")
    assert (loss.low, loss.high, loss.refusal) == (None, None, "n/a (rounds=1 < 3)")
    assert loss.value == pytest.approx(0.48, abs=0.02)


def test_an_invalid_run_is_counted_and_left_out(found: NeighborImpact) -> None:
    one = level(found, "storage_50")
    assert (one.load.runs, one.load.runs_used, one.load.verdicts) == (5, 4, {"valid": 4, "invalid": 1})
    assert one.throughput_loss.rounds == 4
    assert found.lost == (LostSideClient("r03-storage_50", "c2", "no word for 3 s", used=False),)
    assert found.attempts == (BrokenTry("r02-storage_25", 1, "c3 was lost: its agent ended"),)


def test_side_clients_are_told_for_every_treatment(found: NeighborImpact) -> None:
    assert [one.host for one in found.hosts[:4]] == ["c1", "c2", "c3", "c4"]
    own = next(one for one in found.hosts if (one.treatment, one.host) == ("storage_50", "c1"))
    assert (own.runs, own.coverage, own.clock_error_s) == (4, 1.0, 0.00012)
    assert (own.direct, own.scheduler, own.device_shared_with_server) == ("enforced", "mq-deadline", True)


def test_over_recompute_is_of_the_treatment_without_a_cache(found: NeighborImpact, result: Dataset) -> None:
    rates = {run.treatment: len(run.answered) / (run.record.load_s or 0.0) for run in result.runs if run.repeat == 1}
    one = level(found, "storage_25").requests_over_recompute
    assert one.value == pytest.approx(rates["storage_25"] / rates["recompute"], rel=0.02)


# -- over time ---------------------------------------------------------------------------------------------------------


def test_a_course_has_the_typical_run_of_each_level(result: Dataset, found: NeighborImpact) -> None:
    courses = neighbor_time_series(result, found)
    assert [one.treatment for one in courses] == ["quiet", *(one.treatment for one in found.levels)]
    quiet, one = courses[0], courses[1]
    assert (quiet.start_s, quiet.stop_s, len(quiet.rate_at_s), len(quiet.bytes_per_s)) == (None, None, 0, 0)
    assert len(quiet.sent_s) == len(quiet.ttft_s) == 60
    assert one.start_s == pytest.approx(-3.5)
    assert one.ready_s == pytest.approx(-0.4)
    assert one.stop_s == pytest.approx(one.end_s + 0.25)
    assert one.ended_s == pytest.approx(one.end_s + 0.37)


def test_rates_are_those_of_all_side_clients_on_our_clock(result: Dataset, found: NeighborImpact) -> None:
    """The agents' clocks are a second ahead: taken as they stand, the load would seem to start a second late."""
    one = neighbor_time_series(result, found)[1]
    known = Dose().delivered("storage_25", int(one.run_id[1:3]))
    before = one.bytes_per_s[one.rate_at_s < -4]
    during = one.bytes_per_s[(one.rate_at_s > -3) & (one.rate_at_s < one.end_s)]
    assert len(before)
    assert before.max() == 0
    assert during.tolist() == pytest.approx([known] * len(during), rel=1e-3)


def test_a_generator_that_starts_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "c1.jsonl"
    lines = [
        {"event": "started", "t_ns": 0, "clock_ns": 5, "at_ns": 5},
        {"event": "sample", "t_ns": 100, "clock_ns": 105, "moved": [105, 1000]},
        {"event": "final", "t_ns": 200, "clock_ns": 205, "moved": [205, 2000]},
        {"event": "sample", "t_ns": 250, "clock_ns": 255, "moved": None},
        {"event": "started", "t_ns": 300, "clock_ns": 305, "at_ns": 305},
        {"event": "sample", "t_ns": 400, "clock_ns": 405, "moved": [405, 700]},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "sam')
    assert list(moved(log)) == [(0, 0.0), (100, 1000.0), (200, 2000.0), (300, 2000.0), (400, 2700.0)]
    assert list(moved(tmp_path / "missing.jsonl")) == []
