"""Scenarios: YAML 1.2, units, and every fault with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from kvbench.errors import OverrideError, ScenarioError
from kvbench.scenario import file as scenario_file

GOOD = """\
name: a-sweep
question: How does TTFT grow?
server: {emulator: {profile: gpt-oss-120b_rtx-pro-6000, scale: {time: 8, bytes: 512}}}
tiers: {g1: 0, g4: {path: kvcache, capacity: 20GB}}
prompts:
  lengths: [10k, 130k]
  output_tokens: 8
load: {concurrency: 1, timeout: 2m}
treatments:
  recompute: {cache: off}
  g4: {cache: {warm: g4}}
baseline: recompute
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    return path


def test_a_good_scenario(tmp_path: Path) -> None:
    asked = scenario_file.load(write(tmp_path, GOOD))
    assert asked.prompts.lengths == (10_000, 130_000)
    assert asked.tiers.g4 is not None
    assert asked.tiers.g4.capacity == 20_000_000_000
    assert asked.load.timeout == 120
    assert asked.treatments["recompute"].cache == "off"  # YAML 1.1 would read False
    assert asked.treatments["g4"].warm_tier == "g4"
    assert asked.repeats == 5


FAULTS = [
    ("output_tokens: 8", "output_token: 8", 7, "unknown key `output_token`", "`output_tokens`"),
    ("question:", "qestion:", 2, "unknown key `qestion`", "`question`"),
    ("question: How does TTFT grow?", "", 1, "`question` is missing", "Add"),
    ("[10k, 130k]", "[10k, 140k]", 6, "does not fit the model's context", ""),
    ("[10k, 130k]", "[10k, -5]", 6, "not a count", ""),
    ("[10k, 130k]", "[]", 6, "needs at least one item", ""),
    ("[10k, 130k]", "[10k, 10k]", 6, "a length stands twice", ""),
    ("capacity: 20GB", "capacity: 1MB", 4, "below one prompt", ""),
    ("capacity: 20GB", "capacity: 20 parsecs", 4, "not a size", ""),
    ("timeout: 2m", "timeout: soon", 8, "not a duration", ""),
    ("{cache: off}", "{cache: lukewarm}", 10, "no cache state", ""),
    ("{warm: g4}", "{warm: g9}", 11, "no cache state", ""),
    ("{warm: g4}", "{warm: g3}", 11, "does not give any capacity", ""),
    ("baseline: recompute", "baseline: nothing", 12, "not one of the treatments", "Use one of recompute, g4."),
    ("baseline: recompute", "baseline: recomputed", 12, "not one of the treatments", "Did you mean recompute?"),
    (
        "{warm: g4}}",
        "{warm: g4}, against: recomputed}",
        11,
        "treatments.g4.against`: recomputed",
        "Did you mean recompute?",
    ),
    ("name: a-sweep", "name: ../mine", 1, "begins with a letter or a digit", ""),
    ("concurrency: 1", "requests: 3, draw: round_robbin", 8, "load.draw", "Did you mean round_robin?"),
    ("concurrency: 1", "request_rate: 3, arrival: poison", 8, "load.arrival", "Did you mean poisson?"),
    ("concurrency: 1", "request_rate: 3, arrival: xyz", 8, "load.arrival", "Use one of constant, poisson."),
    ("scale: {time: 8, bytes: 512}}", "fault_every: 2}", 3, "no fault that every 2 could have", ""),
    (
        "gpt-oss-120b_rtx-pro-6000",
        "gpt-oss-120b",
        3,
        "no profile gpt-oss-120b",
        "Did you mean gpt-oss-120b_rtx-pro-6000?",
    ),
    ("gpt-oss-120b_rtx-pro-6000", "gpt-oss", 3, "has no profile gpt-oss", "Did you mean gpt-oss-120b_rtx-pro"),
    ("capacity: 20GB", "capacity: 20MB", 4, "g4 cannot be warm: its capacity", ""),
    ("bytes: 512", "bytes: 7", 3, "does not divide the model's 73,728", ""),
    ("[10k, 130k]", "[16]", 6, "no block that a cache could hold", ""),
    ("g1: 0", "g3: {path: kvcache, capacity: 20GB}", 4, "g3 and g4 are the same directory", ""),
    ("g1: 0", "g3: {path: local, capacity: 1MB}", 4, "below one prompt", ""),
    ("scale: {time: 8, bytes: 512}}", "write_policy: sideways}", 3, "write_policy", ""),
    ("scale: {time: 8, bytes: 512}}", "write_delay: -1s}", 3, "write_delay", ""),
    (
        "scale: {time: 8, bytes: 512}}",
        "faults: [hang, reset_keeps]}",
        3,
        "reset_keeps is no fault",
        "Did you mean reset_keeps_",
    ),
    (
        "scale: {time: 8, bytes: 512}}",
        "faults: [xyzzy]}",
        3,
        "xyzzy is no fault that the emulator can have",
        "Use one of reset_keeps_blocks, ",
    ),
    ("gpt-oss-120b_rtx-pro-6000", "gpt-9_abacus", 3, "the emulator has no profile gpt-9_abacus", ", or a YAML file"),
    ("concurrency: 1", "concurrency: 0", 8, "load.concurrency", ""),
    ("concurrency: 1", "driver: locust", 8, "load.driver", ""),
    ("server: {emulator", "server: {external: {url: 'http://h/v1'}, emulator", 3, "exactly one server", ""),
    ("prompts:", "prompts: [", None, "not YAML", "syntax"),
]


