"""iperf3 as a generator: its command lines, and how its output is read.

One server takes one client, so each side client has a port of its own. What is counted are the kernel's byte counters
of the process (`rchar`, `wchar`), which grow with every read and write of any version; iperf3's own totals are kept
beside them. Congestion control is pinned at both ends. Exit code 0 is not success: the `error` key decides. A client
whose link went down never ends by itself; the agent's watchdog ends it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kvbench.errors import HostError
from kvbench.lenient_json import at
from kvbench.scenario.neighbors import Iperf3Flow
from kvbench.testbed.neighbors.generator import Generator, Start, Work, missing

if TYPE_CHECKING:
    from kvbench.result.run_record import Resource
    from kvbench.testbed.hosts.file import Fabric
    from kvbench.testbed.neighbors.agent_event import AgentEvent
    from kvbench.typed_json import JsonObject

_STREAMS_JSON = (3, 17)  # the first version with --json-stream
_LONGEST_S = 86400
_INTERRUPTED = "interrupt"


def version(first_line: str) -> tuple[int, int]:
    """Read "iperf 3.12 (cJSON 1.7.15)" as (3, 12); what cannot be read is (0, 0)."""
    match = re.match(r"iperf (\d+)\.(\d+)", first_line)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def server_command(fabric: Fabric, port: int) -> list[str]:
    """Return the command of the server for one side client."""
    return ["iperf3", "--server", "--bind", fabric.address, "--port", str(port)]


def client_command(
    flow: Iperf3Flow, fabric: Fabric, port: int, rate_bytes_per_s: float | None, first_line: str
) -> list[str]:
    """Return the command of a side client, at a rate of all its streams together (`--bitrate` is per stream)."""
    bits_per_stream = None if rate_bytes_per_s is None else max(1, round(rate_bytes_per_s * 8 / flow.parallel))
    return [
        *("iperf3", "--client", fabric.address, "--port", str(port), "--time", str(_LONGEST_S)),
        *("--parallel", str(flow.parallel), "--congestion", flow.congestion, "--connect-timeout", "3000"),
        *(["--reverse"] if flow.reverse else []),
        *([] if bits_per_stream is None else ["--bitrate", str(bits_per_stream)]),
        *(["--json-stream"] if version(first_line) >= _STREAMS_JSON else ["--json", "--interval", "0"]),
    ]


def counter(flow: Iperf3Flow) -> str:
    """Return which of the process's counters holds the payload."""
    return "rchar" if flow.reverse else "wchar"


def outcome(final: AgentEvent) -> JsonObject:
    """Return what a `final` event of the agent says: {"error": sentence or None, "bytes": ..., ...}."""
    document = final.get("document") or {}
    end = document.get("end")
    error = at(document, "error")
    if error is not None and _INTERRUPTED in error and final["why"] != "itself":
        error = None
    if error is None and final["why"] == "itself":
        error = f"iperf3 ended by itself with exit code {final['code']}"
    return {
        "error": error,
        "version": at(document, "start", "version"),
        "bytes": at(end, "sum_received", "bytes"),
        "retransmits": at(end, "sum_sent", "retransmits"),
        "congestion": [at(end, f"{side}_tcp_congestion") for side in ("sender", "receiver")],
    }


def _preflight(_flow: Iperf3Flow, hello: JsonObject) -> tuple[str, str] | None:
    return missing("iperf3", hello)


def _start(flow: Iperf3Flow, start: Start) -> Work:
    if start.fabric is None:
        raise HostError("iperf3 has no far end", "Add `iperf3: {address: ..., ports: [...]}` to the hosts file.")
    command = client_command(flow, start.fabric, start.port, start.rate_bytes_per_s, start.version)
    return Work(command, counter(flow))


def _passes(flow: Iperf3Flow) -> tuple[Resource, ...]:
    return ("link",) if flow.reverse else ()


GENERATOR = Generator("iperf3", Iperf3Flow, _start, outcome, _preflight, far_end=server_command, passes=_passes)
