"""The network's floor, from the kernel's own figures."""

from __future__ import annotations

import socket
import sys

import pytest

from kvbench.load import round_trip


def test_the_floor_of_the_loopback_is_below_any_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        floor_s = round_trip.network_floor_s(f"http://127.0.0.1:{server.getsockname()[1]}/v1")
    if sys.platform != "linux":
        assert floor_s is None
    else:
        assert floor_s is not None
        assert 0 < floor_s < 1


def test_where_nobody_answers_there_is_no_floor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert round_trip.network_floor_s(f"http://127.0.0.1:{port}/v1") is None


def test_a_kernel_that_tells_no_round_trip_gives_no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        monkeypatch.setattr(round_trip, "_TCP_INFO", None)
        assert round_trip.network_floor_s(url) is None


@pytest.mark.parametrize(("told", "floor_s"), [(250, 0.00025), (0, None), (0xFFFF_FFFF, None), (None, None)])
def test_what_the_kernel_says_is_read_from_its_place(told: int | None, floor_s: float | None) -> None:
    class Told(socket.socket):
        def getsockopt(self, *_arguments: int) -> bytes:  # type: ignore[override]
            return bytes(100) if told is None else bytes(148) + told.to_bytes(4, sys.byteorder)

    with Told() as sock:
        assert round_trip._kernel_round_trip_s(sock) == floor_s
