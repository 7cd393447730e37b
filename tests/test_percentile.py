"""Percentiles and the n that they need, without numpy and equal to it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.percentile import needed_n, percentile_of


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
    st.sampled_from([1.0, 5.0, 37.5, 50.0, 90.0, 95.0, 99.0, 99.9]),
)
def test_the_number_is_that_of_numpy(values: list[float], percentile: float) -> None:
    assert percentile_of(values, percentile) == float(np.quantile(values, percentile / 100))


def test_by_hand() -> None:
    assert percentile_of([3.0], 99) == 3.0
    assert percentile_of([4.0, 1.0, 2.0, 3.0], 50) == 2.5
    assert percentile_of(range(1, 102), 90) == 91.0
    with pytest.raises(ValueError, match="percentile"):
        percentile_of([1.0], 100)


def test_the_needed_n_follows_the_formula() -> None:
    for percentile in (75, 90, 95, 99):
        n, p = needed_n(percentile, two_sided=False), percentile / 100
        assert p**n <= 0.05 < p ** (n - 1)


def test_the_command_starts_without_numpy() -> None:
    """A run reads calibrations, and must not wait for what only a report needs."""
    code = "import sys, kvbench.cli.app, kvbench.result.calibration; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
