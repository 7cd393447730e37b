"""The kinds of server under `server:` as strict models, and what such a server can do."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from kvbench import emulator_profile, model_shapes, strict_yaml, units
from kvbench.emulator_faults import FAULTS
from kvbench.scenario.models import Duration, Size
from kvbench.strict_yaml import Strict, UnknownName


def _known_fault(name: str) -> str:
    if name not in FAULTS:
        more = "; docs/emulator.md says what each does"
        raise UnknownName(f"{name} is no fault that the emulator can have", name, FAULTS, more)
    return name


FaultName = Annotated[str, AfterValidator(_known_fault)]


class Scale(Strict):
    """The emulator as a scale model: GPU time divided by `time`, KV bytes divided by `bytes`."""

    time: Annotated[float, Field(gt=0)] = 1.0
    bytes: Annotated[int, Field(gt=0)] = 1


class ServerKeys(Strict):
    """The keys of one kind of server, which stand under its name in `server:`, and what such a server can do.

    `name` is what messages call it. `is_started`: kvbench starts and stops it; what somebody else runs cannot be
    changed between runs. `shares_g4`: kvbench can start a second one that fills the first one's g4. `can_be_limited`:
    a bottleneck may be made around it. `returns_token_ids`: it can name the tokens of an answer.
    """

    name: ClassVar[str]
    is_started: ClassVar[bool] = True
    shares_g4: ClassVar[bool] = False
    can_be_limited: ClassVar[bool] = False
    returns_token_ids: ClassVar[bool] = False

    @property
    def gpus(self) -> int:
        """How many GPUs have a G1 of their own; 1 where it is not known."""
        return 1

    @property
    def bytes_per_token(self) -> float | None:
        """The real bytes that the KV of a token takes, None where the scenario does not tell."""
        return None

    @property
    def digest(self) -> str | None:
        """A short hash of a file that decides the results as the scenario does, None where there is none."""
        return None


class EmulatorSpec(ServerKeys):
    """A server of our own: modelled GPU time, real HTTP and real storage I/O."""

    name: ClassVar[str] = "the emulator"
    shares_g4: ClassVar[bool] = True
    can_be_limited: ClassVar[bool] = True

    profile: str = "gpt-oss-120b_rtx-pro-6000"
    scale: Scale = Scale()
    instances: Annotated[int, Field(gt=0)] = 1
    io_threads: Annotated[int, Field(gt=0)] = 8
    write_policy: Literal["through", "back"] = "through"
    admit_after_hits: Annotated[int, Field(gt=0)] = 1
    write_delay: Annotated[float, BeforeValidator(units.parse_duration), Field(ge=0)] = 0.0
    faults: tuple[FaultName, ...] = ()
    fault_every: Annotated[int, Field(gt=0)] = 1

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, value: str) -> str:
        known = emulator_profile.names()
        if not emulator_profile.is_file(value) and value not in known:
            raise UnknownName(f"the emulator has no profile {value}", value, known, ", or a YAML file")
        return value

    @property
    def model(self) -> str:
        """The model that the profile is for: the one in its file; a shipped profile is named `<model>_<gpu>`."""
        return _read_profile(self.profile)[0] if self.has_profile_file else self.profile.split("_", 1)[0]

    @property
    def has_profile_file(self) -> bool:
        """Whether the profile is a YAML file of the user's own."""
        return emulator_profile.is_file(self.profile)

    @property
    def gpus(self) -> int:
        """How many GPUs have a G1 of their own."""
        return self.instances

    @property
    def bytes_per_token(self) -> float | None:
        """The KV bytes of a token of the profile's model, divided by the scale."""
        return model_shapes.shape_of(self.model).kv_bytes_per_token / self.scale.bytes

    @property
    def digest(self) -> str | None:
        """A short hash of the profile's file, None for a shipped profile."""
        return _read_profile(self.profile)[1] if self.has_profile_file else None


@functools.cache
def _read_profile(path: str) -> tuple[str, str]:
    """Return the model of a profile file and a short hash of its content.

    Raises:
        KeyError: it cannot be read, or is no profile; its argument is the sentence for the user.

    """
    try:
        text = strict_yaml.read(Path(path), emulator_profile.KIND)
        tree = strict_yaml.parse(text, path, emulator_profile.KIND)
        model = strict_yaml.check(tree, emulator_profile.ProfileFile).model
    except strict_yaml.Fault as fault:
        raise KeyError(f"not a profile: {fault.message}") from None
    return model, hashlib.sha256(text.encode()).hexdigest()[:16]


class ExternalSpec(ServerKeys):
    """A server that somebody else runs; what is missing here is what cannot be proven."""

    name: ClassVar[str] = "the endpoint"
    is_started: ClassVar[bool] = False

    url: str
    model: str | None = None
    metrics_url: str | None = None
    pid: int | None = None
    tier_path: Path | None = None
    kv_bytes_per_token: Size | None = None
    api_key_env: str | None = None
    ca_file: Path | None = None
    primer_url: str | None = None

    @property
    def bytes_per_token(self) -> float | None:
        """The real bytes that the KV of a token takes, as the scenario gives them."""
        return self.kv_bytes_per_token

    @field_validator("url", "primer_url")
    @classmethod
    def _plain_base_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"^https?://[^@/\s]+(/|$)", value):
            raise ValueError(f"{value!r} is not a URL such as http://host:8000/v1, without user name or password")
        return value


class OffloadingSpec(Strict):
    """A class of the scenario's own that vLLM loads for its offloading: its name, and the Python file it is in."""

    name: str
    file: Path


class VllmSpec(ServerKeys):
    """A vLLM that kvbench starts and stops; what it offloads to follows from `tiers`."""

    name: ClassVar[str] = "vLLM"
    returns_token_ids: ClassVar[bool] = True

    python: Path
    model: str
    served_name: str = "model"
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    kv_dtype: str | None = None
    offloading_spec: OffloadingSpec | None = None
    start_timeout: Duration = 300.0

    @property
    def bytes_per_token(self) -> float | None:
        """The KV bytes of a token, if the model's folder is here and its shape is understood."""
        try:
            return model_shapes.load_shape(Path(self.model), self.kv_dtype).kv_bytes_per_token
        except (OSError, ValueError):  # a name that vLLM itself will look up, or a model whose shape is not understood
            return None


class ServerSpec(Strict):
    """Exactly one target; `scenario.model_with` adds a key for each further kind of server."""

    emulator: EmulatorSpec | None = None
    vllm: VllmSpec | None = None
    external: ExternalSpec | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ServerSpec:
        kinds = list(type(self).model_fields)
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"name exactly one server: {', '.join(kinds[:-1])} or {kinds[-1]}")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_further_kinds(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A result asked the same question before there was a kind of server that it does not use."""
        first = ServerSpec.model_fields
        return {kind: keys for kind, keys in dump(self).items() if kind in first or keys is not None}

    @property
    def kind(self) -> str:
        """The name of the target that was given."""
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @property
    def keys(self) -> ServerKeys:
        """The keys of the target that was given."""
        keys: ServerKeys = getattr(self, self.kind)
        return keys
