"""kvbench measures where the KV cache of an LLM service should live, and proves which tier served each request."""

__version__ = "0.1.0"
