"""The rules, and the one function that applies them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.audit import curves, derived, draws, kv, load, percentiles, stated
from kvbench.audit.outcome import Audit

if TYPE_CHECKING:
    from kvbench.claims_file import Document

RULES = (
    *(derived.check_derived, derived.check_restated, derived.check_identities, derived.check_order),
    *(draws.check_draws, kv.check_bytes_per_token, kv.check_workload_bytes, kv.check_context, kv.check_capacity),
    *(kv.check_weights, kv.check_fits, kv.check_working_set, load.check_little, load.check_closed_loop),
    *(load.check_bandwidth, load.check_hits_need_bytes, load.check_curve_against_throughput),
    *(curves.check_growth, curves.check_load_rate),
    *(percentiles.check_counts, percentiles.check_feasible, percentiles.check_differences),
    *(stated.check_promises, stated.check_features, stated.check_neighbours, stated.check_left_out),
    stated.check_failures,
)


def examine(document: Document) -> Audit:
    """Apply every rule to a document."""
    checks = tuple(check for rule in RULES for check in rule(document))
    return Audit(document.claims.name, document.claims.title, checks)
