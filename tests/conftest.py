"""What every test process needs before its first test."""

from __future__ import annotations

import signal

import hypothesis
import pytest

from kvbench.testbed.neighbors import agent_client, side_clients
from tests.builders.patience import PATIENCE_S


def pytest_configure() -> None:
    """Take Ctrl-C again: background jobs of a shell ignore it, and so would the processes that tests send it to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# No test may depend on how fast the machine is.
hypothesis.settings.register_profile(
    "any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any speed")


@pytest.fixture(autouse=True)
def _patient_with_side_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose no side client only because this machine is busy."""
    monkeypatch.setattr(agent_client, "LOST_AFTER_S", PATIENCE_S)
    monkeypatch.setattr(side_clients, "_ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(side_clients, "_HEAR_S", PATIENCE_S)
