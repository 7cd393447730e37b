"""The list of all audit rules, and the function that applies them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.audit import completeness, curves, derived, distinct_prompts, kv_capacity, percentiles, queueing
from kvbench.audit.findings import Audit

if TYPE_CHECKING:
    from kvbench.publications.claims_file import Document

RULES = (
    *(derived.check_derived, derived.check_restated, derived.check_identities, derived.check_order),
    *(
        distinct_prompts.check_draws,
        kv_capacity.check_bytes_per_token,
        kv_capacity.check_workload_bytes,
        kv_capacity.check_context,
        kv_capacity.check_capacity,
    ),
    *(
        kv_capacity.check_weights,
        kv_capacity.check_fits,
        kv_capacity.check_working_set,
        queueing.check_little,
        queueing.check_closed_loop,
    ),
    *(queueing.check_bandwidth, queueing.check_hits_need_bytes, queueing.check_curve_against_throughput),
    *(curves.check_growth, curves.check_load_rate),
    *(percentiles.check_counts, percentiles.check_feasible, percentiles.check_differences),
    *(
        completeness.check_promises,
        completeness.check_features,
        completeness.check_neighbours,
        completeness.check_left_out,
    ),
    completeness.check_failures,
)


def examine(document: Document) -> Audit:
    """Apply every rule to a document."""
    checks = tuple(check for rule in RULES for check in rule(document))
    return Audit(document.claims.name, document.claims.title, checks)
