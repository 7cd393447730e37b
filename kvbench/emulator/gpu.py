"""How long the GPU would have taken: pure arithmetic, no clock.

Formulas, at full scale and in seconds; everything is divided by the `time` scale at the end:

    prefill of tokens c0..c1   T(c1) - T(c0) with T(n) = a n + b n^2
    decode step                base + per_sequence x sequences in the batch
    onboarding                 fixed + max(bytes / path bandwidth, measured storage time)

Blocks from host memory (G2) have a fixed time and a path bandwidth of their own. Those from files (G3 and G4) have one
fixed time, and the published path bandwidth unless the profile gives G3 one of its own. A prompt from several tiers
pays the longest fixed time once and all transfers, one after the other.

The storage time is no part of this module: it is measured. The path bandwidth already contains the storage of the
published system, which is why the two meet in a `max` and never in a sum.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """The parameters of one published or assumed system, at full scale; what is None for a tier is as for G4."""

    prefill_s_per_token: float
    prefill_s_per_token2: float
    onboard_fixed_s: float
    path_bytes_per_s: float
    decode_base_s: float
    decode_per_sequence_s: float
    host_fixed_s: float | None = None
    host_path_bytes_per_s: float | None = None
    g3_path_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """`GpuFigures` for one model, run `time_scale` times faster than the system they describe."""

    figures: GpuFigures
    kv_bytes_per_token: int
    time_scale: float = 1.0

    def prefill_s(self, start: int, stop: int) -> float:
        """Seconds to compute the tokens `start`..`stop` of a prompt; chunks of one prompt add up exactly."""
        return (self._prefix_s(stop) - self._prefix_s(start)) / self.time_scale

    def _prefix_s(self, tokens: int) -> float:
        return tokens * (self.figures.prefill_s_per_token + self.figures.prefill_s_per_token2 * tokens)

    def decode_s(self, sequences: int) -> float:
        """Seconds that the decode part of a step takes; 0 without a decoding sequence."""
        if not sequences:
            return 0.0
        return (self.figures.decode_base_s + self.figures.decode_per_sequence_s * sequences) / self.time_scale

    def onboard_fixed_s(self, tier: str = "g4") -> float:
        """Seconds that onboarding takes whatever its size."""
        fixed_s = self.figures.host_fixed_s if tier == "g2" else None
        return (self.figures.onboard_fixed_s if fixed_s is None else fixed_s) / self.time_scale

    def path_s(self, tokens: int, tier: str = "g4") -> float:
        """Seconds that the KV of `tokens` tokens needs on the modelled path, which is alone on it."""
        figures = self.figures
        own = {"g2": figures.host_path_bytes_per_s, "g3": figures.g3_path_bytes_per_s}.get(tier)
        bytes_per_s = figures.path_bytes_per_s if own is None else own
        return tokens * self.kv_bytes_per_token / bytes_per_s / self.time_scale
