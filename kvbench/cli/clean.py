"""The command `kvbench clean`: removes what kvbench made and killed runs left."""

from __future__ import annotations

import contextlib
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import TYPE_CHECKING, Annotated

import typer

from kvbench.drivers import aiperf
from kvbench.result.files import locked
from kvbench.testbed import lab
from kvbench.testbed.hosts import file as hosts_file
from kvbench.testbed.neighbors import agent_host, read_limit
from kvbench.testbed.neighbors.cleanup import sweep_hosts
from kvbench.testbed.servers import tier_directory, vllm

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIDE_CLIENTS = ".kvbench"


def clean(
    path: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Tier directories, or directories of side clients on this machine."),
    ] = None,
    labs: Annotated[bool, typer.Option("--lab", help="Only labs that nobody uses any more.")] = False,  # noqa: FBT002
    hosts: Annotated[
        Path | None, typer.Option("--hosts", metavar="HOSTS.yaml", help="What is left on these side clients.")
    ] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="kvb-NAME-", help="Only this lab.")] = None,
) -> None:
    """Remove what kvbench made and only that: without arguments labs, read limits and memory that killed runs left."""
    lines: list[str] = []
    for root in path or []:
        lines += _clean_directory(root)
    if hosts is not None:
        lines += _clean_hosts(hosts)
    if labs or not (path or hosts):
        lines += _clean_labs(prefix)
    if not (path or hosts or labs):
        lines += _clean_limits()
        lines += _clean_shared_memory()
        lines += _clean_scratch()
    for line in lines or ["nothing was left"]:
        typer.echo(line)


def _clean_directory(root: Path) -> Iterator[str]:
    """Delete what is left of a tier, with its directory if nothing else is in it, and of side clients that are gone."""
    clients = [folder.parent for folder in (*root.glob(_SIDE_CLIENTS), *root.glob(f"*/{_SIDE_CLIENTS}"))]
    if (root / tier_directory.MARKER).exists() or not clients:
        if not tier_directory.is_empty(root):
            tier_directory.check_marker(root)
        with locked(root, "the tier"):
            yield f"{root}: {tier_directory.clear(root)} files deleted"
    for client in clients:
        swept = agent_host.sweep(client)
        yield from _swept(str(client), swept)
        with contextlib.suppress(OSError):  # somebody's files are in it
            if swept["removed"] and client != root:
                client.rmdir()


def _clean_hosts(file: Path) -> Iterator[str]:
    for name, swept in sweep_hosts(hosts_file.load(file)).items():
        yield from _swept(name, swept)


def _swept(where: str, swept: dict[str, list[str]]) -> Iterator[str]:
    for folder in swept["removed"]:
        yield f"{where}: removed {folder}"
    for folder in swept["kept"]:
        yield f"{where}: kept {folder}, which is in use or not ours"


def _clean_labs(prefix: str | None) -> Iterator[str]:
    removed, kept = lab.sweep(None if prefix is None else [prefix])
    for name in removed:
        yield f"removed {name}"
    for name in kept:
        yield f"kept the lab {name}, which a run is using"


def _clean_limits() -> Iterator[str]:
    for name in read_limit.sweep():
        yield f"removed the read limit {name}"


def _clean_scratch() -> Iterator[str]:
    for folder in aiperf.sweep_scratch():
        yield f"removed {folder}, which held the prompts of a killed AIPerf run"


def _clean_shared_memory() -> Iterator[str]:
    for file in vllm.sweep_shared_memory():
        yield f"removed {file}"
