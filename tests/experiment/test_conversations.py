"""Conversations from end to end on the emulator: both drivers send the same, and the result holds all that was sent."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from kvbench.result import answers
from kvbench.result.draw_file import read_draws
from kvbench.result.folder import RunFolder
from kvbench.result.rows import read_rows
from tests.builders.made_up_runs import honest_run
from tests.cli.test_cli import kvbench
from tests.drivers.test_aiperf import needs_aiperf

if TYPE_CHECKING:
    from kvbench.result.records import Row

SCENARIO = """\
name: talk
question: Do both drivers hold the same conversations?
server: {{emulator: {{scale: {{time: 8, bytes: 512}}}}}}
tiers: {{g2: 40MB, g4: {{path: {tier}, capacity: 1GB}}}}
prompts:
  lengths: [300, 700]
  per_length: 2
  output_tokens: 6
  turns: {{count: 3, new_tokens: 100, history: {history}}}
load: {{concurrency: 2, api: {api}}}
treatments:
  recompute: {{cache: off}}
  cold: {{cache: cold}}
baseline: recompute
repeats: 1
"""
TURNS, CONVERSATIONS = 3, 4


def held(tmp_path: Path, driver: str = "native", history: str = "recorded", api: str = "completions") -> Path:
    """Run the scenario; return the result's folder."""
    file = tmp_path / "talk.yaml"
    file.write_text(SCENARIO.format(tier=tmp_path / f"tier-{driver}", history=history, api=api))
    done = kvbench("run", file, "--driver", driver, "--results", tmp_path / driver)
    assert done.returncode in (0, 3), done.stderr
    return Path(done.stdout.splitlines()[-1])


def measured(folder: Path, run_id: str) -> list[Row]:
    return [row for row in read_rows(folder / "runs" / run_id) if row.phase == "measure"]


def texts_of(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return [json.loads(line) for line in io.TextIOWrapper(reader)]


@needs_aiperf
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_both_drivers_hold_the_same_conversations(tmp_path: Path, api: str) -> None:
    ours, theirs = held(tmp_path, "native", api=api), held(tmp_path, "aiperf", api=api)
    for run_id in ("r01-recompute", "r01-cold"):
        rows = [{row.request_id: row for row in measured(folder, run_id)} for folder in (ours, theirs)]
        assert list(rows[0]) == list(rows[1]) or set(rows[0]) == set(rows[1])
        assert len(rows[0]) == TURNS * CONVERSATIONS
        for name, native in rows[0].items():
            aiperf = rows[1][name]
            assert (native.driver, aiperf.driver) == ("native", "aiperf")
            for field in ("conversation_id", "turn", "isl_target", "isl", "osl", "cached_tokens", "status", "tier"):
                assert getattr(native, field) == getattr(aiperf, field), (name, field)
            assert native.answer_hash == aiperf.answer_hash
            assert native.status == "ok"
        tiers = {row.tier for row in rows[0].values() if row.turn}
        assert tiers == ({"recompute"} if run_id == "r01-recompute" else {"g2"})
    shown = json.loads(kvbench("show", theirs, "--json").stdout)
    assert [reason for run in shown["runs"] for reason in run["reasons"] if reason["level"] == "invalid"] == []


def test_the_result_holds_every_text_of_recorded_conversations(tmp_path: Path) -> None:
    folder = held(tmp_path)
    texts = {line["key"]: line["prompt"] for line in texts_of(folder / "prompts.jsonl.zst")}
    for _, _, prompt_id, isl_target, salt, _, last_turn, _ in read_draws(folder):
        key = f"{prompt_id}@{salt}" if salt else prompt_id
        said = [texts[key]]
        for turn in range(1, last_turn + 1):
            said += [texts[f"{key}/turn-{turn - 1}/answer"], texts[f"{key}/turn-{turn}"]]
        assert len(" ".join(said).split()) == isl_target
    assert not list(folder.glob("runs/*/answers.jsonl.zst"))


def test_the_result_holds_every_answer_that_live_conversations_sent_again(tmp_path: Path) -> None:
    folder = held(tmp_path, history="live")
    keys = {line["key"] for line in texts_of(folder / "prompts.jsonl.zst")}
    assert any(key.endswith("/turn-2") for key in keys)
    assert not any(key.endswith("/answer") for key in keys)
    for run_id in ("r01-recompute", "r01-cold"):
        answers = {
            line["request_id"]: line["answer"] for line in texts_of(folder / "runs" / run_id / "answers.jsonl.zst")
        }
        rows = measured(folder, run_id)
        assert set(answers) == {row.request_id for row in rows}
        assert {len(text.split()) for text in answers.values()} == {6}


def test_plan_says_beforehand_what_overflows() -> None:
    """The shipped matrix at 4 and 8 conversations never needs its slower tiers, and at 16 it does."""
    text = kvbench("plan", "scenarios/multi_turn.yaml", COLUMNS="120").stdout
    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if "MB" in line}
    for concurrency in (4, 8):
        assert rows[f"baseline_{concurrency}"].endswith("72 MB \N{EN DASH} \N{EN DASH} \N{EN DASH} nothing overflows")
        assert rows[f"local_ssd_{concurrency}"].endswith("nothing overflows: g2, g3 are only written")
        assert rows[f"nvmeof_{concurrency}"].endswith("nothing overflows: g2, g4 are only written")
    assert rows["baseline_16"].endswith("overflow, recomputed")
    assert rows["local_ssd_16"].endswith("overflow, read from g2 or g3")
    assert rows["nvmeof_16"].endswith("overflow, read from g2 or g4")
    pressed = kvbench("plan", "scenarios/multi_turn_pressure.yaml", COLUMNS="120").stdout
    assert "nothing overflows" not in pressed
    assert pressed.count("overflow, read from") == 6


def test_live_history_may_come_back_as_a_few_more_tokens() -> None:
    """What a server said is counted anew when it is sent again, and in a template; a cut prompt is more than that."""
    for extra, turn, is_wrong in ((16, 1, False), (500, 1, False), (16, 0, True), (501, 1, True), (-501, 1, True)):
        made = honest_run()
        row = next(number for number, one in enumerate(made.rows) if one.isl == 10_000)
        made.edit(row, turn=turn, isl=10_000 + extra)
        made.expect(has_live_history=True)
        assert ("prompt length" in made.rules) == is_wrong, (extra, turn)
        made.expect(has_live_history=False)
        assert "prompt length" in made.rules


def test_an_answer_is_compared_with_that_to_the_same_turn(tmp_path: Path) -> None:
    first = honest_run().rows[0]
    for run_id in ("r01-off", "r02-off"):
        folder = RunFolder(tmp_path / run_id, 1)
        folder.path.mkdir()
        journal = folder.open_journal()
        for turn in range(3):
            said = "other" if (run_id, turn) == ("r02-off", 2) else f"answer {turn}"
            journal.append(replace(first, request_id=f"{run_id}.{turn}", turn=turn, answer_hash=said))
        journal.close()
        folder.seal(honest_run().record)
    answers.settle_answers(tmp_path, ["r01-off"])
    found = [[row.answers_match for row in read_rows(tmp_path / run_id)] for run_id in ("r01-off", "r02-off")]
    assert found == [[True, True, True], [True, True, False]]
