"""The command `kvbench serve`: starts the emulator."""

from __future__ import annotations

import sys

import typer  # noqa: TC002 - typer reads annotations

from kvbench.emulator import api, settings

_PORT = 8000  # where scenarios/ttft_sweep_endpoint.yaml looks


def serve(context: typer.Context) -> None:
    """Start the emulator: an OpenAI-compatible server with modelled GPU time and real storage I/O."""
    sys.exit(api.serve(settings.parse_arguments(context.args, program="kvbench serve", port=_PORT)))
