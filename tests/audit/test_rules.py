"""Each rule on documents of a few lines, and that none of them speaks against figures that are only rounded."""

from __future__ import annotations

import random
import statistics
from textwrap import indent
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.audit.curves import polynomial, prefill_between
from kvbench.audit.distinct_prompts import distinct_draws
from kvbench.audit.percentiles import _DEFINITIONS, largest_smallest
from kvbench.audit.rules import examine
from kvbench.publications import claims_file
from kvbench.publications.printed_figure import Interval, read

if TYPE_CHECKING:
    from kvbench.audit.findings import Check

HEAD = """\
schema_version: 1
name: example
title: An example
source: {publisher: nobody}
"""


def document(body: str) -> list[Check]:
    return list(examine(claims_file.parse(HEAD + body, "example")).checks)


def of(rule: str, checks: list[Check]) -> list[Check]:
    return [check for check in checks if check.rule == rule]


def derived(first: str, second: str, claim: str) -> Check:
    body = f"""\
quantities:
- {{id: old, what: ttft, value: "{first}", unit: s, section: s}}
- {{id: new, what: ttft, value: "{second}", unit: s, section: s}}
derived:
- {{text: t, section: s, of: new, over: old, {claim}}}
"""
    (check,) = of("derived figures", document(body))
    return check


# -- derived figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "severity"),
    [
        ('form: decrease, value: "50", unit: "%"', None),
        ('form: decrease, value: "48", unit: "%"', "conflict"),
        ('form: change, value: "-50.0", unit: "%"', None),
        ('form: ratio, value: "0.5", unit: x', None),
        ('form: difference, value: "-1.0", unit: s', None),
        ('form: decrease, value: "40", unit: "%", words: over', None),
        ('form: decrease, value: "60", unit: "%", words: over', "conflict"),
        ('form: decrease, value: "60", unit: "%", words: up to', None),
        ('form: decrease, value: "48", unit: "%", words: about', None),
    ],
)
def test_a_derived_figure_holds_if_some_rounded_numbers_give_it(claim: str, severity: str | None) -> None:
    assert derived("2.00", "1.00", claim).severity == severity


def test_digits_that_were_cut_off_are_a_note() -> None:
    check = derived("1.000", "1.479", 'form: increase, value: "47", unit: "%"')
    assert (check.severity, check.instead) == ("note", "the digits were cut off, not rounded")
    check = derived("1.47900", "1.00000", 'form: change, value: "-32.3", unit: "%"')  # -32.39 %
    assert (check.severity, check.instead) == ("note", "the digits were cut off, not rounded")


def test_the_other_base_is_named() -> None:
    check = derived("2.00", "1.60", 'form: increase, value: "20", unit: "%"')
    assert check.severity == "conflict"
    assert "it means the decrease of ttft: 1 - 1.60 s / 2.00 s = 20 %" in check.instead


@given(st.floats(0.05, 500), st.floats(0.05, 500), st.integers(1, 3), st.integers(0, 2))
def test_honest_percentages_never_conflict(old: float, new: float, places: int, percent_places: int) -> None:
    printed = f"{100 * (new / old - 1):+.{percent_places}f}"
    check = derived(f"{old:.{places}f}", f"{new:.{places}f}", f'form: change, value: "{printed}", unit: "%"')
    assert check.severity is None


# -- draws ------------------------------------------------------------------------------------------------------------


def test_distinct_draws_by_the_formula_and_by_counting() -> None:
    mean, spread = distinct_draws(200, 100)
    assert mean == pytest.approx(100 * (1 - 0.99**200))
    generator = random.Random(7)  # noqa: S311 - a simulation
    counts = [len({generator.randrange(100) for _ in range(200)}) for _ in range(4000)]
    assert statistics.mean(counts) == pytest.approx(mean, abs=0.2)
    assert statistics.stdev(counts) == pytest.approx(spread, rel=0.05)


