"""Reads a profile of the emulator: the model of a published or assumed system, and the figures of its GPU.

The scenario reads it to know the model and to find faults before anything starts, the emulator to model GPU time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from kvbench import strict_yaml
from kvbench.strict_yaml import Strict

PROFILES = Path(__file__).parent / "emulator" / "profiles"
KIND = strict_yaml.Kind(
    "a profile",
    f"Compare it with a profile that is shipped, such as {PROFILES}/gpt-oss-120b_rtx-pro-6000.yaml.",
    "docs/emulator.md",
)


class ProfileFigure(Strict):
    """One figure in SI units, where it is from, and whether it is fitted to published ends, derived or assumed."""

    value: float
    basis: Literal["fitted", "derived", "assumed"] = "assumed"
    source: Annotated[str, Field(alias="from")] = ""


class ProfileFile(Strict):
    """A profile as it is written; `gpu` has the fields of the emulator's `GpuFigures`."""

    schema_version: int = 1
    name: str
    model: str
    gpu: dict[str, ProfileFigure]


def is_file(profile: str) -> bool:
    """Tell whether a profile is named by the path of a YAML file, and not by the name of one that is shipped."""
    return profile.endswith((".yaml", ".yml"))


def path_of(profile: str) -> Path:
    """Return the file of a profile, whether it exists or not."""
    return Path(profile) if is_file(profile) else PROFILES / f"{profile}.yaml"


def names() -> list[str]:
    """Return the names of all profiles that are shipped."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))
