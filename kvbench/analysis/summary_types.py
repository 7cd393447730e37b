"""The summary of a result as typed values: every figure with its n, its interval, and the verdict on its runs.

`summary.summarise` makes a `Summary`, `summary.json` and `kvbench show --json` hold it as JSON, and all tables, plots
and audits read it. Times are seconds, rates are per second, sizes are bytes, as measured; figures of a scale model at
full scale are called `full_scale_*`. A figure that is not known is None, never 0.
"""

from dataclasses import dataclass, field
from typing import Literal

from kvbench.analysis.neighbor_types import NeighborImpact
from kvbench.result.calibration_record import CalibrationExcerpt
from kvbench.result.plan_record import OpenLoop, Scale, Slo, Turns
from kvbench.result.run_record import DriverRecord, Ledger, Step
from kvbench.result.verdict import Reason, VerdictWord
from kvbench.typed_json import JsonObject

# -- figures -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a treatment: its value and interval, from how much, and what n does not support."""

    n: int  # Requests, or rounds for figures of a run
    units: int  # How many of these are independent: prompts or conversations, each counted once a run
    rounds: int  # Rounds that they are from
    value: float | None  # None where n does not support a value
    low: float | None  # Lower end of the 95 % interval
    high: float | None  # Upper end of the 95 % interval; alone, where `bound` is `upper`
    bound: str  # `two-sided`, `upper` or `none`
    needed_n: int | None  # The n from which on there is a two-sided interval
    refusal: str | None  # Why there is no value, else why there is no interval


@dataclass(frozen=True, slots=True)
class JudgedRatio:
    """How much faster one treatment is than another, by rounds, and what may be said of it; above 1 is faster."""

    ratio: float | None  # Geometric mean of the rounds' ratios
    low: float | None  # Lower end of the 95 % interval
    high: float | None  # Upper end of the 95 % interval
    rounds: int  # Rounds that both treatments have
    method: str  # `t`, `bootstrap` or `none`
    least: float | None  # The smallest ratio of a round
    most: float | None  # The largest ratio of a round
    sd_log: float | None  # Standard deviation of the rounds' log ratios
    p_value: float | None  # Of the paired t test that there is no difference
    p_holm: float | None  # The same with Holm's correction over what was judged together
    noise_floor: float | None  # The ratio that equal treatments (A/A) differ by; None without such a pair
    word: str  # `faster`, `slower`, `no difference shown`, `equivalent within x %` or `too few rounds`
    reason: str  # Why this word
    refusal: str | None  # Why there is no interval
    rounds_needed: int | None  # Rounds that would show a difference of 5 % with a power of 80 %
    detectable: float | None  # The relative difference that these rounds show with a power of 80 %


@dataclass(frozen=True, slots=True)
class RankComparison:
    """Two arms compared by the ranks of their requests, which needs no rounds; drift between rounds is in it."""

    n_a: int  # Values of the first arm
    n_b: int  # Values of the second arm
    superiority: float  # The probability that a value of the first arm is below one of the second, ties counted half
    low: float  # Lower end of its 95 % interval
    high: float  # Upper end of its 95 % interval
    p_value: float  # Of the rank test that both are alike
    sentence: str  # What that says, in words
    is_separate: bool  # Whether all values of one arm lie beyond all of the other


# -- runs and treatments -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One sealed run: what it did, how it reached its cache state, and the verdict on it."""

    run_id: str  # Its name within the result
    treatment: str  # The treatment that it executed
    repeat: int  # Its round
    attempt: int  # Its number of tries, this one included
    started: str | None  # ISO moment in UTC; None where another tool does not tell
    load_s: float | None  # From the first send to the last token
    sent_one_by_one: bool  # Whether each measured request stood alone between two scrapes
    requests: int  # Measured requests
    ok: int  # Those of them that were answered
    headline: float | None  # The run's figure of the metric that answers the question; None for an invalid run
    failures: dict[str, int]  # Failed requests by cause
    tiers: dict[str, int]  # Answered requests by the tier that served them
    cache_state: str  # The state that the run was brought into
    cache_steps: tuple[Step, ...]  # The steps to that state, each with its outcome
    ledger: Ledger  # The sums of answers, counters and bytes
    client: DriverRecord  # How well the client itself did
    verdict: VerdictWord  # Whether the run is to be believed
    reasons: tuple[Reason, ...]  # Why not, each with a remedy


@dataclass(frozen=True, slots=True)
class EmptyStart:
    """What one round's list permits an empty start to gain: each distinct prompt must be computed once."""

    repeat: int  # The round
    requests: int  # Requests sent, answered or not
    prompts: int  # Distinct prompts among them
    most_gain: float  # The largest speed-up over recomputing that arithmetic allows


@dataclass(frozen=True, slots=True)
class TouchFigures:
    """The requests that touch their prompt for the first time in a run, or those that touch it again."""

    n: int  # Answered requests whose tier is known
    median_s: float | None  # Median TTFT
    hit_rate: float | None  # Mean cached share of a prompt


