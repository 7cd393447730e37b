"""An OpenAI-compatible server whose GPU time is computed from a model and whose KV tier I/O is real.

    bytes of a prompt -> blocks (hash chain) -> engine (which blocks are where, when each token is due) -> api (SSE)
                                                  │
                         gpu (seconds) ───────────┤
                     hierarchy -> tiers -> host_memory (G2: buffers), file_io -> direct_io (G3, G4: files on a path)

The engine never waits and never opens a file: it takes a clock and, for each tier, a `FileIo`. On the wall clock with
threads it is a server; on a virtual clock with modelled files the same code is a simulator.
"""
