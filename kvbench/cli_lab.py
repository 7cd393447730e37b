"""The commands `kvbench lab up`, `lab down` and `clean`: a small cluster is made, and leftovers are removed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = Path("kvlab")
_SIDE_CLIENTS = ".kvbench"

app = typer.Typer(help="A small cluster of network namespaces on this machine.", no_args_is_help=True)

Prefix = Annotated[str, typer.Option("--prefix", metavar="kvb-NAME-", help="What its namespaces' names begin with.")]


@app.command()
def up(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="A new folder, on a disk.")] = _FOLDER,
    rate: Annotated[str, typer.Option(metavar="RATE", help="Of the storage host's link.")] = "125MB/s",
    no_sshd: Annotated[bool, typer.Option("--no-sshd", help="Reach the side clients without sshd.")] = False,  # noqa: FBT002
    shared_storage: Annotated[  # noqa: FBT002
        bool, typer.Option("--shared-storage", help="A GlusterFS volume, mounted for every client.")
    ] = False,
    prefix: Prefix = "kvb-",
) -> None:
    """Make four side clients, a GPU client and a storage host with a capped link; print the hosts file. Needs root."""
    from kvbench import lab, units  # noqa: PLC0415

    try:
        rate_bytes_per_s = units.parse_rate(rate)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--rate") from None
    if rate_bytes_per_s <= 0:
        raise typer.BadParameter("a link needs a rate above 0", param_hint="--rate")
    options = {"with_sshd": not no_sshd, "shared_storage": shared_storage}
    hosts = lab.up(folder, rate_bytes_per_s=rate_bytes_per_s, prefix=prefix, **options)
    reached = "without sshd" if no_sshd else "each with its sshd"
    typer.echo(
        f"4 side clients, a GPU client and a storage host, {reached}; link {units.format_rate(rate_bytes_per_s)}"
    )
    if (mount := lab.shared_mount(folder, "gpu")) is not None:
        typer.echo(f"shared storage, as the GPU client sees it: {mount}")
        typer.echo(f"  in a scenario: tiers: {{g4: {{path: {mount}/kvcache, capacity: 1GB}}}}")
    typer.echo(f"hosts file: {hosts}")
    typer.echo(f"  in a scenario: neighbors: {{hosts: {hosts}, loads: {{fabric: {{iperf3: {{}}}}}}}}")
    typer.echo(f"take it down: kvbench lab down{'' if prefix == lab.PREFIX else f' --prefix {prefix}'}")


@app.command()
def down(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Its folder; without it the one that the lab itself names.")
    ] = None,
    prefix: Prefix = "kvb-",
) -> None:
    """Unmount, stop and remove all of the lab, also after a kill."""
    from kvbench import lab  # noqa: PLC0415

    given = folder
    if folder is None and prefix == lab.PREFIX and (_FOLDER / lab.MARKER).is_file():
        given = _FOLDER  # after a restart of the machine nothing else knows it
    removed = lab.down(given, prefix=prefix)
    for name in removed or [f"there is no lab named {prefix}"]:
        typer.echo(f"removed {name}" if removed else name)


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
    from kvbench import store  # noqa: PLC0415
    from kvbench.neighbors import surroundings  # noqa: PLC0415
    from kvbench.servers import tier_directory  # noqa: PLC0415

    clients = [folder.parent for folder in (*root.glob(_SIDE_CLIENTS), *root.glob(f"*/{_SIDE_CLIENTS}"))]
    if (root / tier_directory.MARKER).exists() or not clients:
        if not tier_directory.is_empty(root):
            tier_directory.check_marker(root)
        with store.locked(root, "the tier"):
            yield f"{root}: {tier_directory.clear(root)} files deleted"
    for client in clients:
        swept = surroundings.sweep(client)
        yield from _swept(str(client), swept)
        with contextlib.suppress(OSError):  # somebody's files are in it
            if swept["removed"] and client != root:
                client.rmdir()


def _clean_hosts(file: Path) -> Iterator[str]:
    from kvbench import hosts  # noqa: PLC0415
    from kvbench.neighbors.sweep import sweep_hosts  # noqa: PLC0415

    for name, swept in sweep_hosts(hosts.load(file)).items():
        yield from _swept(name, swept)


def _swept(where: str, swept: dict[str, list[str]]) -> Iterator[str]:
    for folder in swept["removed"]:
        yield f"{where}: removed {folder}"
    for folder in swept["kept"]:
        yield f"{where}: kept {folder}, which is in use or not ours"


def _clean_labs(prefix: str | None) -> Iterator[str]:
    from kvbench import lab  # noqa: PLC0415

    removed, kept = lab.sweep(None if prefix is None else [prefix])
    for name in removed:
        yield f"removed {name}"
    for name in kept:
        yield f"kept the lab {name}, which a run is using"


def _clean_limits() -> Iterator[str]:
    from kvbench.neighbors import bottleneck  # noqa: PLC0415

    for name in bottleneck.sweep():
        yield f"removed the read limit {name}"


def _clean_scratch() -> Iterator[str]:
    from kvbench.load import aiperf  # noqa: PLC0415

    for folder in aiperf.sweep_scratch():
        yield f"removed {folder}, which held the prompts of a killed AIPerf run"


def _clean_shared_memory() -> Iterator[str]:
    from kvbench.servers import vllm  # noqa: PLC0415

    for file in vllm.sweep_shared_memory():
        yield f"removed {file}"