def draws(start: str, cached_s: str, how: str = "random") -> list[Check]:
    return of(
        "distinct draws",
        document(f"""\
experiments:
- {{id: e, section: s, requests: 200, distinct_prompts: 100, draw: {how}}}
conditions:
- {{id: a, experiment: e, treatment: a, cache: off}}
- {{id: b, experiment: e, treatment: b, cache: {start}}}
quantities:
- {{id: x, what: duration, value: "1000", unit: s, condition: a, section: s}}
- {{id: y, what: duration, value: "{cached_s}", unit: s, condition: b, section: s}}
"""),
    )


def test_an_empty_start_is_bounded_and_a_warm_one_is_not() -> None:
    assert [check.severity for check in draws("empty", "50")] == ["conflict"]
    assert [check.severity for check in draws("empty", "450")] == [None]
    assert [check.severity for check in draws("empty", "400", "each")] == ["conflict"]
    assert not draws("warm", "50")
    assert not draws("on", "50")


# -- summaries --------------------------------------------------------------------------------------------------------

NUMPY = {
    "linear": "linear",
    "lower": "lower",
    "higher": "higher",
    "nearest": "nearest",
    "midpoint": "midpoint",
    "nearest rank": "inverted_cdf",
    "interpolated nearest rank": "interpolated_inverted_cdf",
    "hazen": "hazen",
    "weibull": "weibull",
    "median unbiased": "median_unbiased",
    "normal unbiased": "normal_unbiased",
}


@pytest.mark.parametrize("name", sorted(NUMPY))
def test_definitions_of_a_percentile_are_those_of_numpy(name: str) -> None:
    values = np.arange(23.0)
    for p in (0.5, 0.9, 0.95, 0.99):
        rank = min(max(_DEFINITIONS[name](23, p), 0), 22)
        assert rank == pytest.approx(float(np.quantile(values, p, method=NUMPY[name])))  # type: ignore[call-overload]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0.02, 50), min_size=4, max_size=60),
    st.sampled_from(sorted(NUMPY)),
    st.integers(1, 3),
)
def test_a_summary_of_real_values_is_always_feasible(values: list[float], name: str, places: int) -> None:
    method: Any = NUMPY[name]
    given_figures = [
        (p, read(f"{np.quantile(values, p, method=method):.{places}f}", "s").interval) for p in (0.5, 0.95, 0.99)
    ]
    mean = read(f"{statistics.fmean(values):.{places}f}", "s").interval
    found = largest_smallest(len(values), mean, given_figures, _DEFINITIONS[name])
    assert found is not None
    assert found[0] >= min(values) - 1e-6


def test_a_summary_that_no_values_have_is_refused() -> None:
    tight = [(0.95, Interval(4.0, 4.01)), (0.99, Interval(3.0, 3.01))]
    assert largest_smallest(100, Interval(1.0, 1.0), tight, _DEFINITIONS["linear"]) is None
    high = [(0.5, Interval(4.0, 4.01))]
    assert largest_smallest(100, Interval(1.0, 1.0), high, _DEFINITIONS["linear"]) is None


SUMMARY = """\
experiments:
- {{id: e, section: s, samples: {n}, gpus: 4}}
conditions:
- {{id: a, experiment: e, treatment: a}}
- {{id: b, experiment: e, treatment: b}}
quantities:
- {{id: am, what: ttft, statistic: mean, value: "1.00", unit: s, condition: a, section: s}}
- {{id: ap, what: ttft, statistic: p99, value: "3.00", unit: s, condition: a, section: s}}
- {{id: bm, what: ttft, statistic: mean, value: "0.90", unit: s, condition: b, section: s}}
- {{id: bp, what: ttft, statistic: p99, value: "3.00", unit: s, condition: b, section: s}}
derived:
- {{text: b is faster, section: s, form: decrease, value: "10", unit: "%", of: bm, over: am, better: true}}
"""


@pytest.mark.parametrize(
    ("n", "counts", "differences"), [(16, "unsupported", "unsupported"), (320, "note", None), (1000, None, None)]
)
def test_percentiles_and_differences_need_values(n: int, counts: str | None, differences: str | None) -> None:
    checks = document(SUMMARY.format(n=n))
    assert [check.severity for check in of("percentiles against n", checks)] == [counts]
    assert [check.severity for check in of("differences against noise", checks)] == [differences]