@dataclass(frozen=True, slots=True)
class HitRateChange:
    """The request of a run at which its hit rate became another one."""

    run_id: str  # The run
    requests: int  # Requests that were looked at, in the order of their sends
    index: int  # The first request after the change, from 0
    before: float  # Mean hit share before it
    after: float  # Mean hit share from it on
    p_value: float | None = None  # That so large a change comes by chance


@dataclass(frozen=True, slots=True)
class FirstTouch:
    """An empty start as populations, which never stand in one figure, and where its hit rate changed."""

    first_touch: TouchFigures  # The first request of each prompt in a run
    repeat_touch: TouchFigures  # Later requests of a prompt, which the cache may serve
    changes: tuple[HitRateChange, ...]  # One for each run that has a change
    # Requests of one prompt that were out at once, which are neither
    overlapping: TouchFigures = TouchFigures(0, None, None)


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One run in slices of equal length, each value told at the end of its slice."""

    run_id: str  # The run
    repeat: int  # Its round
    slice_s: float  # Length of a slice
    answered: tuple[int, ...]  # Answers whose last token came in a slice
    answered_per_s: tuple[float, ...]  # The same over the slice's length
    # Cached over prompt tokens of all answers up to then; None where the run has no hit rate
    hit_rate: tuple[float | None, ...] | None
    distinct_prompts: tuple[int, ...]  # Distinct prompts sent up to then, answered or not


@dataclass(frozen=True, slots=True)
class ScheduleFigure:
    """One metric of an open loop, counted from the send and from the moment for which requests were scheduled."""

    name: str  # The metric's name
    label: str  # The metric's label in tables
    unit: str  # The metric's unit
    from_send: Figure  # Without the wait for a free connection
    from_schedule: Figure  # With it


@dataclass(frozen=True, slots=True)
class OpenLoopSummary:
    """What a treatment's schedule asked for, and whether the server kept up with it."""

    request_rate: float  # Requests a second that were asked for
    arrival: str  # `constant` or `poisson`
    offered_per_s: float | None  # The rate at which requests were due; mean over rounds
    achieved_per_s: Figure  # The rate at which they were answered
    waited_mean_s: float | None  # Mean wait between the schedule and the send
    first_quarter_s: float | None  # Median latency from the schedule in the first quarter of the list
    last_quarter_s: float | None  # The same in the last quarter
    growth: float | None  # Seconds of latency for each second of the schedule
    grew: bool  # Whether a queue kept growing, so that figures are those of a list of this length
    figures: tuple[ScheduleFigure, ...]  # Metrics from the send and from the schedule


@dataclass(frozen=True, slots=True)
class TreatmentSummary:
    """One treatment over all its prompt lengths and rounds."""

    cache_state: str | None  # The state of its runs; None before the first
    runs: int  # Sealed runs
    runs_used: int  # Those of them that are not invalid
    verdict: VerdictWord  # Whether its figures are to be believed
    reasons: tuple[Reason, ...]  # What its runs say together; each run has reasons of its own
    requests: int  # Answered requests of runs that are used
    sent: int  # Measured requests of all its runs
    failures: dict[str, int]  # Failed requests of all its runs by cause
    tiers: dict[str, int]  # Answered requests by the tier that served them
    cached_tokens: int | None  # Sum over runs that are used; None where one does not tell
    expected_cached_tokens: int | None  # What its cache state lets expect
    hit_efficiency: float | None  # Cached over expected cached tokens
    read_bytes: float | None  # Bytes read, by the server's tier counters; None where a run has no such counter
    process_read_bytes: int | None  # Bytes read, by the kernel's count of the server's processes
    expected_read_bytes: int | None  # Bytes of the prompts' files in the tier
    answers_match: float | None  # Share of answers that equal the recomputed ones; None where that was not checked
    slo_attainment: float | None  # Share of requests that met every SLO
    upper_bounds: int  # Requests whose TTFT is only an upper bound
    overrun_share: float | None  # By how much the emulator's own work exceeded what it models, as a share of TTFT; mean
    # Median rate at which the tier was read, by the server's clock; None where requests overlapped
    storage_bytes_per_s: float | None
    # The largest speed-up that an empty start can have over recomputing; geometric mean over rounds
    most_gain: float | None
    empty_starts: tuple[EmptyStart, ...]  # The same by round, with its counts
    metrics: dict[str, Figure]  # Every metric by its name
    # By metric, how it compares with the treatment's baseline; None without a shared round
    comparisons: dict[str, JudgedRatio | None] = field(default_factory=dict)
    time_series: tuple[TimeSeries, ...] = ()  # Runs over time, of those whose requests were out beside one another
    first_touch: FirstTouch | None = None  # First and repeat touches, of an empty start
    open_loop: OpenLoopSummary | None = None  # Its schedule, of an open loop