def test_under_write_back_only_the_fastest_tier_can_be_primed(tmp_path: Path) -> None:
    path, back = write(tmp_path, GOOD), "server.emulator.write_policy=back"
    assert scenario_file.load(path, (back,)).server.emulator is not None
    for faster in ("tiers.g1=1GB", "tiers.g2=1GB"):
        with pytest.raises(ScenarioError, match=r"g4 fills only when g[12] evicts"):
            scenario_file.load(path, (back, faster))
        assert scenario_file.load(path, (faster,)).treatments["g4"].warm_tier == "g4"


def test_turns_of_one_length_are_refused_since_no_figure_could_tell_them_apart(tmp_path: Path) -> None:
    path, cold = write(tmp_path, GOOD), ("treatments.g4.cache=cold", "prompts.lengths=[10k, 30k]")
    told = "turn 1 of 30,000 tokens and turn 3 of 10,000 are both 30,000 tokens long"
    with pytest.raises(ScenarioError, match=told):
        scenario_file.load(path, (*cold, "prompts.turns.count=3", "prompts.turns.new_tokens=9992"))
    apart = scenario_file.load(path, (*cold, "prompts.turns.count=3", "prompts.turns.new_tokens=9993"))
    assert sorted({isl for turns in apart.prompts.isl_by_turn.values() for isl in turns}) == [
        *(10_000, 20_001, 30_000, 30_002, 40_001, 50_002)
    ]


@pytest.mark.parametrize(
    ("instances", "concurrency", "good"), [(1, 8, True), (4, 1, True), (4, 2, False)], ids=["one", "alone", "both"]
)
def test_g1_of_several_gpus_cannot_be_warm_for_requests_side_by_side(
    instances: int,
    concurrency: int,
    good: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """Priming fills the first GPU alone: the run would end as another tier after all its work."""
    path = write(tmp_path, GOOD)
    given = (
        "tiers.g1=20GB",
        "treatments.g4.cache.warm=g1",
        f"server.emulator.instances={instances}",
        f"treatments.g4.concurrency={concurrency}",
    )
    if good:
        assert scenario_file.load(path, given).treatments["g4"].warm_tier == "g1"
        return
    with pytest.raises(ScenarioError, match="fills the g1 of one GPU"):
        scenario_file.load(path, given)


def test_capacities_are_told_by_the_tiers(tmp_path: Path) -> None:
    tiers = scenario_file.load(write(tmp_path, GOOD), ("tiers.g2=3GB",)).tiers
    assert tiers.capacities == {"g2": 3_000_000_000, "g4": 20_000_000_000}
    assert (tiers.capacity_of("g1"), tiers.capacity_of("g3"), tiers.capacity_of("g4")) == (0, 0, 20_000_000_000)


def test_answers_of_cold_runs_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert scenario_file.load(path, ("check_answers=true",)).check_answers
    with pytest.raises(ScenarioError, match="cold runs have texts of their own"):
        scenario_file.load(path, ("check_answers=true", "treatments.empty.cache=cold"))


@pytest.mark.parametrize(("good", "bad", "line", "words", "remedy"), FAULTS, ids=[f[1] for f in FAULTS])
def test_every_fault_has_its_line_and_a_remedy(
    good: str, bad: str, line: int | None, words: str, remedy: str, tmp_path: Path
) -> None:
    path = write(tmp_path, GOOD.replace(good, bad, 1))
    with pytest.raises(ScenarioError) as error:
        scenario_file.load(path)
    assert words in error.value.message
    assert remedy in error.value.remedy
    assert error.value.remedy
    if line is not None:
        assert error.value.message.startswith(f"{path}:{line}: ")


def test_overrides_take_units_and_reach_new_keys(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    asked = scenario_file.load(path, ("prompts.lengths=[1k, 2k]", "repeats=3", "slo.ttft=1s"))
    assert asked.prompts.lengths == (1000, 2000)
    assert asked.repeats == 3
    assert asked.slo.ttft == 1.0
    assert asked.fingerprint != scenario_file.load(path).fingerprint


@pytest.mark.parametrize("override", ["repeats", "=3", "name.first=x"])
def test_bad_overrides_are_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="--set"):
        scenario_file.load(write(tmp_path, GOOD), (override,))


def test_an_override_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="unknown key `concurency`"):
        scenario_file.load(write(tmp_path, GOOD), ("load.concurency=2",))


