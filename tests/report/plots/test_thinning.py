from __future__ import annotations

import numpy as np
import pytest

from kvbench.report.plots.thinning import chosen_dots, chosen_over_time, drawn_text, rule_text
from tests.builders import summaries

VALUES = np.random.default_rng(1).lognormal(0, 1, 10_000)
GROUPS = np.arange(10_000) % 4


def test_all_are_drawn_up_to_the_most() -> None:
    assert list(chosen_dots(VALUES[:5], GROUPS[:5], 5)) == [0, 1, 2, 3, 4]
    assert list(chosen_over_time(VALUES[:5], VALUES[:5], 5)) == [0, 1, 2, 3, 4]


def test_of_each_group_as_many_are_drawn_evenly_by_rank_with_both_extremes() -> None:
    chosen = chosen_dots(VALUES, GROUPS, 400)
    assert len(chosen) == 400
    for group in range(4):
        every, drawn = VALUES[group == GROUPS], VALUES[chosen][GROUPS[chosen] == group]
        assert len(drawn) == 100
        assert (drawn.min(), drawn.max()) == (every.min(), every.max())
        assert np.median(drawn) == pytest.approx(np.median(every), rel=0.05)


def test_a_small_group_beside_large_ones_is_drawn_whole() -> None:
    groups = np.where(np.arange(10_000) < 3, 0, 1)
    assert set(chosen_dots(VALUES, groups, 100)) >= {0, 1, 2}


def test_more_groups_than_dots_keep_their_extremes() -> None:
    groups = np.arange(10_000) // 10
    chosen = chosen_dots(VALUES, groups, 100)
    assert len(chosen) == 2_000
    assert np.maximum.reduceat(VALUES[chosen], np.arange(0, 2_000, 2)).tolist() == [
        VALUES[start : start + 10].max() for start in range(0, 10_000, 10)
    ]


def test_over_time_dots_are_as_dense_as_requests_and_no_outlier_is_lost() -> None:
    times = np.sort(np.concatenate([np.linspace(0, 1, 8_000), np.linspace(1, 2, 2_000)]))
    values = np.full(10_000, 0.5)
    values[[1_234, 9_876]] = 9.0, 0.01
    chosen = chosen_over_time(times, values, 500)
    assert 400 <= len(chosen) <= 500
    assert {1_234, 9_876} <= set(chosen)
    early = np.count_nonzero(times[chosen] < 1)
    assert early > 2 * (len(chosen) - early)


def test_the_number_is_given_only_where_some_are_left_out() -> None:
    assert drawn_text(10, 10) == ""
    assert drawn_text(4_998, 1_000_000) == "4,998 of 1,000,000 requests are drawn"


def test_the_rule_is_in_a_caption_only_where_some_may_be_left_out() -> None:
    few, many = (summaries.summary(runs=(summaries.run(requests=number),)) for number in (5_000, 5_001))
    assert rule_text(few, "by rank") == ""
    assert rule_text(many, "by rank").startswith(" Of more than 5,000 requests only some are drawn")
    assert rule_text(many, "by rank").endswith(": by rank.")
