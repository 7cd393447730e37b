"""Typed summaries for tests: each function makes one value with plain defaults, and takes any field by keyword."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvbench.analysis.metrics import METRICS
from kvbench.analysis.neighbor_types import (
    Capacity,
    Change,
    Extent,
    LoadFigures,
    NeighborImpact,
    NeighborLevel,
    QuietArm,
    SideClientSummary,
    TrialExtremes,
)
from kvbench.analysis.summary_types import (
    Figure,
    JudgedRatio,
    LengthCell,
    LengthRow,
    OpenLoopSummary,
    PublishedCell,
    PublishedLine,
    PublishedTable,
    RunSummary,
    ScheduleFigure,
    Summary,
    TreatmentSummary,
)
from kvbench.result.calibration_record import CalibrationCell, CalibrationExcerpt, Spread
from kvbench.result.plan_record import Slo
from kvbench.result.run_record import BottleneckRecord, DriverRecord, Ledger, Step


def figure(value: float | None = 0.0242, **fields: Any) -> Figure:
    """Return a figure with an interval of 2 % around it, or a refused one where the value is None."""
    plain = Figure(
        n=20,
        units=20,
        rounds=3,
        value=value,
        low=None if value is None else 0.98 * value,
        high=None if value is None else 1.02 * value,
        bound="none" if value is None else "two-sided",
        needed_n=None,
        refusal="n/a (n=20 < 59)" if value is None else None,
    )
    return replace(plain, **fields)


def judged_ratio(ratio: float | None = 3.93, **fields: Any) -> JudgedRatio:
    """Return a ratio that was shown over three rounds."""
    plain = JudgedRatio(
        ratio=ratio,
        low=None if ratio is None else 0.97 * ratio,
        high=None if ratio is None else 1.03 * ratio,
        rounds=3,
        method="t",
        least=None if ratio is None else 0.98 * ratio,
        most=None if ratio is None else 1.02 * ratio,
        sd_log=0.01,
        p_value=0.001,
        p_holm=0.002,
        noise_floor=None,
        word="faster",
        reason="the interval lies above 1",
        refusal=None,
        rounds_needed=3,
        detectable=0.03,
    )
    return replace(plain, **fields)


def ledger(**fields: Any) -> Ledger:
    """Return a ledger that closes, of a run that read all of its prompts from one tier."""
    plain = Ledger(
        requests=20,
        prompt_tokens=200_000,
        cached_tokens=199_680,
        expected_cached_tokens=199_680,
        counter_hits=199_680.0,
        counter_computed=320.0,
        read_bytes={"g4": 1.8e9},
        process_read_bytes=1_800_000_000,
        expected_read_bytes=1_800_000_000,
        hit_efficiency=1.0,
        closes=True,
        gap=None,
    )
    return replace(plain, **fields)


def run(run_id: str = "r1-warm", treatment: str = "warm", **fields: Any) -> RunSummary:
    """Return a valid run of 20 requests."""
    plain = RunSummary(
        run_id=run_id,
        treatment=treatment,
        repeat=1,
        attempt=1,
        started="2026-05-01T10:00:00.123456+00:00",
        load_s=4.2,
        sent_one_by_one=True,
        requests=20,
        ok=20,
        headline=0.0242,
        failures={},
        tiers={"g4": 20},
        cache_state="warm(g4)",
        cache_steps=(Step("reset", "done", "the server says so"), Step("canary", "proven", "512 tokens from g4")),
        ledger=ledger(),
        client=DriverRecord("native", stamps="kernel", client_cpu_s=0.1, wall_s=4.2, clock_step_s=2e-6),
        verdict="valid",
        reasons=(),
    )
    return replace(plain, **fields)


def metrics(**values: float | None) -> dict[str, Figure]:
    """Return a figure of every metric: those that are given with an interval, the others without a value or an n."""
    absent = figure(None, n=0, units=0, rounds=0, refusal="n/a (n=0)")
    return {name: figure(values[name]) if values.get(name) is not None else absent for name in METRICS}


def treatment(**fields: Any) -> TreatmentSummary:
    """Return a valid treatment, warm at G4, with three runs of 20 requests."""
    plain = TreatmentSummary(
        cache_state="warm(g4)",
        runs=3,
        runs_used=3,
        verdict="valid",
        reasons=(),
        requests=60,
        sent=60,
        failures={},
        tiers={"g4": 60},
        cached_tokens=599_040,
        expected_cached_tokens=599_040,
        hit_efficiency=1.0,
        read_bytes=5.4e9,
        process_read_bytes=5_400_000_000,
        expected_read_bytes=5_400_000_000,
        answers_match=None,
        slo_attainment=None,
        upper_bounds=0,
        overrun_share=0.0012,
        storage_bytes_per_s=2.1e9,
        most_gain=None,
        empty_starts=(),
        metrics=metrics(ttft_p50=0.0242, ttft_p95=0.031, total_time=4.2, requests_per_s=4.76, hit_rate=0.9984),
    )
    return replace(plain, **fields)


def length_cell(median_s: float | None = 0.0242, **fields: Any) -> LengthCell:
    """Return TTFT of 60 requests, or of none where the median is None."""
    refused = figure(None, refusal="n/a (n=60 < 299)", n=60)
    known = median_s is not None
    plain = LengthCell(
        n=60 if known else 0,
        median_s=median_s,
        min_s=0.9 * median_s if median_s is not None else None,
        max_s=1.3 * median_s if median_s is not None else None,
        ttft={
            "p50": figure(median_s),
            "p95": figure(1.2 * median_s, low=None, bound="upper") if median_s is not None else figure(None),
            "p99": refused,
        },
        influence=None,
        full_scale_median_s=None,
        tiers={"g4": 60} if known else {},
        unproven=0,
        load_s=0.012 if known else None,
    )
    return replace(plain, **fields)


def length_row(isl: int | None = 10_000, cells: dict[str, LengthCell] | None = None, **fields: Any) -> LengthRow:
    """Return a prompt length with a baseline that recomputes and a treatment that is faster."""
    plain = {
        "recompute": length_cell(0.0951, tiers={"recompute": 60}),
        "warm": length_cell(comparison=judged_ratio(), recompute_over_load=7.9),
    }
    return replace(LengthRow(isl, None, plain if cells is None else cells, None), **fields)


def summary(**fields: Any) -> Summary:
    """Return a complete and valid result: `recompute`, the baseline, and `warm`, at two prompt lengths."""
    off = treatment(
        cache_state="off",
        tiers={"recompute": 60},
        cached_tokens=0,
        expected_cached_tokens=0,
        hit_efficiency=None,
        read_bytes=None,
        process_read_bytes=0,
        expected_read_bytes=None,
        storage_bytes_per_s=None,
        metrics=metrics(ttft_p50=0.0951, ttft_p95=0.12, total_time=9.1, requests_per_s=2.2, hit_rate=0.0),
    )
    plain = Summary(
        scenario="tiers",
        question="Is reading from G4 faster than recomputing?",
        result="2026-05-01T10-00-00",
        server="emulator",
        model="llama-3-8b",
        driver="native",
        concurrency=1,
        concurrencies={"recompute": 1, "warm": 1},
        open_loops={},
        turns=None,
        output_tokens=16,
        repeats=3,
        baseline="recompute",
        baselines={"recompute": None, "warm": "recompute"},
        slo=Slo(),
        scale=None,
        published=None,
        published_table=None,
        complete=True,
        answers_compared=True,
        facts_changed=(),
        calibration=None,
        imported=None,
        runs_planned=2,
        verdict="valid",
        runs=(
            run("r1-recompute", "recompute", cache_state="off", tiers={"recompute": 20}),
            run(),
        ),
        treatments={
            "recompute": off,
            "warm": treatment(comparisons={"ttft_p50": judged_ratio(), "requests_per_s": judged_ratio(2.16)}),
        },
        lengths=(length_row(), length_row(50_000)),
        same_pairs=(),
        same_pair_rounds=None,
        headline="ttft_p50",
        neighbors=None,
    )
    one = replace(plain, **fields)
    rest: dict[str, Any] = {
        "lengths": tuple(_with_cells(length, one) for length in one.lengths),
        "baselines": {name: one.baselines.get(name) for name in one.treatments},
        "concurrencies": {name: one.concurrencies.get(name, 1) for name in one.treatments},
    }
    return replace(one, **{name: value for name, value in rest.items() if name not in fields})


def _with_cells(length: LengthRow, one: Summary) -> LengthRow:
    """Return a row with a cell for each treatment that a test named."""
    return replace(length, cells={name: length.cells.get(name) or length_cell() for name in one.treatments})


def open_loop(**fields: Any) -> OpenLoopSummary:
    """Return a schedule of five requests a second that the server kept."""
    ttft = ScheduleFigure("ttft_p50", "TTFT P50", "s", figure(0.0242), figure(0.0255))
    plain = OpenLoopSummary(
        request_rate=5.0,
        arrival="poisson",
        offered_per_s=5.1,
        achieved_per_s=figure(4.98),
        waited_mean_s=0.001,
        first_quarter_s=0.03,
        last_quarter_s=0.031,
        growth=0.001,
        grew=False,
        figures=(ttft,),
    )
    return replace(plain, **fields)


def calibration(**fields: Any) -> CalibrationExcerpt:
    """Return an excerpt of one cell whose 99th percentile is refused."""
    error = Spread(n=100, min=1e-6, p50=12e-6, p90=20e-6, p99=None, max=60e-6, mean=13e-6)
    cell = CalibrationCell(
        driver="native",
        connections=1,
        prompt_tokens=10_000,
        machine="idle",
        n=100,
        failed=0,
        failures={},
        without_server_stamp=0,
        upper_bounds=1,
        upper_share=0.01,
        error_s=error,
        over_server_s=error,
        sending_s=error,
        user_clock_s=None,
        offered_rps=10.0,
        achieved_rps=9.9,
        measured_s=10.0,
        client_cpu_s=0.4,
        server_cpu_s=0.6,
        start_s=None,
        calls=100,
    )
    plain = CalibrationExcerpt("2026-04-30T09:00:00+00:00", "native", (cell,), 90_000.0)
    return replace(plain, **fields)


def published_cell(**fields: Any) -> PublishedCell:
    """Return a metric that both sides have, and whose ratio both sides have."""
    plain = PublishedCell(
        n=60,
        value=0.0242,
        refusal=None,
        full_scale=2.42,
        ratio=3.93,
        low=3.8,
        high=4.1,
        word="faster",
        published=2.6,
        published_text="2.6 s",
        published_ratio=3.5,
    )
    return replace(plain, **fields)


def published_table(**fields: Any) -> PublishedTable:
    """Return a document of one metric: a row that was run, one that was not, and a treatment without a row."""
    none = published_cell(value=None, refusal="n/a (n=0)", full_scale=None, ratio=None, low=None, high=None, word=None)
    own = published_cell(published=None, published_text=None, published_ratio=None)
    plain = PublishedTable(
        title="A paper",
        section="Table 2",
        ratios="times",
        metrics=("ttft_mean",),
        remarks=("The paper does not name its model.",),
        rows=(
            PublishedLine("warm", "LMCache", None, {"ttft_mean": published_cell()}),
            PublishedLine("warm_again", None, None, {"ttft_mean": own}),
            PublishedLine(None, "vLLM native", None, {"ttft_mean": none}),
        ),
    )
    return replace(plain, **fields)


# -- neighbours --------------------------------------------------------------------------------------------------------


def extent(mean: float | None = 1.0e9, **fields: Any) -> Extent:
    """Return a mean of three rounds that lie 1 % around it."""
    known = mean is not None
    plain = Extent(mean, 0.99 * mean if mean is not None else None, 1.01 * mean if mean is not None else None, 3)
    return replace(plain, **fields) if known or fields else Extent(None, None, None, 0)


def change(value: float | None = 0.3, **fields: Any) -> Change:
    """Return a change with an interval of two points around it."""
    low, high = (None, None) if value is None else (value - 0.02, value + 0.02)
    plain = Change(value, low, high, 3, "n/a (no quiet partner)" if value is None else None)
    return replace(plain, **fields)


def load_figures(**fields: Any) -> LoadFigures:
    """Return what three valid runs did."""
    plain = LoadFigures(extent(4.76), extent(2.0e9), 3, 3, {"valid": 3}, "r2-warm")
    return replace(plain, **fields)


def neighbor_level(treatment: str = "noisy", **fields: Any) -> NeighborLevel:
    """Return a level at which neighbours deliver half of the bottleneck's capacity."""
    plain = NeighborLevel(
        treatment=treatment,
        quiet="warm",
        load_name="readers",
        generator="fio",
        hosts=2,
        target="50 %",
        unlimited=False,
        asked_bytes_per_s=1.0e9,
        calibrated_bytes_per_s=2.0e9,
        delivered_bytes_per_s=extent(),
        delivered_over_asked=0.99,
        capacity=Capacity(2.0e9, "limit"),
        of_capacity=0.5,
        trials=TrialExtremes(0.4, 0.01, 0.2, 3, 3),
        load=load_figures(requests_per_s=extent(2.9), kv_bytes_per_s=extent(1.2e9)),
        passed_bytes_per_s=2.1e9,
        passed_over_limit=1.05,
        requests_share=change(0.61),
        throughput_loss=change(0.39),
        time_increase=change(0.64),
        kv_share=change(0.6),
        ttft_p50_increase=change(0.7),
        ttft_p95_increase=change(None),
        requests_over_recompute=change(1.4),
        expected_share=0.5,
        over_expected=change(1.2),
        agreement="no",
        unjudged=None,
    )
    return replace(plain, **fields)


def side_client(host: str = "client-1", **fields: Any) -> SideClientSummary:
    """Return a side client that delivered what it was asked for."""
    plain = SideClientSummary(
        treatment="noisy",
        host=host,
        runs=3,
        delivered_bytes_per_s=5.0e8,
        coverage=0.99,
        clock_error_s=2e-5,
        device="disk",
        device_bytes_per_s=5.1e8,
        device_shared_with_server=False,
        direct="enforced",
        scheduler="none",
        file_system="ext4",
        version="fio-3.36",
    )
    return replace(plain, **fields)


def neighbor_impact(**fields: Any) -> NeighborImpact:
    """Return one quiet arm and one level of neighbours behind a bottleneck."""
    plain = NeighborImpact(
        bottleneck=BottleneckRecord("disk", 2.0e9, "blk-throttle"),
        limit_bytes_per_s=2.0e9,
        quiet={"warm": QuietArm(load_figures(), 4.2, 0.97, storage_bound=True)},
        levels=(neighbor_level(),),
        hosts=(side_client(), side_client("client-2")),
        lost=(),
        attempts=(),
    )
    return replace(plain, **fields)