# -- by prompt length --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LengthCell:
    """TTFT of one prompt length under one treatment, and what stands beside it."""

    n: int  # Answered requests that give figures
    median_s: float | None  # Median TTFT
    min_s: float | None  # Smallest TTFT
    max_s: float | None  # Largest TTFT
    ttft: dict[str, Figure]  # `p50`, `p95` and `p99` with their intervals
    influence: str | None  # A sentence where a few requests decide the mean
    full_scale_median_s: float | None  # The median times the time scale
    tiers: dict[str, int]  # Answered requests by the tier that served them
    unproven: int  # Answered requests that give no figure, because their tier is not proven
    load_s: float | None  # Median time to load from the tier, by the server's clock
    # How it compares with the treatment's baseline; None for a baseline, or without a shared round
    comparison: JudgedRatio | None = None
    rank: RankComparison | None = None  # The same by rank
    published_s: float | None = None  # What was published for it, at full scale
    published_kind: str | None = None  # `printed`, or `derived` from the printed ends of a curve
    published_ratio: float | None = None  # Measured over published, both at the same scale
    recompute_over_load: float | None = None  # The baseline's median over the time to load


@dataclass(frozen=True, slots=True)
class LengthRow:
    """One prompt length under each treatment; `isl` is None for all lengths together, in an import."""

    isl: int | None  # Prompt tokens
    turn: int | None  # The turn of a conversation, from 0, whose prompts have this length
    cells: dict[str, LengthCell]  # By treatment
    published_speed_up: float | None  # What was printed for this length


# -- beside published figures ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """One metric of a treatment beside the figure that was published for it."""

    n: int  # Requests or rounds of our figure
    value: float | None  # Our figure as measured
    refusal: str | None  # Why there is none
    full_scale: float | None  # Our figure at full scale
    ratio: float | None  # Our ratio to the baseline, above 1 is better
    low: float | None  # Lower end of its interval
    high: float | None  # Upper end of its interval
    word: str | None  # What may be said of it
    published: float | None  # The published figure
    published_text: str | None  # The same as it was printed
    published_ratio: float | None  # The ratio of the published figures, above 1 is better


@dataclass(frozen=True, slots=True)
class PublishedLine:
    """One row of the comparison: a treatment, a published row, or both where they belong together."""

    treatment: str | None  # Ours; None for a published row that was not run
    published_as: str | None  # The document's name for it; None for a treatment that was not published
    most_gain: float | None  # The largest speed-up that an empty start can have
    cells: dict[str, PublishedCell]  # By metric


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A document's rows beside our treatments."""

    title: str  # The document
    section: str  # Its section
    ratios: Literal["times", "change"]  # How the document's rows are compared
    metrics: tuple[str, ...]  # The metrics that any row prints, in their order
    remarks: tuple[str, ...]  # What a reader of the document must know
    rows: tuple[PublishedLine, ...]  # Treatments first, then what was published and not run


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """A document whose curves stand beside the prompt lengths."""

    title: str  # The document
    section: str  # Its section


# -- the whole ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """A result as its tables, its report and `summary.json` show it."""

    scenario: str  # The scenario's name
    question: str  # The question that it asks
    result: str  # The name of the result folder
    server: str  # The kind of server, such as `emulator` or `vllm`
    model: str | None  # The model that answered
    driver: str  # The driver that sent the measured requests
    concurrency: int | None  # Requests out at once, where no treatment has its own
    concurrencies: dict[str, int | None]  # The same by treatment
    open_loops: dict[str, OpenLoop]  # Rate and arrival of the treatments that are open loops
    turns: Turns | None  # Conversations, where prompts begin some
    output_tokens: int | None  # Tokens of an answer
    repeats: int  # Rounds planned
    baseline: str | None  # What treatments are compared with, where none has its own
    baselines: dict[str, str | None]  # The same by treatment; None for one that is a baseline itself
    slo: Slo  # Limits that requests are held against
    scale: Scale | None  # The scale model; None at full scale
    published: PublishedSource | None  # A document whose curves stand beside the prompt lengths
    published_table: PublishedTable | None  # A document's rows beside the treatments
    complete: bool  # Whether every planned run is sealed
    answers_compared: bool  # Whether all answers were compared with recomputed ones, where the scenario asks for it
    facts_changed: tuple[str, ...]  # Facts of the host that changed between sessions
    calibration: CalibrationExcerpt | None  # How wrong the client is on this host; None where none is attached
    imported: JsonObject | None  # Where an import comes from and what it lacks; None for a result of our own
    runs_planned: int  # Runs of the plan
    verdict: VerdictWord  # The worst verdict of a treatment; invalid while runs are missing
    runs: tuple[RunSummary, ...]  # Sealed runs in the plan's order
    treatments: dict[str, TreatmentSummary]  # By name, in the scenario's order
    lengths: tuple[LengthRow, ...]  # TTFT by prompt length
    same_pairs: tuple[tuple[str, str], ...]  # Treatments of one definition (A/A pairs)
    same_pair_rounds: int | None  # Rounds that the noise floor is from
    headline: str  # The metric that answers the question
    neighbors: NeighborImpact | None  # What neighbours cost; None where the scenario has none
