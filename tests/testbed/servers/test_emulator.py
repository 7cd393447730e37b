"""Starting an emulator: a crash while it is waited for is told at once, in its own words, and its log is kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from kvbench.errors import ServerError
from kvbench.lenient_json import at
from kvbench.scenario.models import Tiers
from kvbench.scenario.server_spec import EmulatorSpec
from kvbench.testbed.servers import emulator

if TYPE_CHECKING:
    from pathlib import Path

CRASHES = [
    ("import sys; print('loading', file=sys.stderr); sys.exit('MemoryError: no room for g2')", "no room for g2"),
    ("import os; os.abort()", "it said nothing"),
    ("import os; os.write(2, b'OSError: disk gone\\n'); os.close(1); import time; time.sleep(0.3)", "disk gone"),
    ("raise RuntimeError('profile of another world')", "profile of another world"),
]


@pytest.mark.parametrize(("program", "words"), CRASHES, ids=[words for _, words in CRASHES])
def test_a_crash_before_it_is_ready_is_told_at_once(
    program: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "logs" / "emulator.log"
    monkeypatch.setattr(emulator, "_command", lambda *_, **__: [sys.executable, "-c", program])
    monkeypatch.setattr(emulator, "_START_TIMEOUT_S", 3600.0)  # it is not waited for
    with pytest.raises(ServerError) as error, emulator.serve(EmulatorSpec(), Tiers(), log, cache_on=True):
        pass
    assert "the emulator ended at once" in error.value.message
    assert words in error.value.message
    assert str(log) in error.value.remedy
    assert log.exists()


def test_an_emulator_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, time; print(os.getpid(), file=open('pid', 'w')); time.sleep(60)"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(emulator, "_command", lambda *_, **__: [sys.executable, "-c", program])
    monkeypatch.setattr(emulator, "_START_TIMEOUT_S", 1.0)
    starting = emulator.serve(EmulatorSpec(), Tiers(), tmp_path / "log", cache_on=True)
    with pytest.raises(ServerError, match="was not ready after 1 s"), starting:
        pass


def test_only_a_server_that_shares_its_g4_says_so_to_the_emulator(tmp_path: Path) -> None:
    """Both servers on one directory must ask for it, or the second one refuses to start."""
    tiers = Tiers.model_validate({"g4": {"path": tmp_path / "tier", "capacity": "50MB"}})
    spec = EmulatorSpec.model_validate({"scale": {"bytes": 512}})
    shared = emulator.serve(spec, tiers, tmp_path / "one.log", cache_on=True, shared=True)
    other = emulator.serve(spec, tiers, tmp_path / "two.log", cache_on=True, shared=True)
    with shared as one, other as two:
        assert one.url != two.url
        assert at(one.info, "tiers", "g4", "shared")
        alone = emulator.serve(spec, tiers, tmp_path / "three.log", cache_on=True)
        with pytest.raises(ServerError, match="another server uses"), alone:
            pass
