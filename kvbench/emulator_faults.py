"""The names of the faults that the emulator can have; scenarios refuse other names.

What each does is said here and done in `emulator/`.
"""

from __future__ import annotations

LATE_S = 20.0
LATE_HITS = 9
FAULTS = {
    "reset_keeps_blocks": "a reset answers success and drops nothing: not G1, not G2, not the index of G3 and G4",
    "reset_keeps_offload": "a reset with reset_external=true answers success and drops G1 alone",
    "counters_frozen": "/metrics goes on showing what it showed at the start",
    "counters_other_worker": "/metrics shows the counters of another worker, which go up by themselves",
    "lookups_as_hits": "the hit counters show the tokens that were looked up, found or not",
    "cached_tokens_high": "usage says that all whole blocks of the prompt were cached",
    "cached_tokens_low": "usage says that half of what was cached was cached",
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
    "role_only_first_chunk": "a chat stream opens with a role and no content, long before the first token",
    "truncated_prompt": "the second half of the prompt is dropped, and usage counts what is left",
    "truncated_prompt_hidden": "the second half of the prompt is dropped, and usage counts the whole prompt",
    "other_model": "another model answers: its name is in the body, and its words are others",
    "admit_after_9": f"blocks enter the tiers below G1 only with the {LATE_HITS}th request that asks for them",
    "late_write_back": f"tier writes begin {LATE_S:.0f} s late, and nothing shows that they are pending",
    "corrupt_file": "bytes of tier files are flipped behind the checksum, which a read finds",
    "corrupt_file_served": "bytes of tier files are flipped, no read looks at the checksum, and answers turn wrong",
    "tier_full": "tier files are not written: no space left on the device",
}
