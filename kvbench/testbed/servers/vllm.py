"""Starts vLLM as a server under test, with the KV offloading that the tiers ask for.

Set-ups, by treatment and tiers: `none` (cache off: no prefix cache, no connector), `offloading` (a host tier, g2) and
`fs` (vLLM's tiering manager: host tier g2, and its file tier as g3 or g4). How the states are reached: a plain reset
drops g1; `reset_external=true` drops g1 and the host tier; neither deletes files, so kvbench empties the directory,
which it has marked as its own. Which counters prove a tier, by version: docs/vllm.md.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench import model_shapes
from kvbench.errors import EndpointError, ServerError
from kvbench.scenario.server_spec import VllmSpec
from kvbench.testbed.servers import tier_directory
from kvbench.testbed.servers.endpoint import Endpoint
from kvbench.testbed.servers.external import read_version
from kvbench.testbed.servers.kind import ServerKind
from kvbench.testbed.servers.ready import free_port, wait_until_healthy
from kvbench.this_host.process import Started, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.scenario.models import Tiers
    from kvbench.typed_json import JsonObject

_STOP_TIMEOUT_S = 30.0
_ENGINE_ID = "kvbench-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where vLLM puts its host tier; only what this server made is removed


@contextlib.contextmanager
def serve(spec: VllmSpec, tiers: Tiers, log: Path, *, cache_on: bool) -> Iterator[Endpoint]:
    """Run vLLM while the context is open; without `cache_on` it neither reuses nor stores anything.

    Raises:
        ServerError: it died while it was waited for (with its own last words), or was not ready in time.
        StorageError: its tier directory is somebody else's.

    """
    tier = tiers.directory
    if cache_on and tier is not None:
        tier_directory.claim(tier.path)
    port = free_port()
    engine_id = f"{_ENGINE_ID}{os.getpid()}-{port}"
    before = set(_SHARED_MEMORY.glob("vllm_offload_*"))
    try:
        command = _command(spec, tiers, port, engine_id if cache_on else None)
        with running(command, log, stop_s=_STOP_TIMEOUT_S, env=_environment(spec)) as process:
            root = f"http://127.0.0.1:{port}"
            wait_until_healthy(Started("vLLM", process, log), root, spec.start_timeout, "server.vllm.start_timeout")
            yield Endpoint(
                url=f"{root}/v1",
                model=spec.served_name,
                metrics_url=f"{root}/metrics",
                pid=process.pid,
                tier_paths={name: tier.path for name, tier in tiers.directories.items()} if cache_on else {},
                info=_server_info(spec, root),
                started=Started("vLLM", process, log),
            )
    finally:
        for left in set(_SHARED_MEMORY.glob("vllm_offload_*")) - before:
            if not _is_mapped(left):  # another vLLM may have started meanwhile: what it uses is not ours
                left.unlink(missing_ok=True)  # as large as the host tier, and a server that was stopped leaves it


def sweep_shared_memory() -> list[Path]:
    """Remove the host tiers of vLLMs whose kvbench was killed; return their files. Each is as large as its tier."""
    left = [file for file in sorted(_SHARED_MEMORY.glob(f"vllm_offload_{_ENGINE_ID}*")) if _is_orphan(file)]
    for file in left:
        file.unlink(missing_ok=True)
    return left


def _is_orphan(file: Path) -> bool:
    """Tell whether the kvbench that a host tier is named after has gone."""
    pid = file.name.removeprefix(f"vllm_offload_{_ENGINE_ID}").partition("-")[0]
    return pid.isdigit() and not Path(f"/proc/{pid}").exists()


def _is_mapped(file: Path) -> bool:
    """Tell whether any process that we can see has a file mapped."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if str(file) in maps.read_text(errors="replace"):
                return True
    return False


def _server_info(spec: VllmSpec, root: str) -> JsonObject:
    """What is known of this server: its version, and the KV bytes a token takes by the model's own configuration."""
    told: JsonObject = {}
    with contextlib.suppress(EndpointError):
        told |= read_version(root)
    folder = Path(spec.model)
    if (folder / "config.json").exists():
        told |= {"kv_bytes_per_token": model_shapes.load_shape(folder, spec.kv_dtype).kv_bytes_per_token}
    return told


def _command(spec: VllmSpec, tiers: Tiers, port: int, engine_id: str | None) -> list[str]:
    """Return the command line; without an `engine_id`, which names the host tier's file, nothing is cached."""
    command = [str(spec.python), "-m", "vllm.entrypoints.openai.api_server", "--model", spec.model]
    command += ["--served-model-name", spec.served_name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enable-prompt-tokens-details"]
    if engine_id is None:
        command += ["--no-enable-prefix-caching"]
    elif connector := connector_config(spec, tiers):
        command += ["--kv-transfer-config", json.dumps({**connector, "engine_id": engine_id})]
    return [*command, *spec.args]


def connector_config(spec: VllmSpec, tiers: Tiers) -> JsonObject | None:
    """Return vLLM's `--kv-transfer-config` for these tiers, None where nothing is to be offloaded."""
    tier = tiers.directory
    if tier is None and not tiers.g2:
        return None
    extra: JsonObject = {"cpu_bytes_to_use": tiers.g2}
    if tier is not None:
        extra |= {"spec_name": "TieringOffloadingSpec"}
        extra |= {"secondary_tiers": [{"type": "fs", "root_dir": str(tier.path.absolute())}]}
    if spec.offloading_spec is not None:
        extra |= {"spec_name": spec.offloading_spec.name, "spec_module_path": spec.offloading_spec.file.stem}
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def _environment(spec: VllmSpec) -> dict[str, str]:
    """Development mode opens the reset route; a spec of the scenario's own is found through PYTHONPATH."""
    env = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if Path(spec.model).exists():
        env["HF_HUB_OFFLINE"] = "1"
    if spec.offloading_spec is not None:
        given = [path for path in [os.environ.get("PYTHONPATH")] if path]
        env["PYTHONPATH"] = os.pathsep.join([str(spec.offloading_spec.file.parent.absolute()), *given])
    return env | dict(spec.env)


def check(spec: VllmSpec) -> None:
    """Refuse what vLLM could not be started with.

    Raises:
        ServerError: there is no such Python, or no such file of an offloading spec.

    """
    if not os.access(spec.python, os.X_OK):
        raise ServerError(
            f"there is no Python at {spec.python} to run vLLM with",
            "Make one (docs/vllm.md for a GPU, `make real-cpu` for CPUs), or set server.vllm.python to one with vLLM.",
        )
    if spec.offloading_spec is not None and not spec.offloading_spec.file.is_file():
        raise ServerError(f"there is no file {spec.offloading_spec.file}", "Set server.vllm.offloading_spec.file.")


KIND = ServerKind("vllm", VllmSpec, serve=serve, check=check)
