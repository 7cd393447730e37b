"""What a user may set, the command line that sets it, and the profile of the modelled system."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kvbench.emulator.faults import FAULTS
from kvbench.emulator.files import MIN_PAYLOAD_BYTES
from kvbench.emulator.gpu import GpuFigures
from kvbench.errors import ServerError
from kvbench.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

PROFILES = Path(__file__).parent / "profiles"
DEFAULT_PROFILE = "gpt-oss-120b_rtx-pro-6000"


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """Everything that decides how one emulator behaves; sizes in bytes, times in seconds.

    `time_scale` divides GPU time and `byte_scale` KV bytes. `fixed_latency_s` switches the GPU model off: the first
    token comes exactly that long after the request, the others `token_gap_s` apart.
    """

    profile: str = DEFAULT_PROFILE
    time_scale: float = 8.0
    byte_scale: int = 512
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    instances: int = 1
    max_batched_tokens: int = 8192
    max_model_len: int | None = None
    cache: bool = True
    g1_bytes: int = 0
    g2_bytes: int = 0
    g3_bytes: int = 0
    g4_path: Path | None = None
    g4_capacity_bytes: int | None = None
    g4_payload_bytes: int = 1024 * 1024
    io_threads: int = 8
    allow_tmpfs: bool = False
    faults: tuple[str, ...] = ()
    fault_every: int = 1
    api_key_env: str | None = None
    fixed_latency_s: float | None = None
    token_gap_s: float = 0.0
    debug: bool = False

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ServerError: with the one setting to change.

        """
        if self.g2_bytes or self.g3_bytes:
            raise ServerError("the emulator has no G2 and no G3 yet", "leave --g2 and --g3 at 0")
        if self.g4_path and not self.g4_capacity_bytes:
            raise ServerError("G4 has a path and no capacity", "add --g4-capacity, e.g. 20GB")
        if self.g4_payload_bytes < MIN_PAYLOAD_BYTES:
            raise ServerError("tier files would be too small to measure storage", "use at least 64KiB a file")
        if self.time_scale <= 0 or self.byte_scale < 1:
            raise ServerError("a scale must be positive", "use e.g. --time 8 --bytes 512, or 1 for full scale")
        if min(self.instances, self.max_batched_tokens, self.io_threads, self.fault_every) < 1:
            raise ServerError("instances, batched tokens, I/O threads and fault-every must be at least 1", "raise it")
        if unknown := sorted(set(self.faults) - set(FAULTS)):
            raise ServerError(f"{unknown[0]} is not a fault that the emulator knows", f"use one of {', '.join(FAULTS)}")


@dataclass(frozen=True, slots=True)
class Profile:
    """One modelled system: its name, the model it was published with, and the figures of its GPU."""

    name: str
    model: str
    figures: GpuFigures


def load_profile(name: str) -> Profile:
    """Read a profile by its name, or by the path of a YAML file.

    Raises:
        ServerError: there is no such profile, or it lacks a figure.

    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    try:
        content: dict[str, Any] = YAML(typ="safe").load(path)
        figures = {key: float(entry["value"]) for key, entry in content["gpu"].items()}
        return Profile(content["name"], content["model"], GpuFigures(**figures))
    except OSError:
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise ServerError(f"there is no profile {name}", f"use one of {known}, or the path of a YAML file") from None
    except (YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(
            f"{path} is not a profile: {error!r}", "compare it with the profile that is shipped"
        ) from None


def parse_arguments(arguments: Sequence[str], program: str = "kvbench.emulator") -> EmulatorSettings:
    """Read the command line; wrong usage ends the process with exit code 2, as argparse does."""
    given = vars(_parser(program).parse_args(arguments))
    given["cache"] = given["cache"] == "on"
    given["faults"] = tuple(given["faults"])
    fixed_ms = given.pop("fixed_latency_ms")
    given["fixed_latency_s"] = None if fixed_ms is None else fixed_ms / 1000
    given["token_gap_s"] = given.pop("token_gap_ms") / 1000
    return EmulatorSettings(**given)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program,
        description="An OpenAI-compatible server with modelled GPU time and real storage I/O. Sizes such as 20GB.",
        epilog="Faults: " + "; ".join(f"{name} ({meaning})" for name, meaning in sorted(FAULTS.items())),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    default = EmulatorSettings()
    add = parser.add_argument
    add("--profile", default=default.profile, help="name of a shipped profile, or a YAML file")
    add("--time", dest="time_scale", type=float, default=default.time_scale, help="divides GPU time")
    add("--bytes", dest="byte_scale", type=int, default=default.byte_scale, help="divides KV bytes")
    add("--model", help="served name, whose shape must be known; default: the model of the profile")
    add("--host", default=default.host, help="address to listen on")
    add("--port", type=int, default=default.port, help="0 takes a free one")
    add("--instances", type=int, default=default.instances, help="GPUs, data parallel")
    add("--max-batched-tokens", type=int, default=default.max_batched_tokens, help="tokens a step computes at most")
    add("--max-model-len", type=int, help="longest prompt and answer; default: what the model can")
    add("--cache", choices=("on", "off"), default="on", help="off: nothing is reused and nothing stored")
    _add_tiers(parser, default)
    add(
        "--fault",
        dest="faults",
        action="append",
        default=[],
        choices=sorted(FAULTS),
        metavar="NAME",
        help="a lie to tell; repeatable; see below",
    )
    add("--fault-every", type=int, default=default.fault_every, help="only each N-th generation request")
    add("--api-key-env", metavar="NAME", help="environment variable that holds the key which /v1 asks for")
    add("--fixed-latency-ms", type=float, help="no GPU model: first token exactly so long after the request")
    add("--token-gap-ms", type=float, default=0.0, help="with --fixed-latency-ms: time between tokens")
    add("--debug", action="store_true", help="tracebacks and a line per request on stderr")
    return parser


def _add_tiers(parser: argparse.ArgumentParser, default: EmulatorSettings) -> None:
    add = parser.add_argument
    for tier, meaning in (("g1", "GPU memory of each instance"), ("g2", "host memory"), ("g3", "local disk")):
        add(f"--{tier}", dest=f"{tier}_bytes", type=_size, default=0, metavar="SIZE", help=meaning)
    add("--g4-path", type=Path, metavar="DIR", help="directory of the tier files; new, empty or ours")
    add("--g4-capacity", dest="g4_capacity_bytes", type=_size, metavar="SIZE", help="G4 evicts above this")
    add(
        "--g4-payload",
        dest="g4_payload_bytes",
        type=_size,
        default=default.g4_payload_bytes,
        metavar="SIZE",
        help="KV in a file",
    )
    add("--io-threads", type=int, default=default.io_threads, help="tier files that are read at a time")
    add("--allow-tmpfs", action="store_true", help="let a tier be in memory, for tests")
