"""Ways in which a server lies or breaks, on request, so that a harness can show that it notices.

A fault of a request applies to each generation request, or to every N-th; the others hold for the whole server.
"""

from __future__ import annotations

from dataclasses import dataclass

FAULTS = {
    "reset_keeps_blocks": "a reset answers success and drops nothing: not G1, not the index of G4",
    "counters_frozen": "/metrics goes on showing what it showed at the start",
    "page_cache": "tier files are read through the page cache, so bytes come from memory after the first time",
    "cached_tokens_missing": "usage carries no prompt_tokens_details",
    "cached_tokens_zero": "usage says that 0 tokens were cached, whatever was",
    "no_streaming": "a request for a stream is answered by one plain JSON body",
    "no_usage": "usage is sent to nobody",
    "error_chunk": "the stream, HTTP 200, carries an error after its first token",
    "cut_stream": "the connection is closed after the first token",
    "no_done": "the stream ends without data: [DONE]",
    "http_500": "the request is refused with 500",
    "http_429": "the request is refused with 429",
    "hang": "headers are sent, and then nothing",
    "first_chunk_empty": "a chunk with no text is sent long before the first token",
}


@dataclass(slots=True)
class Faults:
    """The faults asked for; `every` = N spares all generation requests but each N-th."""

    names: frozenset[str] = frozenset()
    every: int = 1
    _requests: int = 0

    def __contains__(self, name: str) -> bool:
        """Tell whether the whole server has this fault."""
        return name in self.names

    def of_next_request(self) -> frozenset[str]:
        """Count a generation request and return the faults that it meets."""
        self._requests += 1
        return self.names if self._requests % self.every == 0 else frozenset()
