"""What a run should have been, and a run beside it as the rules read both."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kvbench.analysis.checks.repeated_prompts import may_repeat_prompt
from kvbench.analysis.measured import as_floats, counts, is_true

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from kvbench.analysis.measured import Array, Mask
    from kvbench.result.plan_record import Ceiling, Design, PlannedRun
    from kvbench.result.run_record import RunRecord

    EvidenceOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run should have been, by the plan and the scenario.

    `client_error_s` is the p99 of the driver's calibrated error, or its maximum; None without a calibration.
    `concurrency` is the number of slots, None where it is not known. `ceilings` are by tier.
    """

    requests: int
    output_tokens: int | None
    max_fail: int = 0
    check_answers: bool = False
    client_error_s: float | None = None
    concurrency: int | None = None
    is_open_loop: bool = False
    has_live_history: bool = False
    time_scale: float = 1.0
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)

    @classmethod
    def of_plan(cls, design: Design, planned: PlannedRun, client_error_s: float | None = None) -> Expected:
        """Return what the plan says of one of its runs."""
        return cls(
            requests=planned.requests,
            output_tokens=design.output_tokens,
            max_fail=design.max_fail,
            check_answers=design.check_answers,
            client_error_s=client_error_s,
            concurrency=design.concurrency_of(planned.treatment),
            is_open_loop=design.open_loop_of(planned.treatment) is not None,
            has_live_history=design.turns is not None and design.turns.history == "live",
            time_scale=design.time_scale,
            ceilings=design.ceilings_of(planned.treatment),
        )


@dataclass(frozen=True)
class RunToJudge:
    """A sealed run and what it should have been.

    All that is said of single requests is an array with one value for each measured request. `evidence_of` returns why
    a request has its tier: a long text, which is read only for a request that a reason names.
    """

    record: RunRecord
    measured: pd.DataFrame
    expected: Expected
    evidence_of: EvidenceOf

    @cached_property
    def is_answered(self) -> Mask:
        """Which requests were answered whole; their TTFT may still be missing."""
        return is_true(self.measured["status"] == "ok")

    @cached_property
    def may_repeat(self) -> Mask:
        """Which requests may find what the run itself has put into a cache."""
        return may_repeat_prompt(self.measured)

    @cached_property
    def is_in_conversation(self) -> Mask:
        """Which requests are turns of a conversation."""
        return is_true(self.measured["conversation_id"].fillna("") != "")

    @cached_property
    def ttft_s(self) -> Array:
        """The time to the first token, NaN where there was none."""
        return as_floats(self.measured["ttft_s"])

    @cached_property
    def has_ttft(self) -> Mask:
        """Which requests have a TTFT that something can be a share of."""
        holds: Mask = ~np.isnan(self.ttft_s) & (self.ttft_s != 0)
        return holds

    def floats(self, name: str) -> Array:
        """Return a column, NaN where a value is not known."""
        return as_floats(self.measured[name])

    def is_known(self, name: str) -> Mask:
        """Return where a column has a value."""
        holds: Mask = is_true(self.measured[name].notna())
        return holds

    def is_tier(self, *names: str) -> Mask:
        """Return where one of these tiers served a request."""
        numbers, tiers = self._tiers
        holds: Mask = np.array([tier in names for tier in tiers], dtype=bool)[numbers]
        return holds

    def tiers(self, where: Mask) -> dict[str, int]:
        """Count some requests by the tier that served them, in the order in which tiers appear."""
        numbers, tiers = self._tiers
        return {tiers[int(number)]: count for number, count in counts([pd.Series(numbers[where])]).items()}

    @cached_property
    def _tiers(self) -> tuple[NDArray[np.intp], list[str]]:
        """The tier of each request as a number, and the tiers' names; what nobody proved is `unproven`."""
        numbers, names = pd.factorize(self.measured["tier"].fillna("unproven"))
        return numbers, [str(name) for name in names]


def count(where: Mask) -> int:
    """Return for how many requests something holds."""
    return int(np.count_nonzero(where))


def first(where: Mask) -> int:
    """Return the number of the first request for which something holds."""
    return int(np.argmax(where))
