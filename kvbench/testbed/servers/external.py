"""A server that somebody else runs: it is not started or stopped, and none of its files are deleted.

It is asked to forget through its reset route where a scenario wants a cache state: that drops its memory tiers.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING

from kvbench.errors import EndpointError
from kvbench.scenario.server_spec import ExternalSpec
from kvbench.testbed.servers.endpoint import Endpoint, call, plain_url, root_of
from kvbench.testbed.servers.kind import ServerKind
from kvbench.this_host.process import process_read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.typed_json import JsonObject


def attach(spec: ExternalSpec) -> Endpoint:
    """Check that the server answers, takes the key and has the model; return its control plane.

    Raises:
        EndpointError: it does not; the message says which.

    """
    _check_host(spec)
    api_key = _api_key(spec.api_key_env)
    url = spec.url.rstrip("/")
    url = url if url.endswith("/v1") else f"{url}/v1"
    return Endpoint(
        url=url,
        model=_model(url, spec, api_key),
        metrics_url=spec.metrics_url or f"{root_of(url)}/metrics",
        api_key=api_key,
        ca_file=spec.ca_file,
        pid=spec.pid,
        tier_paths={} if spec.tier_path is None else {"g4": spec.tier_path},
        info=read_info(url, api_key, spec.ca_file) or read_version(url, api_key, spec.ca_file),
    )


def attach_primer(spec: ExternalSpec, model: str) -> Endpoint:
    """Check the server that shares a tier with the measured one and primes it; return its control plane.

    Raises:
        EndpointError: it does not answer, does not take the key, or has not the same model.

    """
    only_there = {"url": spec.primer_url, "model": model, "metrics_url": None, "pid": None, "tier_path": None}
    return attach(spec.model_copy(update=only_there))


def _check_host(spec: ExternalSpec) -> None:
    """Refuse a process or a directory that is not on this host: a proof that rests on it could only fail."""
    if spec.pid is not None and process_read_bytes(spec.pid) is None:
        raise EndpointError(
            f"server.external.pid: what process {spec.pid} reads cannot be seen from here",
            "Give the server's pid on this host, as a user who may read /proc/PID/io, or leave pid out.",
        )
    if spec.tier_path is not None and not spec.tier_path.is_dir():
        raise EndpointError(
            f"server.external.tier_path: there is no directory {spec.tier_path} on this host",
            "Give the tier's directory as it is mounted here, or leave tier_path out.",
        )


def read_info(url: str, api_key: str | None, ca_file: Path | None = None) -> JsonObject:
    """Return what kvbench's emulator says about itself; empty for any other server."""
    answer = call("GET", f"{root_of(url)}/kvbench/info", api_key, ca_file=ca_file)
    try:
        info = answer.json() if answer.status_code == HTTPStatus.OK else {}
    except ValueError:
        info = {}
    return info if isinstance(info, dict) else {}


def read_version(url: str, api_key: str | None = None, ca_file: Path | None = None) -> JsonObject:
    """Return {"version": ...} as vLLM tells it, a build's git state in it; empty for a server that does not."""
    answer = call("GET", f"{root_of(url)}/version", api_key, ca_file=ca_file)
    try:
        told = answer.json()["version"] if answer.status_code == HTTPStatus.OK else None
    except (ValueError, KeyError, TypeError):
        told = None
    return {"version": told} if isinstance(told, str) else {}


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise EndpointError(f"the environment variable {name} is not set", f"Put the API key into {name}.")
    return key


def _model(url: str, spec: ExternalSpec, api_key: str | None) -> str:
    wanted = spec.model
    answer = call("GET", f"{url}/models", api_key, ca_file=spec.ca_file)
    try:
        names = [str(entry["id"]) for entry in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        raise EndpointError(
            f"{plain_url(url)}/models answered {answer.status_code} and no list of models",
            "Give the base URL of an OpenAI-compatible server, such as http://host:8000/v1.",
        ) from None
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        asked = f"has no model {wanted}" if wanted else "serves several models"
        raise EndpointError(
            f"{plain_url(url)} {asked}; it has {', '.join(names) or 'none'}",
            "Set server.external.model to one of them.",
        )
    return wanted


KIND = ServerKind("external", ExternalSpec, attach=attach, attach_primer=attach_primer)
