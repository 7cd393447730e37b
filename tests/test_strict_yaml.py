"""Every kind of YAML file is read in one way: the same faults have the same sentence, with a line and a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from pydantic import Field

from kvbench import strict_yaml
from kvbench.emulator import settings
from kvbench.emulator_profile import PROFILES
from kvbench.errors import HostError, KvbenchError, ResultError, ScenarioError, ServerError
from kvbench.publications import claims_file
from kvbench.scenario import file as scenario_file
from kvbench.strict_yaml import Strict
from kvbench.testbed.hosts import file as hosts_file
from tests.publications import test_claims_file
from tests.scenario import test_file
from tests.testbed.hosts import test_hosts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROFILE = (PROFILES / "gpt-oss-120b_rtx-pro-6000.yaml").read_text()
FRONT_ENDS: dict[str, tuple[Callable[[Path], object], str, type[KvbenchError]]] = {
    "scenario": (scenario_file.load, test_file.GOOD, ScenarioError),
    "claims": (claims_file.load, test_claims_file.HEAD + test_claims_file.TABLE, ResultError),
    "hosts": (hosts_file.load, test_hosts.GOOD, HostError),
    "profile": (lambda path: settings.load_profile(str(path)), PROFILE, ServerError),
}


def fault_of(name: str, path: Path, text: str) -> KvbenchError:
    """Return the fault of a file, and the sentence behind its name."""
    load, _, kind = FRONT_ENDS[name]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(kind) as caught:
        load(path)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("name: a\nname: b\n", "the key `name` stands twice"),
        ("# a bell: \x07\n", "the character U+0007 cannot stand in a file of text"),
        ("yy: *a\n", "found undefined alias"),
        ("zz: &a 1\n", "unknown key `zz`"),
        ("? [a, b]\n: 1\n", "unknown key `('a', 'b')`"),
    ],
    ids=["twice", "bell", "alias", "anchor", "list as key"],
)
def test_the_same_fault_has_the_same_sentence_in_every_file(
    name: str, more: str, sentence: str, tmp_path: Path
) -> None:
    good = FRONT_ENDS[name][1].replace("name: a-sweep\n", "").replace("name: example\n", "")
    good = good.replace("name: gpt-oss-120b_rtx-pro-6000\n", "")
    path = tmp_path / "written.yaml"
    fault = fault_of(name, path, good + more)
    line = good.count("\n") + more.count("\n") - (more.startswith("?"))
    assert f"{path}:{line}: " in fault.message
    assert sentence in fault.message
    assert "\n" not in fault.message


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_what_is_no_mapping_is_told_as_such(name: str, tmp_path: Path) -> None:
    for text in ("", "- a\n", "hello\n"):
        fault = fault_of(name, tmp_path / "written.yaml", text)
        assert "written.yaml:1: a " in fault.message
        assert "is a mapping of keys" in fault.message


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_file_of_yaml_1_1_is_refused_since_its_off_is_false(name: str, tmp_path: Path) -> None:
    fault = fault_of(name, tmp_path / "written.yaml", f"%YAML 1.1\n---\n{FRONT_ENDS[name][1]}")
    assert "written.yaml:1: kvbench reads YAML 1.2" in fault.message


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_text_of_another_encoding_is_told_as_such(name: str, tmp_path: Path) -> None:
    fault = fault_of(name, tmp_path / "written.yaml", FRONT_ENDS[name][1] + "# \udcfc\n")
    assert "written.yaml: cannot read it: it is not UTF-8 text" in fault.message


@pytest.mark.parametrize(
    ("name", "good", "bad", "line", "remedy"),
    [
        ("scenario", "output_tokens: 8", "turns: {cnt: 3}", 7, "Did you mean `count`?"),
        ("scenario", "output_tokens: 8", "turns: {histry: live}", 7, "Did you mean `history`?"),
        ("scenario", "load: {concurrency: 1", "load: {cncurency: 1", 8, "Did you mean `concurrency`?"),
        ("claims", "what: ttft", "waht: ttft", 11, "Did you mean `what`?"),
        ("hosts", "interface: eth1", "interfce: eth1", 3, "Did you mean `interface`?"),
        ("hosts", "ssh: {known_hosts:", "ssh: {known_host:", 1, "Did you mean `known_hosts`?"),
        ("profile", "basis:", "bassis:", 11, "Did you mean `basis`?"),
        ("profile", "onboard_fixed_s:", "onboard_s:", 17, "Did you mean onboard_fixed_s?"),
    ],
)
def test_a_slip_has_its_line_and_the_nearest_key_of_its_place(
    name: str, good: str, bad: str, line: int, remedy: str, tmp_path: Path
) -> None:
    assert good in FRONT_ENDS[name][1]
    fault = fault_of(name, tmp_path / "written.yaml", FRONT_ENDS[name][1].replace(good, bad, 1))
    assert f"written.yaml:{line}: " in fault.message
    assert fault.remedy == remedy


def test_a_number_as_a_key_has_its_line(tmp_path: Path) -> None:
    text = test_file.GOOD.replace("  g4: {", "  4: {cache: lukewarm}\n  g4: {")
    fault = fault_of("scenario", tmp_path / "written.yaml", text)
    assert "written.yaml:11: `treatments.4.cache`: 'lukewarm'" in fault.message


def test_what_all_ssh_entries_share_is_a_mapping(tmp_path: Path) -> None:
    shared = "ssh: {known_hosts: /etc/kvbench/known_hosts, user: bench}"
    fault = fault_of("hosts", tmp_path / "written.yaml", test_hosts.GOOD.replace(shared, "ssh: bench"))
    assert "written.yaml:1: `ssh`: this must be a mapping of keys (got 'bench')" in fault.message


# -- the reader itself ------------------------------------------------------------------------------------------------


class Leaf(Strict):
    size: Annotated[int, Field(gt=0)] = 1
    colour: Literal["red", "green"] = "red"


class Root(Strict):
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    named: dict[str, Leaf | list[Leaf] | str] = Field(default_factory=dict)
    words: tuple[str, ...] = ()


KIND = strict_yaml.Kind("a root", "Write one.", "a page")


def told(text: str) -> tuple[str, str]:
    with pytest.raises(strict_yaml.Fault) as caught:
        strict_yaml.check(strict_yaml.parse(text, "f", KIND), Root)
    return caught.value.message, caught.value.remedy


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("leaf: {sise: 1}", "f:1: unknown key `sise`", "Did you mean `size`?"),
        ("leaves:\n- size: 1\n- sise: 1", "f:3: unknown key `sise`", "Did you mean `size`?"),
        ("named:\n  a: 1\n  b: {sise: 1}", "f:3: unknown key `sise`", "Did you mean `size`?"),
        ("size: 1", "f:1: unknown key `size`", "Remove the key, or look it up in a page."),
        ("leaves:\n- {colour: gren}", "f:2: `leaves.0.colour`: ", "Did you mean green?"),
        ("leaf: {size: much}", "f:1: `leaf.size`: this must be a whole number (got 'much')", "Mend this value; a page"),
        ("words: [3]", "f:1: `words.0`: this must be text; a number or a date is text in quotes (got 3)", "Mend"),
    ],
)
def test_a_fault_is_found_below_lists_mappings_and_unions(text: str, message: str, remedy: str) -> None:
    said, what = told(text)
    assert said.startswith(message)
    assert what.startswith(remedy)


def test_off_is_a_word_and_a_number_as_text_keeps_its_digits() -> None:
    typed = strict_yaml.parse("words: [off, on, yes]\nsize: 30.00", "f", KIND).values
    assert typed == {"words": ["off", "on", "yes"], "size": 30}
    as_text = strict_yaml.Kind("a root", "Write one.", "a page", as_text=True)
    words = strict_yaml.parse("words: [off, true, null]\nsize: 30.00", "f", as_text).values
    assert words == {"words": ["off", "true", "null"], "size": "30.00"}


def test_there_is_one_strict_model() -> None:
    """A model with settings of its own would be strict in another way."""
    models = [Strict]
    for model in models:
        models += model.__subclasses__()
    assert {"Scenario", "HostsFile", "Claims", "NeighborSpec", "ProfileFile"} <= {one.__name__ for one in models}
    assert all(one.model_config == Strict.model_config for one in models)
