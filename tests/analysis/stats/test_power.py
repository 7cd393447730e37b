"""Power of the paired t test, against simulation, tables and the noncentral t."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from kvbench.analysis.stats import power


@pytest.mark.parametrize(("sd_log", "effect", "rounds"), [(0.05, 0.05, 5), (0.05, 0.1, 5), (0.2, 0.2, 12)])
def test_power_against_simulation(sd_log: float, effect: float, rounds: int) -> None:
    logs = np.random.default_rng(7).normal(math.log1p(effect), sd_log, (20_000, rounds))
    shown = np.mean(np.asarray(reference.ttest_1samp(logs, 0, axis=1).pvalue) < 0.05)
    assert power.power_of(sd_log, effect, rounds) == pytest.approx(shown, abs=0.015)


@pytest.mark.parametrize("rounds", [3, 4, 10, 100, 1000])
@pytest.mark.parametrize("shift", [0.1, 1.0, 2.8, 6.0])
def test_power_against_the_noncentral_t(rounds: int, shift: float) -> None:
    limit = reference.t.ppf(0.975, rounds - 1)
    expected = reference.nct.sf(limit, rounds - 1, shift) + reference.nct.cdf(-limit, rounds - 1, shift)
    effect = math.expm1(shift * 0.1 / math.sqrt(rounds))
    assert power.power_of(0.1, effect, rounds) == pytest.approx(expected, abs=2e-5)


def test_rounds_needed() -> None:
    """A paired t test with effect / sd = 0.5 needs 34 pairs for 80 % (Cohen's table); with 1.0 it needs 10."""
    assert power.rounds_needed(0.1, math.expm1(0.05)) == 34
    assert power.rounds_needed(0.1, math.expm1(0.1)) == 10
    assert power.rounds_needed(0.1, -math.expm1(0.1) / math.exp(0.1)) == 10  # as much slower
    assert power.rounds_needed(0.0, 0.01) == 3
    assert power.rounds_needed(0.5, 0.001) is None
    assert power.rounds_needed(0.5, 0.0) is None
    assert power.power_of(0.1, 0.5, 2) == 0
    with pytest.raises(ValueError, match="standard deviation"):
        power.power_of(-0.1, 0.1, 5)


@given(st.floats(0.01, 0.5), st.integers(3, 60))
def test_the_detectable_effect_is_just_detected(sd_log: float, rounds: int) -> None:
    effect = power.detectable_effect(sd_log, rounds)
    assert effect is not None
    assert power.power_of(sd_log, effect, rounds) == pytest.approx(0.8, abs=1e-6)
    needed = power.rounds_needed(sd_log, effect * 1.0001)
    assert needed is not None
    assert needed <= rounds
    assert power.detectable_effect(sd_log, 2) is None
    assert power.detectable_effect(0.0, 3) == 0
