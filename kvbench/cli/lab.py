"""The commands `kvbench lab up` and `lab down`: make and remove a small cluster of network namespaces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kvbench import units
from kvbench.testbed import lab as cluster

_FOLDER = Path("kvlab")
app = typer.Typer(no_args_is_help=True, add_completion=False)
Prefix = Annotated[str, typer.Option("--prefix", metavar="kvb-NAME-", help="What its namespaces' names begin with.")]


@app.callback()
def lab() -> None:
    """A small cluster of network namespaces on this machine."""


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
    try:
        rate_bytes_per_s = units.parse_rate(rate)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--rate") from None
    if rate_bytes_per_s <= 0:
        raise typer.BadParameter("a link needs a rate above 0", param_hint="--rate")
    options = {"with_sshd": not no_sshd, "shared_storage": shared_storage}
    hosts = cluster.up(folder, rate_bytes_per_s=rate_bytes_per_s, prefix=prefix, **options)
    reached = "without sshd" if no_sshd else "each with its sshd"
    typer.echo(
        f"4 side clients, a GPU client and a storage host, {reached}; link {units.format_rate(rate_bytes_per_s)}"
    )
    if (mount := cluster.shared_mount(folder, "gpu")) is not None:
        typer.echo(f"shared storage, as the GPU client sees it: {mount}")
        typer.echo(f"  in a scenario: tiers: {{g4: {{path: {mount}/kvcache, capacity: 1GB}}}}")
    typer.echo(f"hosts file: {hosts}")
    typer.echo(f"  in a scenario: neighbors: {{hosts: {hosts}, loads: {{fabric: {{iperf3: {{}}}}}}}}")
    typer.echo(f"take it down: kvbench lab down{'' if prefix == cluster.PREFIX else f' --prefix {prefix}'}")


@app.command()
def down(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Its folder; without it the one that the lab itself names.")
    ] = None,
    prefix: Prefix = "kvb-",
) -> None:
    """Unmount, stop and remove all of the lab, also after a kill."""
    given = folder
    if folder is None and prefix == cluster.PREFIX and (_FOLDER / cluster.MARKER).is_file():
        given = _FOLDER  # after a restart of the machine nothing else knows it
    removed = cluster.down(given, prefix=prefix)
    for name in removed or [f"there is no lab named {prefix}"]:
        typer.echo(f"removed {name}" if removed else name)
