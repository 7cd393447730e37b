"""What a user may set, the command line that sets it, and the profile of the modelled system."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench import emulator_profile, strict_yaml
from kvbench.emulator.files import MIN_PAYLOAD_BYTES
from kvbench.emulator.gpu import GpuFigures
from kvbench.emulator_faults import FAULTS
from kvbench.emulator_profile import KIND
from kvbench.errors import OptionError, ServerError
from kvbench.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.emulator.hierarchy import WritePolicy

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
    g3_path: Path | None = None
    g3_capacity_bytes: int | None = None
    g4_path: Path | None = None
    g4_capacity_bytes: int | None = None
    g4_shared: bool = False
    replace_others: bool = False
    g4_payload_bytes: int = 1024 * 1024
    io_threads: int = 8
    write_policy: WritePolicy = "through"
    admit_after_hits: int = 1
    write_delay_s: float = 0.0
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
            OptionError: with the one setting to change.

        """
        self._check_directories()
        if self.write_delay_s < 0:
            raise OptionError("a write delay cannot be negative", "Use --write-delay-ms 0 or more.")
        if self.g4_payload_bytes < MIN_PAYLOAD_BYTES:
            raise OptionError("tier files would be too small to measure storage", "Use at least 64KiB a file.")
        if self.time_scale <= 0 or self.byte_scale < 1:
            raise OptionError("a scale must be positive", "Use e.g. --time 8 --bytes 512, or 1 for full scale.")
        counts = (self.instances, self.max_batched_tokens, self.io_threads, self.fault_every, self.admit_after_hits)
        if min(counts) < 1:
            named = "instances, batched tokens, I/O threads, admit-after-hits and fault-every"
            raise OptionError(f"{named} must be at least 1", "Raise it.")
        if unknown := sorted(set(self.faults) - set(FAULTS)):
            remedy = f"Use one of {', '.join(FAULTS)}."
            raise OptionError(f"{unknown[0]} is not a fault that the emulator knows", remedy)

    def _check_directories(self) -> None:
        for name, path, capacity_bytes in (
            ("g3", self.g3_path, self.g3_capacity_bytes),
            ("g4", self.g4_path, self.g4_capacity_bytes),
        ):
            if path and not capacity_bytes:
                raise OptionError(f"{name.upper()} has a path and no capacity", f"Add --{name}-capacity, e.g. 20GB.")
            if capacity_bytes and not path:
                raise OptionError(f"{name.upper()} has a capacity and no path", f"Add --{name}-path, a directory.")
        if self.g3_path and self.g4_path and self.g3_path.resolve() == self.g4_path.resolve():
            raise OptionError("G3 and G4 are the same directory", "Give each tier a directory of its own.")
        if self.g4_shared and not self.g4_path:
            raise OptionError("there is no G4 to share", "Add --g4-path, or leave out --g4-shared.")


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
    path = emulator_profile.path_of(name)
    if not path.is_file():
        remedy = strict_yaml.nearest(name, emulator_profile.names(), ", or the path of a YAML file")
        raise ServerError(f"there is no profile {name}", remedy)
    try:
        tree = strict_yaml.parse(strict_yaml.read(path, KIND), str(path), KIND)
        profile = strict_yaml.check(tree, emulator_profile.ProfileFile)
        return Profile(profile.name, profile.model, _gpu_figures(profile, tree))
    except strict_yaml.Fault as fault:
        raise ServerError(f"not a profile: {fault.message}", fault.remedy) from None


def _gpu_figures(profile: emulator_profile.ProfileFile, tree: strict_yaml.Tree) -> GpuFigures:
    known = fields(GpuFigures)
    names = [field.name for field in known]
    for name in profile.gpu:
        if name not in names:
            raise tree.fault(("gpu", name), f"the emulator has no figure {name}", strict_yaml.nearest(name, names))
    for field in known:
        if field.default is MISSING and field.name not in profile.gpu:
            raise tree.fault(("gpu",), f"`gpu.{field.name}` is missing", f"Add `gpu.{field.name}: {{value: ...}}`.")
    return GpuFigures(**{name: figure.value for name, figure in profile.gpu.items()})


def parse_arguments(arguments: Sequence[str], program: str = "kvbench.emulator", port: int = 0) -> EmulatorSettings:
    """Read the command line, whose default port is `port`; wrong usage ends the process with exit code 2."""
    parser = _parser(program)
    parser.set_defaults(port=port)
    given = vars(parser.parse_args(arguments))
    given["cache"] = given["cache"] == "on"
    given["faults"] = tuple(given["faults"])
    fixed_ms = given.pop("fixed_latency_ms")
    given["fixed_latency_s"] = None if fixed_ms is None else fixed_ms / 1000
    given["token_gap_s"] = given.pop("token_gap_ms") / 1000
    given["write_delay_s"] = given.pop("write_delay_ms") / 1000
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
    for tier, meaning in (("g1", "GPU memory of each instance"), ("g2", "host memory, really taken")):
        add(f"--{tier}", dest=f"{tier}_bytes", type=_size, default=0, metavar="SIZE", help=meaning)
    for tier, meaning in (("g3", "local disk"), ("g4", "shared or remote storage")):
        add(f"--{tier}-path", type=Path, metavar="DIR", help=f"{meaning}: directory of tier files; new, empty or ours")
        capacity = f"{tier}_capacity_bytes"
        add(f"--{tier}-capacity", dest=capacity, type=_size, metavar="SIZE", help=f"{tier.upper()} evicts above this")
    add("--g4-shared", action="store_true", help="other servers use the directory of G4 too, each with this option")
    add("--replace-others", action="store_true", help="delete tier files of another model, scale or file size")
    add(
        "--g4-payload",
        dest="g4_payload_bytes",
        type=_size,
        default=default.g4_payload_bytes,
        metavar="SIZE",
        help="KV in a file of any tier",
    )
    add("--io-threads", type=int, default=default.io_threads, help="tier files that are read at a time")
    add(
        "--write-policy",
        choices=("through", "back"),
        default=default.write_policy,
        help="through: new blocks go to all tiers at once; back: down one tier when a faster one evicts them",
    )
    add(
        "--admit-after-hits",
        type=int,
        default=default.admit_after_hits,
        metavar="K",
        help="blocks enter the tiers below G1 with the K-th request that asks for them",
    )
    add("--write-delay-ms", type=float, default=0.0, metavar="MS", help="tier writes begin so much later")
    add("--allow-tmpfs", action="store_true", help="let a tier be in memory, for tests")
