"""Measures the fastest round trip to a server, from the kernel's measurement during connect.

No request can be answered faster, whatever the server does. It is the kernel's own figure (`tcpi_min_rtt` of
`TCP_INFO`), because the time that a busy client takes to notice a connection is no floor.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from kvbench.drivers.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_MIN_RTT = struct.Struct("I")
_MIN_RTT_OFFSET = 148  # of struct tcp_info, since Linux 4.6; microseconds
_UNKNOWN = 0xFFFF_FFFF


def network_floor_s(url: str, tries: int = 3, timeout_s: float = 1.0) -> float | None:
    """Return the fastest of a few round trips to where a URL points; None where nobody answers or the kernel is silent.

    It opens connections and sends nothing on them.
    """
    return min(_round_trips_s(url, tries, timeout_s), default=None)


def _round_trips_s(url: str, tries: int, timeout_s: float) -> Iterator[float]:
    target = Target(url)
    for _ in range(tries):
        try:
            with socket.create_connection((target.host, target.port), timeout_s) as sock:
                found_s = _kernel_round_trip_s(sock)
        except OSError:
            return
        if found_s is not None:
            yield found_s


def _kernel_round_trip_s(sock: socket.socket) -> float | None:
    if _TCP_INFO is None:
        return None
    told = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _MIN_RTT_OFFSET + _MIN_RTT.size)
    if len(told) < _MIN_RTT_OFFSET + _MIN_RTT.size:
        return None
    (micros,) = _MIN_RTT.unpack_from(told, _MIN_RTT_OFFSET)
    return None if micros in (0, _UNKNOWN) else micros / 1e6
