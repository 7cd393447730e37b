"""kvbench measures where the KV cache of an LLM service should live, and proves which tier served each request."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvbench.analysis.notebook import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `load` when it is asked for, so that importing kvbench costs nothing else."""
    if name == "load":
        from kvbench.analysis.notebook import load  # noqa: PLC0415

        return load
    raise AttributeError(f"module 'kvbench' has no attribute {name!r}")