def test_an_endpoint_takes_the_place_of_the_server(tmp_path: Path) -> None:
    asked = scenario_file.load(write(tmp_path, GOOD), (), "http://127.0.0.1:9/v1")
    assert asked.server.emulator is None
    assert asked.server.external is not None
    assert asked.server.external.url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("url", ["ftp://host/v1", "http://user:secret@host/v1", "host:8000"])
def test_urls_that_cannot_be_used_or_hold_a_password_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError):
        scenario_file.load(write(tmp_path, GOOD), (), url)


def test_a_missing_file_and_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot read it"):
        scenario_file.load(tmp_path / "nothing.yaml")
    with pytest.raises(ScenarioError, match="mapping"):
        scenario_file.load(write(tmp_path, "- a\n- b\n"))


@pytest.mark.parametrize("path", sorted(Path("scenarios").rglob("*.yaml")), ids=str)
def test_the_shipped_scenarios_are_good(path: Path) -> None:
    assert scenario_file.load(path).question.endswith("?")


def test_the_fingerprint_depends_on_content_alone(tmp_path: Path) -> None:
    first = scenario_file.load(write(tmp_path, GOOD)).fingerprint
    assert scenario_file.load(write(tmp_path, "# a comment\n" + GOOD.replace("20GB", "20000MB"))).fingerprint == first


EXTERNAL = """\
name: theirs
question: How fast is it?
server:
  external:
    url: https://host:8000/v1
    ca_file: CA
prompts: {lengths: [1k]}
treatments: {recompute: {cache: off}}
"""


def test_a_ca_file_without_certificates_has_its_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for named, words in ((empty, "holds no certificate"), (tmp_path / "missing.pem", "cannot be read")):
        with pytest.raises(ScenarioError, match=words) as caught:
            scenario_file.load(write(tmp_path, EXTERNAL.replace("CA", str(named))))
        assert caught.value.line == 6
        assert "PEM" in caught.value.remedy


def test_a_ca_file_given_by_set_is_checked_too(tmp_path: Path) -> None:
    path = write(tmp_path, EXTERNAL.replace("    ca_file: CA\n", ""))
    assert scenario_file.load(path).server.external is not None
    with pytest.raises(ScenarioError, match=r"server\.external\.ca_file"):
        scenario_file.load(path, (f"server.external.ca_file={tmp_path}/missing.pem",))


def test_a_ca_file_is_kept_with_another_endpoint(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    path = write(tmp_path, EXTERNAL.replace("CA", str(authority)))
    external = scenario_file.load(path, endpoint="https://other/v1").server.external
    assert external is not None
    assert (external.url, external.ca_file) == ("https://other/v1", authority)


# -- what an option has brought in is the option's fault --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "blamed", "words"),
    [
        ({"overrides": ("repeats=many",)}, "--set repeats=many: ", "`repeats`"),
        ({"overrides": ("repeats=2", "load.concurency=2")}, "--set load.concurency=2: ", "unknown key `concurency`"),
        ({"overrides": ("prompts.lengths=[1k",)}, "--set prompts.lengths=[1k: ", "[1k is not YAML"),
        ({"overrides": ("tiers.g3.path=x",)}, "--set tiers.g3.path=x: ", "`tiers.g3.capacity` is missing"),
        ({"overrides": ("tiers.g4.capacity=20MB", "repeats=2")}, "--set tiers.g4.capacity=20MB: ", "cannot be warm"),
        ({"overrides": ("load.request_rate=2",), "driver": "aiperf"}, "--set load.request_rate=2: ", "open loop"),
        ({"driver": "locust"}, "--driver locust: ", "`load.driver`"),
        ({"endpoint": "ftp://host/v1"}, "--endpoint: ", "not a URL"),
    ],
)
def test_a_bad_value_is_blamed_on_its_option(given: dict[str, Any], blamed: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(OverrideError) as error:
        scenario_file.load(write(tmp_path, GOOD), **given)
    assert error.value.message.startswith(blamed)
    assert words in error.value.message
    assert "scenario.yaml" not in error.value.message
    assert error.value.exit_code == 2


def test_a_fault_of_the_file_stays_with_its_line_whatever_the_options(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("output_tokens: 8", "output_tokens: none"))
    with pytest.raises(ScenarioError) as error:
        scenario_file.load(path, ("repeats=2",), None, "native")
    assert error.value.message.startswith(f"{path}:7: ")
    assert error.value.exit_code == 1


def test_a_driver_takes_the_place_of_the_scenarios(tmp_path: Path) -> None:
    assert scenario_file.load(write(tmp_path, GOOD), driver="aiperf").load.driver == "aiperf"
