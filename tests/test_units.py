"""Units: text to numbers and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench import units


@pytest.mark.parametrize(
    ("text", "value"),
    [("512", 512), ("10k", 10_000), ("130k", 130_000), ("1.5M", 1_500_000), ("4Ki", 4096), (7, 7)],
)
def test_counts(text: str | int, value: int) -> None:
    assert units.parse_count(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("64KiB", 65_536), ("20GB", 20_000_000_000), ("4KiB", 4096), ("1 TB", 10**12), ("0", 0), ("4096", 4096)],
)
def test_sizes(text: str, value: int) -> None:
    assert units.parse_size(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("250ms", 0.25), ("10us", 1e-5), ("2m", 120), ("1h", 3600), (3, 3), ("5min", 300)]
)
def test_durations(text: str | int, value: float) -> None:
    assert units.parse_duration(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("23.5GB/s", 23.5e9), ("10Gbit", 1.25e9), ("10Gbit/s", 1.25e9), ("1000", 1000)]
)
def test_rates(text: str, value: float) -> None:
    assert units.parse_rate(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "k", "10 apples", "-5", "1.5", "10kk", "1e3", "ten", "5 GB/s"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a"):
        units.parse_count(text)


@given(st.integers(0, 10**15))
def test_plain_bytes_come_back_unchanged(value: int) -> None:
    assert units.parse_size(str(value)) == units.parse_size(value) == value


@given(st.integers(1, 10**6))
def test_whole_thousands_come_back_unchanged(thousands: int) -> None:
    assert units.parse_count(units.format_count(thousands * 1000)) == thousands * 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0242, "24.2 ms"),
        (4.02, "4.02 s"),
        (83, "1 min 23 s"),
        (5e-6, "5.00 us"),
        (0, "0 s"),
        (4, "4.00 s"),
        (0.1, "100 ms"),
    ],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (18_874_368, "18.9 MB"),
        (999, "999 B"),
        (2.35e10, "23.5 GB"),
        (9.996e8, "1 GB"),
        (9.99e8, "999 MB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_sizes_as_people_read_them(size: float, text: str) -> None:
    assert units.format_size(size) == text
    assert units.format_rate(size) == text + "/s"
