"""The audits of published documents: findings where there are faults, silence where there are none."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.audit.rules import examine
from kvbench.errors import ResultError
from kvbench.publications import claims_file, index, library

if TYPE_CHECKING:
    from kvbench.audit.findings import Audit, Check

CLEAN = ("llm-d-cephfs", "llm-d-host-memory", "llm-d-lustre", "lmcache-gke")


def one(audit: Audit, rule: str, part: str = "") -> Check:
    """The only check of a rule that speaks against the document and has this text in it."""
    found = [
        check
        for check in audit.checks
        if check.rule == rule and check.severity and part in " ".join((check.claim, *check.arithmetic, check.instead))
    ]
    assert len(found) == 1, [check.claim for check in found]
    return found[0]


@pytest.fixture(scope="module")
def scale() -> Audit:
    return examine(library.document("ibm-storage-scale"))


@pytest.fixture(scope="module")
def enclosure() -> Audit:
    return examine(library.document("wd-data24"))


def test_an_empty_start_cannot_give_22x(scale: Audit) -> None:
    check = one(scale, "distinct draws")
    assert check.severity == "conflict"
    told = " ".join(check.arithmetic)
    for figure in ("86.6 distinct", "454 s", "2.31x", "9.0 recomputes", "95.5 %", "56.7 %"):
        assert figure in told, figure


def test_the_18_percent_are_of_the_time_not_of_the_throughput(scale: Audit) -> None:
    check = one(scale, "derived figures", "18 % reduction")
    assert check.severity == "conflict"
    assert "= 15.5 %" in check.arithmetic[0]
    assert "increase of duration: 55.56 s / 46.94 s - 1 = 18.4 %" in check.instead


def test_kv_bytes_say_gib_and_the_tokens_are_the_total(scale: Audit) -> None:
    size = one(scale, "KV bytes of the model")
    assert size.severity == "note"
    assert "885 GB = 824 GiB" in " ".join(size.arithmetic)
    assert size.instead == "the unit is GiB, not GB"
    context = one(scale, "tokens and context")
    assert context.severity == "conflict"
    assert "240,000 tokens each" in context.arithmetic[0]
    assert "total of the 200 requests, 120,000" in context.instead


def test_the_count_of_tokens_in_gpu_memory_has_its_conflicts(scale: Audit) -> None:
    check = one(scale, "tokens in a capacity")
    assert check.severity == "conflict"
    assert "18,432 bytes a token" in " ".join(check.arithmetic)
    assert "that is 0.5 of the smallest" in " ".join(check.arithmetic)
    assert "tokens of all 4" in check.instead
    assert one(scale, "figures said twice", "1.4 million").severity == "conflict"


def test_recompute_is_polynomial(scale: Audit) -> None:
    check = one(scale, "words on growth", "exponential")
    assert check.severity == "unsupported"
    told = " ".join(check.arithmetic)
    assert "exponent 1.57" in told
    assert "4.136e-05 n + 1.5836e-09 n^2" in told


def test_a_single_request_is_not_limited_by_the_link(scale: Audit) -> None:
    check = one(scale, "bytes over bandwidth")
    assert check.severity == "note"
    assert "3.14 us a token beside 0.1616 s" in check.arithmetic[0]
    assert "23.47 GB/s" in check.arithmetic[1]
    delivered = [line for each in scale.checks for line in each.arithmetic if "4.26 RPS x 120,000" in line]
    assert any("37.69 GB/s" in line for line in delivered)


def test_the_curve_and_the_throughput_are_of_different_things(scale: Audit) -> None:
    check = one(scale, "curve against throughput")
    assert check.severity == "conflict"
    told = " ".join(check.arithmetic)
    assert "= 27.8 s" in told
    assert "0.146 requests/s at most" in told
    assert "21.1 GPU-seconds" in told


def test_the_neighbours_are_a_medium_dose_of_which_little_is_said(scale: Audit) -> None:
    assert "= 63 %" in one(scale, "dose of neighbours", "medium").arithmetic[0]
    missing = one(scale, "dose of neighbours", "generator")
    assert missing.severity == "missing"
    for thing in ("the generator", "reads or writes", "delivered", "repeats"):
        assert thing in missing.arithmetic[0]
    needs = one(scale, "what a comparison needs", "throughput")
    assert "repeats, spread or intervals and hit rates" in needs.arithmetic[0]


def test_sixteen_values_carry_no_high_percentile(enclosure: Audit) -> None:
    for n, statistic, needed in ((16, "P95", 59), (16, "P99", 299), (32, "P95", 59), (32, "P99", 299)):
        check = next(
            check
            for check in enclosure.of("unsupported")
            if check.rule == "percentiles against n"
            and check.claim.startswith(statistic)
            and f"n = {n};" in check.arithmetic[0]
        )
        assert f"needs {needed}" in check.arithmetic[0]
        assert check.cells == 3
    told = " ".join(line for check in enclosure.findings for line in check.arithmetic)
    assert "largest of 16 exceeds the true P99 with probability 14.9 %" in told


def test_two_requests_make_up_the_whole_mean(enclosure: Audit) -> None:
    check = one(enclosure, "feasible summaries")
    assert check.severity == "conflict"
    assert check.claim.startswith("baseline-4")
    told = " ".join(check.arithmetic)
    assert "3.666 s and 7.324 s: 100 % of all in 2 of 16" in told
    assert "= 10.43 ms at least" in told


def test_differences_below_noise_are_not_shown(enclosure: Audit) -> None:
    for part in ("2.9 %", "2.4 %"):
        assert one(enclosure, "differences against noise", part).severity == "unsupported"


def test_the_promised_row_and_the_conflicting_units(enclosure: Audit) -> None:
    assert "concurrency 16" in one(enclosure, "rows promised").arithmetic[0]
    assert one(enclosure, "figures said twice", "200 GbE").severity == "conflict"
    assert "factor of 6" in " ".join(one(enclosure, "figures said twice", "150 GB/s").arithmetic)
    assert one(enclosure, "things used and absent").severity == "conflict"


def test_the_published_rows_never_need_the_disk(enclosure: Audit) -> None:
    small = one(enclosure, "working set against GPU memory", "42.95 GB")
    large = one(enclosure, "working set against GPU memory", "85.9 GB at most")
    for check in (small, large):
        assert check.severity == "unsupported"
        assert "327,680 bytes a token" in " ".join(check.arithmetic)
        assert "172 GB and overflows it" in " ".join(check.arithmetic)


def test_what_is_right_in_them_holds(scale: Audit, enclosure: Audit) -> None:
    assert scale.held["derived figures"] == 7
    assert enclosure.held["derived figures"] == 26
    assert enclosure.held["feasible summaries"] == 5


@pytest.mark.parametrize("name", CLEAN)
def test_documents_without_fault_have_no_finding(name: str) -> None:
    audit = examine(library.document(name))
    assert not audit.findings, [check.claim for check in audit.findings]
    assert audit.evaluated > 20
    assert not audit.reaches("unsupported")


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        ("llm-d-lustre", ('out: "435"', 'out: "545"'), "Little's law"),
        ("llm-d-lustre", ('ttft-change: "-21"', 'ttft-change: "-26"'), "derived figures"),
        ("llm-d-lustre", ('value: "320", unit: KB', 'value: "160", unit: KB'), "KV bytes of the model"),
        (
            "llm-d-lustre",
            ('value: "220", unit: GB, tier: g1', 'value: "1220", unit: GB, tier: g1'),
            "KV against capacity",
        ),
        ("llm-d-lustre", ("requests: 2700, concurrency: 20", "requests: 27, concurrency: 20"), "percentiles against n"),
        ("llm-d-cephfs", ('rps: "7.480", p50: "11.2"', 'rps: "97.480", p50: "11.2"'), "Little's law"),
        ("llm-d-cephfs", ('p50: "46.3", p95: "67.3"}', 'p50: "46.3", p95: "37.3"}'), "order of figures"),
        ("llm-d-host-memory", ('g1-rate: "5.3"', 'g1-rate: "6.3"'), "rates, totals and shares"),
        ("lmcache-gke", ('throughput: "+264"', 'throughput: "+464"'), "closed loop"),
        ("lmcache-gke", ('value: "1.1 to 1.3"', 'value: "11 to 13"'), "KV against capacity"),
    ],
)
def test_one_wrong_figure_in_a_clean_document_is_found(name: str, change: tuple[str, str], rule: str) -> None:
    text = (resources.files("kvbench.publications") / "documents" / f"{name}.yaml").read_text()
    assert change[0] in text
    findings = examine(claims_file.parse(text.replace(*change), name)).findings
    assert rule in {check.rule for check in findings}


VALUE = re.compile(r'"[+-]?\d[\d,]*(?:\.\d+)?"')


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(index.names()), st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.data())
def test_no_figure_whatever_makes_a_rule_stumble(name: str, places: list[int], data: st.DataObject) -> None:
    text = (resources.files("kvbench.publications") / "documents" / f"{name}.yaml").read_text()
    found = [match.span() for match in VALUE.finditer(text)]
    for start, end in sorted({found[place % len(found)] for place in places}, reverse=True):
        text = text[:start] + data.draw(st.sampled_from(['"0"', '"0.0"', '"-7"', '"1"', '"98,765,432.1"'])) + text[end:]
    try:
        document = claims_file.parse(text, name)
    except ResultError:
        return  # the figure was the factor of a row, or text in its place is refused
    audit = examine(document)
    assert audit.evaluated
    assert all(check.arithmetic and (check.instead or check.severity is None) for check in audit.checks)


def test_no_rule_knows_a_document_or_one_of_its_figures() -> None:
    sources = "\n".join(path.read_text() for path in Path("kvbench/audit").glob("*.py")).lower()
    words = {
        "storage scale",
        "openflex",
        "data24",
        "western",
        "spectrum",
        "supermicro",
        "lustre",
        "cephfs",
        "llm-d",
        "gke",
    }
    assert not {word for word in words if word in sources}
    assert not {name for name in index.names() if name in sources}
    numbers = set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", sources))
    figures = {figure.printed.text.lstrip("+-") for name in index.names() for figure in library.document(name).figures}
    special = {text for text in figures if ("." in text and len(text) > 3) or len(text.replace(",", "")) > 4}
    assert len(special) > 100
    assert not special & numbers
