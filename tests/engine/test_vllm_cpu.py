"""What only a real engine can show: vLLM on this CPU, its own tiering manager, its own file tier.

Not part of the default suite; `make test-engine` makes the environment and the model, and runs these. Corruption is
done between the proof of the warm state and the first measured request: the moment when nothing in the proof sees it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.analysis import summary
from kvbench.experiment import run
from kvbench.result import folder
from kvbench.result.record_files import write_plan
from kvbench.scenario import file as scenario_file
from kvbench.scenario import plan
from kvbench.testbed import testbed
from kvbench.testbed.servers import tier_directory
from kvbench.testbed.servers.endpoint import Endpoint
from tests.experiment.test_run import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.analysis.summary_types import Summary
    from kvbench.scenario.plan import RunSpec
    from kvbench.scenario.scenario import Scenario

SCENARIO = Path("scenarios/real/vllm_cpu_fs.yaml")

pytestmark = pytest.mark.engine


@pytest.fixture
def asked(tmp_path: Path) -> Scenario:
    """One round of two lengths, with a tier of its own."""
    if not Path(".venv-vllm/.installed").exists() or not Path("models/random-llama-26m/config.json").exists():
        pytest.skip("no vLLM environment or model here: `make test-engine` makes them")
    changes = ("repeats=1", "prompts.lengths=[512, 2048]", f"tiers.g3.path={tmp_path / 'tier'}")
    return scenario_file.load(SCENARIO, changes)


class AtMeasure(Recorder):
    """Does something to the world when a warm run is about to be measured."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act

        self.treatment = ""

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:
        super().run_starts(spec, number, total)
        self.treatment = spec.treatment

    def step(self, text: str) -> None:
        super().step(text)
        if text == "measure" and self.treatment == "g3":
            self.act()


def execute(asked: Scenario, results: Path, act: Callable[[], None] = lambda: None) -> Summary:
    laid_out = plan.expand(asked)
    result = folder.open_result(results, asked.name, asked.fingerprint)
    write_plan(result.path, laid_out.record())
    result.write_json("facts.json", {})
    with testbed.stand_up(asked) as bed:
        run.execute(asked, laid_out, bed, result, AtMeasure(act))
    return summary.summarise(result.path)


def only_g3(asked: Scenario) -> Scenario:
    """Recompute for the reference answers, then g3."""
    treatments = {name: asked.treatments[name] for name in ("recompute", "g3")}
    return asked.model_copy(update={"treatments": treatments})


def reasons(summed: Summary) -> str:
    return " | ".join(reason.text for one in summed.runs for reason in one.reasons)


def tiers_of(summed: Summary, treatment: str) -> dict[str, int]:
    """Tiers of all measured requests of a treatment, invalid runs too."""
    return next(one.tiers for one in summed.runs if one.treatment == treatment)


def test_an_untouched_engine_is_proven_in_every_tier(asked: Scenario, tmp_path: Path) -> None:
    summed = execute(asked, tmp_path / "results")
    assert {name: tiers_of(summed, name) for name in asked.treatments} == {
        "recompute": {"recompute": 2},
        "g2": {"g2": 2},
        "g3": {"g3": 2},
    }
    assert summed.verdict in ("valid", "suspect"), reasons(summed)
    assert all(summed.treatments[name].answers_match == 1.0 for name in asked.treatments)
    g3 = summed.treatments["g3"]
    assert g3.read_bytes == g3.process_read_bytes == g3.expected_read_bytes


def test_truncated_files_become_recompute_and_are_seen_as_such(asked: Scenario, tmp_path: Path) -> None:
    tier = tmp_path / "tier"

    def truncate() -> None:
        for name in tier_directory.listing(tier):
            with (tier / name).open("r+b") as file:
                file.truncate(4096)

    summed = execute(only_g3(asked), tmp_path / "results", truncate)
    assert tiers_of(summed, "g3").get("g3", 0) == 0
    assert summed.treatments["g3"].verdict == "invalid"
    assert summed.lengths[0].cells["g3"].median_s is None
    assert summed.treatments["g3"].answers_match == 1.0  # vLLM noticed, and computed


def test_zeroed_files_are_served_without_a_word_and_caught_by_their_answers(asked: Scenario, tmp_path: Path) -> None:
    tier = tmp_path / "tier"

    def zero() -> None:
        for name, size in tier_directory.listing(tier).items():
            (tier / name).write_bytes(bytes(size))
        assert tier_directory.drop_page_cache(tier) == 0

    summed = execute(only_g3(asked), tmp_path / "results", zero)
    assert tiers_of(summed, "g3") == {"g3": 2}  # every counter and every byte says that all is well
    match = summed.treatments["g3"].answers_match
    assert match is not None
    assert match < 1.0
    assert summed.treatments["g3"].verdict == "invalid"
    assert "differ from the recomputed ones" in reasons(summed)


def test_a_plain_reset_leaves_the_host_tier_and_is_caught(
    asked: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's default reset drops g1 and keeps the host tier: what looks like g3 is then served from host memory."""
    real_reset = Endpoint.reset

    def plain_reset(self: Endpoint, *, external: bool) -> bool | None:
        del external
        return real_reset(self, external=False)

    monkeypatch.setattr(Endpoint, "reset", plain_reset)
    summed = execute(only_g3(asked), tmp_path / "results")
    assert summed.treatments["g3"].verdict == "invalid"
    assert "g3" not in tiers_of(summed, "g3")
    assert "served from g2" in reasons(summed)
