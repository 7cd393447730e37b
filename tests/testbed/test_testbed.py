"""What a testbed says before anything runs: what cannot be proven on a server that somebody else runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvbench.testbed import testbed
from kvbench.testbed.servers.counters import Counters
from tests.builders.results import Case

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.testbed.servers.endpoint import Endpoint

COUNTED = Counters(local_hits=0, external_hits=0, process_read_bytes=0)


@dataclass
class Known:
    """A server of which something is known; nothing is asked of it."""

    info: dict[str, Any] = field(default_factory=dict)
    counters: Counters = COUNTED
    tier_path: Path | None = None
    metrics_url: str = "http://127.0.0.1:8000/metrics"

    def scrape(self) -> Counters:
        return self.counters


def limits(known: Known, **external: object) -> list[str]:
    mapping = Case(scale=None, published=None).mapping()
    mapping["server"]["external"] |= external
    scenario = Case(scale=None, published=None).scenario().model_validate(mapping)
    return testbed.Testbed(scenario, cast("Endpoint", known), contextlib.ExitStack()).limits()


@pytest.mark.parametrize(
    ("info", "external", "missing"),
    [({}, {}, True), ({"kv_bytes_per_token": 144}, {}, False), ({}, {"kv_bytes_per_token": "72kB"}, False)],
    ids=["nobody tells", "the server tells", "the scenario tells"],
)
def test_bytes_cannot_be_held_against_hits_where_nobody_tells_the_size_of_a_token(
    info: dict[str, Any], external: dict[str, str], *, missing: bool
) -> None:
    told = limits(Known(info), **external)
    assert any("server.external.kv_bytes_per_token is not given" in limit for limit in told) == missing
    assert any("tier_path is not given" in limit for limit in told)