# -- curves -----------------------------------------------------------------------------------------------------------


def test_a_polynomial_goes_through_both_points() -> None:
    linear, quadratic = polynomial((10.0, 3.0), (20.0, 8.0))
    assert linear * 10 + quadratic * 100 == pytest.approx(3.0)
    assert linear * 20 + quadratic * 400 == pytest.approx(8.0)


@given(st.floats(0, 5), st.floats(0, 1e-3), st.floats(1e-10, 1e-7), st.floats(0.1, 0.9))
def test_the_least_prefill_time_lies_below_every_true_curve(c: float, a: float, b: float, share: float) -> None:
    def true(n: float) -> float:
        return c + a * n + b * n * n

    ends = [(10_000, true(10_000)), (130_000, true(130_000))]
    between = 10_000 + share * 120_000
    assert prefill_between(ends, between)[0] <= true(between) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("word", "last", "severity"),
    [
        ("exponential", "10.0", "unsupported"),
        ("exponential", "500.0", None),
        ("linear", "4.0", None),
        ("linear", "10.0", "unsupported"),
        ("flat", "1.05", None),
        ("flat", "2.0", "note"),
    ],
)
def test_words_on_growth(word: str, last: str, severity: str | None) -> None:
    body = f"""\
experiments:
- {{id: e, section: s}}
curves:
  c: {{section: s, quantity: q, experiment: e, treatments: {{t: {{printed: {{1000: "1.0", 4000: "{last}"}}}}}}}}
growth:
- {{text: t, section: s, curve: c, treatment: t, word: {word}}}
"""
    assert [check.severity for check in of("words on growth", document(body))] == [severity]


# -- load and bytes ---------------------------------------------------------------------------------------------------


def cell(figures: str, load: str = "concurrency: 10", top: str = "") -> list[Check]:
    return document(f"""\
{top}experiments:
- {{id: e, section: s, {load}}}
conditions:
- {{id: a, experiment: e, treatment: a}}
quantities:
{indent(figures, "")}""")


RATE = '- {id: x, what: request_rate, value: "5.0", unit: RPS, condition: a, section: s}\n'


@pytest.mark.parametrize(
    ("figure", "severity"),
    [
        ('what: latency, statistic: mean, value: "1.9"', None),
        ('what: latency, statistic: mean, value: "2.5"', "conflict"),
        ('what: ttft, statistic: mean, value: "2.5"', "conflict"),
        ('what: latency, statistic: p50, value: "3.5"', None),
        ('what: latency, statistic: p50, value: "4.5"', "conflict"),
    ],
)
def test_littles_law(figure: str, severity: str | None) -> None:
    checks = cell(RATE + f"- {{id: y, {figure}, unit: s, condition: a, section: s}}\n")
    assert [check.severity for check in of("Little's law", checks)] == [severity]


def test_what_is_measured_to_be_in_flight_must_be_throughput_times_latency() -> None:
    # Printed by a benchmark of a disk tier: 11.08 requests/s, 22,831.25 ms, 252.97 in flight.
    body = (
        '- {id: x, what: request_rate, value: "11.08", unit: req/s, condition: a, section: s}\n'
        '- {id: y, what: latency, statistic: mean, value: "22,831.25", unit: ms, condition: a, section: s}\n'
        '- {id: z, what: in_flight, value: "FLIGHT", condition: a, section: s}\n'
    )
    for flight, severity in (("252.97", None), ("240.00", "conflict")):
        checks = of("Little's law", cell(body.replace("FLIGHT", flight), "concurrency: 256"))
        assert [check.severity for check in checks] == [severity, None]


MODEL = "model: {shape: llama-3-70b, section: s}\n"


