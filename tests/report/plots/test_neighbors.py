from __future__ import annotations

from kvbench.report.plots.neighbors import caption, neighbors, points_of
from tests.builders import summaries
from tests.builders.report_inputs import report_input


def test_only_levels_with_a_share_and_a_kv_rate_have_a_place() -> None:
    levels = (
        summaries.neighbor_level(),
        summaries.neighbor_level("paced", unlimited=True, delivered_bytes_per_s=summaries.extent(1.6e9)),
        summaries.neighbor_level("fabric", of_capacity=None, capacity=None, load_name="talkers"),
        summaries.neighbor_level("without_kv", kv_share=summaries.change(None)),
    )
    impact = summaries.neighbor_impact(levels=levels)
    first, second = points_of(impact)
    assert (first.level.treatment, first.share, first.kv_share) == ("noisy", 0.5, 0.6)
    assert (second.least, second.most) == (0.99 * 0.8, 1.01 * 0.8)
    given = report_input(summaries.summary(neighbors=impact))
    assert (neighbors(given) or "").startswith("<svg viewBox=")
    assert caption(given).endswith("or no KV rate: fabric, without_kv.")
    assert "Dashed: what is left of the capacity." in caption(given)


def test_nothing_is_drawn_without_neighbours_or_without_a_share() -> None:
    assert neighbors(report_input()) is None
    level = summaries.neighbor_level(of_capacity=None, capacity=None)
    impact = summaries.neighbor_impact(levels=(level,), limit_bytes_per_s=None)
    given = report_input(summaries.summary(neighbors=impact))
    assert neighbors(given) is None
    assert "Dashed" not in caption(given)
