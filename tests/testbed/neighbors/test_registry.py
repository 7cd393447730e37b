"""What each generator says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from kvbench.scenario.neighbors import NeighborSpec
from kvbench.testbed.neighbors.registry import generator_of


@pytest.mark.parametrize(
    ("load", "passes"),
    [
        ({"fio": {"rw": "read"}}, ("disk", "link")),
        ({"fio": {"rw": "randread"}}, ("disk", "link")),
        ({"fio": {"rw": "write"}}, ()),
        ({"fio": {"rw": "randrw"}}, ()),  # half of its bytes: what is left for the server cannot be told
        ({"iperf3": {}}, ("link",)),
        ({"iperf3": {"reverse": False}}, ()),
    ],
)
def test_what_its_bytes_share_with_the_reads_of_a_server(load: dict[str, Any], passes: tuple[str, ...]) -> None:
    spec = NeighborSpec.model_validate(load)
    assert generator_of(spec).passes(spec.keys) == passes