@pytest.mark.parametrize(("ttft", "severity"), [("3.0", None), ("0.3", "conflict")])
def test_no_prompt_is_loaded_faster_than_its_link(ttft: str, severity: str | None) -> None:
    figures = f"""\
- {{id: x, what: ttft, value: "{ttft}", unit: s, condition: a, section: s}}
- {{id: l, what: link, value: "10", unit: GB/s, tier: g4, section: s}}
"""
    checks = cell(figures, "prompt_tokens: 50000, cache: warm, tiers: [g4]", MODEL)
    (check,) = of("bytes over bandwidth", checks)
    assert check.severity == severity
    assert "16.4 GB / 10 GB/s" in check.arithmetic[0]  # 50,000 x 327,680 = 16.4 GB


@pytest.mark.parametrize(("room", "severity"), [("10", None), ("100", "unsupported")])
def test_a_working_set_that_fits_gpu_memory_shows_nothing_of_other_tiers(room: str, severity: str | None) -> None:
    figures = f'- {{id: r, what: kv_capacity, value: "{room}", unit: GB, tier: g1, section: s}}\n'
    load = "prompt_tokens: 10000, conversations: 10, tiers: [g3]"
    (check,) = of("working set against GPU memory", cell(figures, load, MODEL))  # 32.8 GB
    assert check.severity == severity


@pytest.mark.parametrize(("read_bytes", "severity"), [("3276800", None), ("1000000", "conflict")])
def test_hits_of_a_tier_were_read_from_it(read_bytes: str, severity: str | None) -> None:
    figures = f"""\
- {{id: t, what: kv_bytes_per_token, value: "32768", unit: B, section: s}}
- {{id: h, what: hit_tokens, value: "100", unit: tokens, condition: a, section: s}}
- {{id: r, what: read_bytes, value: "{read_bytes}", unit: B, condition: a, section: s}}
"""
    checks = cell(figures, "cache: warm, tiers: [g3]")
    assert [check.severity for check in of("hits against bytes read", checks)] == [severity]


@pytest.mark.parametrize(("size", "severity"), [("885", None), ("824", "note"), ("600", "conflict")])
def test_sizes_in_gb_and_in_gib(size: str, severity: str | None) -> None:
    figures = f"""\
- {{id: t, what: workload_tokens, value: "24.0", unit: million tokens, experiment: e, section: s}}
- {{id: b, what: workload_bytes, value: "{size}", unit: GB, experiment: e, section: s}}
"""
    checks = cell(figures, "requests: 200", "model: {shape: gpt-oss-120b, section: s}\n")
    assert [check.severity for check in of("KV bytes of the model", checks)] == [severity]


# -- what is said beside figures --------------------------------------------------------------------------------------


def test_promises_features_and_what_is_left_out() -> None:
    body = """\
experiments:
- {id: e, section: s, concurrency: 4, prompt_tokens: 100}
conditions:
- {id: a, experiment: e, treatment: a, cache: off}
- {id: b, experiment: e, treatment: b, cache: warm}
quantities:
- {id: x, what: ttft, value: "1", unit: s, condition: a, section: s}
- {id: n, what: neighbour_rate, value: "9", unit: GB/s, section: s}
- {id: m, what: storage_read, value: "4", unit: GB/s, section: s}
promises:
- {text: tested at 4, section: s, concurrency: 4}
- {text: tested at 9, section: s, concurrency: 9}
features:
- {name: a cache, stance: used, text: there is one, section: s}
- {name: a disk, stance: used, text: there is one, section: s}
- {name: a disk, stance: absent, text: there is none, section: s}
neighbours:
- {experiment: e, section: s, rate: n, capability: m, generator: fio, direction: read, delivered: 9 GB/s}
"""
    checks = document(body)
    assert [check.severity for check in of("rows promised", checks)] == [None, "unsupported"]
    assert [check.claim for check in of("things used and absent", checks)] == ["a disk"]
    dose = of("dose of neighbours", checks)
    assert [check.severity for check in dose] == ["conflict", "missing"]
    assert dose[1].arithmetic == ("not stated: repeats",)
    (left_out,) = of("what a comparison needs", checks)
    assert left_out.arithmetic == ("not stated: repeats, spread or intervals, hit rates and the number of requests",)
