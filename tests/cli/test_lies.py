"""The lying server: for each lie of the emulator what a whole run says, through the command line.

The table in docs/lying-server.md is made of what these runs say: `KVBENCH_WRITE_DOCS=1 pytest tests/cli/test_lies.py -n
0` writes it, and without that variable each run is held against its row. No lie may end in a valid figure of the tier.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.test_cli import kvbench

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path("docs/lying-server.md")
SCENARIO = """\
name: lie
question: Is it believed?
server: {{emulator: {{scale: {{time: 2, bytes: 512}}, faults: [{fault}], fault_every: {every}}}}}
tiers: {{{tiers}g4: {{path: {path}, capacity: 1GB}}}}
prompts: {{lengths: [{lengths}], output_tokens: 4}}
load: {{api: {api}, timeout: 300s{load}}}
treatments:
  recompute: {{cache: off}}
  g4: {{cache: {cache}}}
baseline: recompute
repeats: 1
check_answers: {answers}
"""


@dataclass(frozen=True)
class Lie:
    """`rule` is the one that must speak up for the tier's treatment; "" where kvbench is not deceived at all.

    `every` is how many files or requests go by before the next lie. With `cold` the treatment begins with an empty tier
    and asks for each prompt twice: no hit is expected, so a missing one shows in no ledger.
    """

    words: str
    fault: str
    rule: str
    tiers: str = ""
    api: str = "completions"
    answers: str = "false"
    lengths: str = "2k, 6k"
    every: int = 1
    cold: bool = False

    def scenario(self, tier: Path) -> str:
        fields = {"fault": self.fault, "every": self.every, "tiers": self.tiers, "path": tier, "api": self.api}
        load, cache = (", requests: 4, draw: round_robin", "cold") if self.cold else ("", "{warm: g4}")
        return SCENARIO.format(**fields, answers=self.answers, lengths=self.lengths, load=load, cache=cache)


LIES = [
    Lie("none: an honest server", "", ""),
    Lie("reset says success and keeps the index", "reset_keeps_blocks", "cache state"),
    Lie("reset says success and keeps blocks in g1", "reset_keeps_blocks", "cache state", tiers="g1: 100MB, "),
    Lie("reset keeps the offload tier g2", "reset_keeps_offload", "cache state", tiers="g2: 100MB, "),
    Lie("cached tokens too high", "cached_tokens_high", "cache state"),
    Lie("cached tokens too low", "cached_tokens_low", "cache state"),
    Lie("cached tokens missing", "cached_tokens_missing", "cache state"),
    Lie("cached tokens always 0", "cached_tokens_zero", "cache state"),
    Lie("counters frozen", "counters_frozen", "cache state"),
    Lie("counters of another worker", "counters_other_worker", "cache state"),
    Lie("look-ups counted as hits", "lookups_as_hits", "cache state"),
    Lie("an empty chunk long before the first token", "first_chunk_empty", ""),
    Lie("a role-only chunk long before the first token", "role_only_first_chunk", "", api="chat"),
    Lie("an error chunk in a 200 stream", "error_chunk", "stream_error"),
    Lie("the stream is cut", "cut_stream", "cut"),
    Lie("the stream ends without [DONE]", "no_done", "cut"),
    Lie("no usage", "no_usage", "stream_error"),
    Lie("the prompt is cut in half, usage says so", "truncated_prompt", "prompt length"),
    Lie("the prompt is cut in half, usage hides it", "truncated_prompt_hidden", "cache state"),
    Lie("another model answers", "other_model", "another model"),
    Lie("blocks are admitted after 9 hits only", "admit_after_9", "cache state"),
    Lie("KV files are corrupt, and the server notices", "corrupt_file", "cache state"),
    Lie("one KV file of four is corrupt, the cache began empty", "corrupt_file", "tier files", every=4, cold=True),
    Lie("KV files are corrupt and served", "corrupt_file_served", "cache state"),
    Lie("one KV file of five is corrupt and served", "corrupt_file_served", "answers", answers="true", every=5),
    Lie("the tier is full", "tier_full", "could not write"),
    Lie("the tier refuses one file of four, the cache began empty", "tier_full", "tier files", every=4, cold=True),
    Lie("tier files come from the page cache", "page_cache", ""),
    Lie("write-back is 20 s late, and nothing shows it", "late_write_back", "cache state", lengths="2k"),
]


def row_of(lie: Lie, verdict: str, said: str) -> str:
    return f"| {lie.words} | `{lie.fault or '-'}` | {verdict} | {said} |"


@pytest.mark.parametrize("lie", LIES, ids=[f"{lie.fault or 'honest'}-{lie.tiers or 'g4'}-{lie.every}" for lie in LIES])
def test_a_lie_gives_no_valid_figure(lie: Lie, tmp_path: Path) -> None:
    scenario = tmp_path / "lie.yaml"
    scenario.write_text(lie.scenario(tmp_path / "tier"))
    done = kvbench("run", scenario, "--results", tmp_path / "results")
    assert "Traceback" not in done.stderr
    if done.returncode == 1:  # refused: the very first request, or the tier itself
        said = next(line for line in done.stderr.splitlines() if line.startswith("kvbench: "))
        assert lie.rule in said
        assert not list((tmp_path / "results").glob("*/*/summary.json"))
        told = "ends at once, exit 1"
        words = (
            f"the first request ended as {lie.rule}"
            if lie.rule != "could not write"
            else "the server could not write files into its tier"
        )
    else:
        summary = json.loads((Path(done.stdout.splitlines()[-1]) / "summary.json").read_text())
        told, words = judged(lie, summary)
    check_row(row_of(lie, told, words))


def judged(lie: Lie, summary: dict[str, Any]) -> tuple[str, str]:
    """Hold the tier's verdict against the lie, and return what the table says of it."""
    run = next(run for run in summary["runs"] if run["treatment"] == "g4")
    reasons = [one for one in run["reasons"] if one["level"] == "invalid"]
    figures = [row["cells"]["g4"]["median_s"] for row in summary["lengths"]]
    if not lie.rule:  # not deceived: the figure is true, and a busy machine may at most make it suspect
        assert not reasons
        assert run["tiers"] == {"g4": run["requests"]}
        return "not deceived", "the figure is that of the first real token from the proven tier"
    if lie.cold:  # what was measured is a tier that loses files: shown, and marked
        assert run["verdict"] == summary["verdict"] == "suspect"
        assert lie.rule in {one["rule"] for one in run["reasons"] if one["level"] == "suspect"}
        return "suspect, exit 3", lie.rule
    assert run["verdict"] == "invalid"
    assert figures == [None] * len(figures)
    assert lie.rule in {one["rule"] for one in reasons}
    return "invalid, exit 3", ", ".join(sorted({one["rule"] for one in reasons}))


def check_row(row: str) -> None:
    """Compare a row with the page, or write it there."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    if os.environ.get("KVBENCH_WRITE_DOCS"):
        key = row.split("|")[1:3]
        kept = [line for line in lines if line.split("|")[1:3] != key]
        PAGE.write_text("\n".join([*kept, row]) + "\n")
        return
    assert row in lines


def test_the_page_has_a_row_for_each_lie_and_no_other() -> None:
    rows = [line.split("|")[1].strip() for line in table_lines()]
    assert sorted(rows) == sorted(lie.words for lie in LIES)


def table_lines() -> Iterator[str]:
    lines = PAGE.read_text().splitlines()
    return (line for line in lines[lines.index("| --- | --- | --- | --- |") + 1 :] if line.startswith("|"))
