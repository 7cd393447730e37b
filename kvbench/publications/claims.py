"""The models of a claims file: printed figures, their conditions, and which figure follows from which.

A claims document is YAML (docs/claims.md says how to write one; `claims_file` reads it). Every figure keeps its printed
digits, its unit and the section it stands in; nothing is computed when it is written down.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from kvbench import model_shapes, units
from kvbench.publications import printed_figure
from kvbench.publications.printed_figure import Dimension, Printed, Words
from kvbench.strict_yaml import Contradiction, Strict, nearest

# Which figures a row of `scenario_rows` may hold, by the name of kvbench's own metric.
SCENARIO_ROW_METRICS = (
    *("requests_per_s", "total_time", "output_tokens_per_s", "user_rate_mean"),
    *("ttft_mean", "ttft_p50", "ttft_p95", "ttft_p99", "latency_p50", "failed"),
)
Statistic = Literal["mean", "p50", "p90", "p95", "p99", "min", "max"]
Form = Literal["change", "increase", "decrease", "ratio", "difference", "sum", "product"]
What = Literal[
    "ttft", "latency", "tpot", "chunk_gap", "round_trip", "duration",
    "request_rate", "output_rate", "input_rate", "total_rate",
    "hit_rate", "failure_share", "change", "share",
    "in_flight", "count", "parameters",
    "workload_tokens", "kv_tokens", "context_limit", "input_tokens", "output_tokens", "hit_tokens", "queried_tokens",
    "workload_bytes", "kv_capacity", "kv_bytes_per_token", "weights", "memory", "read_bytes", "size",
    "gpu_memory_bandwidth", "link", "storage_read", "neighbour_rate",
]  # fmt: skip
_TIMES = ("ttft", "latency", "tpot", "chunk_gap", "round_trip", "duration")
_RATES = ("output_rate", "input_rate", "total_rate")
_RATIOS = ("hit_rate", "failure_share", "change", "share")
_COUNTS = ("in_flight", "count", "parameters")
_BANDWIDTHS = ("gpu_memory_bandwidth", "link", "storage_read", "neighbour_rate")
_BYTES = ("workload_bytes", "kv_capacity", "kv_bytes_per_token", "weights", "memory", "read_bytes", "size")


def dimension_of(what: What) -> Dimension:
    """Return what a kind of figure is measured in."""
    groups: tuple[tuple[tuple[str, ...], Dimension], ...] = (
        (_TIMES, "time"),
        (_RATES, "token rate"),
        (("request_rate",), "rate"),
        (_RATIOS, "ratio"),
        (_COUNTS, "count"),
        (_BYTES, "bytes"),
        (_BANDWIDTHS, "bandwidth"),
    )
    return next((dimension for names, dimension in groups if what in names), "tokens")


def _whole(text: Any) -> Any:
    """Read "1,200" and "32k" as people print them."""
    return units.parse_count(text.replace(",", "")) if isinstance(text, str) else text


Whole = Annotated[int, BeforeValidator(_whole)]


class Source(Strict):
    """Where the document is, so that anybody can look the figures up."""

    publisher: str
    url: str = ""
    date: str = ""
    commit: str = ""


class ModelFacts(Strict):
    """The model whose KV cache it is; `assumed` says why a shape is taken that the document does not name."""

    shape: str
    kv_dtype_bytes: float = 2
    section: str
    quote: str = ""
    assumed: str = ""

    @model_validator(mode="after")
    def _known(self) -> ModelFacts:
        try:
            model_shapes.shape_of(self.shape)
        except KeyError as fault:
            known = nearest(self.shape, model_shapes.KNOWN_SHAPES)
            raise Contradiction(str(fault.args[0]), ("model", "shape"), known) from None
        return self


class Workload(Strict):
    """What was sent to what; a condition inherits what its experiment says and may say it differently.

    `requests` are sent per condition, `samples` the values behind a statistic where that is another number. `draw` is
    how prompts were chosen; `cache` the state at the start: off, empty, warm, or on without a word on its content.
    `tiers` are the places beyond GPU memory that may hold KV.
    """

    requests: Whole | None = None
    samples: Whole | None = None
    distinct_prompts: Whole | None = None
    draw: Literal["random", "each", "unique"] | None = None
    concurrency: Whole | None = None
    conversations: Whole | None = None
    prompt_tokens: Whole | None = None
    output_tokens: Whole | None = None
    gpus: Whole | None = None
    runs_for_s: float | None = None
    cache: Literal["off", "empty", "warm", "on"] | None = None
    tiers: tuple[str, ...] = ()
    neighbour: bool = False
    repeats: Whole | None = None
    spread: str | None = None


class Experiment(Workload):
    """Conditions that are compared with one another."""

    id: str
    section: str


class Condition(Workload):
    """One cell of an experiment: a treatment, and the factors that it is crossed with."""

    id: str = ""
    experiment: str = ""
    treatment: str
    factors: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its id, or one made of the treatment and its factors."""
        given = (self.concurrency, self.prompt_tokens, *self.factors.values())
        return self.id or "-".join([self.treatment, *(str(value) for value in given if value is not None)])


class Quantity(Strict):
    """One printed figure.

    `subject` and `tier` tell like figures apart; `restates` names the figure that this one says again; `background` is
    the source of a figure that is not in the document (a data sheet).
    """

    id: str
    what: What
    value: str
    unit: str = ""
    section: str
    words: Words = "exactly"
    statistic: Statistic | None = None
    condition: str | None = None
    experiment: str | None = None
    subject: str = ""
    tier: str = ""
    times: Whole = 1
    per: Literal["", "distinct prompts", "requests"] = ""
    restates: str = ""
    background: str = ""
    quote: str = ""

    @model_validator(mode="after")
    def _readable(self) -> Quantity:
        dimension = printed_figure.read(self.value, self.unit, self.words).dimension
        if dimension != dimension_of(self.what):
            raise ValueError(f"{self.what} is measured in {dimension_of(self.what)}, and {self.unit!r} is {dimension}")
        return self


class Column(Strict):
    """A column of a table: figures, or how they changed against the row of another treatment.

    `subject` says what changed, `throughput` or `latency`, where only the change is printed.
    """

    what: What | None = None
    statistic: Statistic | None = None
    subject: str = ""
    change_of: str | None = None
    form: Form = "change"
    versus: str | None = None
    unit: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Column:
        if (self.what is None) == (self.change_of is None) or (self.change_of is None) != (self.versus is None):
            raise ValueError("a column has either `what`, or `change_of` and `versus`")
        return self


class TableRow(Condition):
    """One row: a condition and its printed figures by column."""

    figures: dict[str, str]


class Table(Strict):
    """A printed table."""

    experiment: str
    section: str
    columns: dict[str, Column]
    rows: tuple[TableRow, ...]


class CurvePoints(Strict):
    """Printed TTFT by prompt length; `derived` is a formula fitted to them, for scenarios that reproduce the curve."""

    printed: dict[Whole, str]
    derived: dict[str, Any] = Field(default_factory=dict)
    cache: Literal["off", "empty", "warm", "on"] | None = None


class Curves(Strict):
    """TTFT against prompt length, treatment by treatment; scenarios name it as `document/section`."""

    section: str
    quantity: str
    unit: str = "s"
    experiment: str = ""
    statistic: Statistic | None = None
    treatments: dict[str, CurvePoints]
    speed_up: dict[Whole, float] = Field(default_factory=dict)


class Derived(Strict):
    """A figure that the document says follows from others: `of` is the newer one, `over` what it is held against.

    `better` marks a claim that one condition beats the other.
    """

    text: str
    section: str
    form: Form
    value: str
    unit: str = ""
    words: Words = "exactly"
    of: str = ""
    over: str = ""
    parts: tuple[str, ...] = ()
    better: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Derived:
        printed_figure.read(self.value, self.unit, self.words)
        if bool(self.parts) != (self.form in ("sum", "product")) or bool(self.of and self.over) == bool(self.parts):
            raise ValueError("a sum or a product has `parts`, every other form `of` and `over`")
        return self

    @property
    def printed(self) -> Printed:
        """The figure as it stands there."""
        return printed_figure.read(self.value, self.unit, self.words)


class Growth(Strict):
    """A word on how a curve grows."""

    text: str
    section: str
    curve: str
    treatment: str
    word: Literal["exponential", "linear", "flat"]


class Fit(Strict):
    """A statement that KV fits into some tiers together, or does not."""

    text: str
    section: str
    kv: str
    tiers: tuple[str, ...]
    stance: Literal["fits", "exceeds"]


class Promise(Strict):
    """A condition that the document says was tested: some figure must be there for it."""

    text: str
    section: str
    concurrency: Whole | None = None
    treatment: str | None = None
    prompt_tokens: Whole | None = None


class Feature(Strict):
    """Something that the document says is there, or is not."""

    name: str
    stance: Literal["used", "absent"]
    text: str
    section: str


class Neighbour(Strict):
    """A disturbing load: its printed rate, what the disturbed thing can do, and what else is said of it."""

    experiment: str
    section: str
    rate: str
    capability: str = ""
    generator: str = ""
    direction: str = ""
    delivered: str = ""


class ScenarioRow(Strict):
    """Printed figures for the treatments of these names, by the name of our metric."""

    treatments: tuple[str, ...]
    figures: dict[str, str]
    against: str = ""


class ScenarioRows(Strict):
    """The figures that a document prints for the treatments of a scenario, which names them as `document/section`.

    Rows are by what they are called there. `ratios` says how rows are compared: as times, or as a change in percent.
    `remarks` are ours, not the document's: what must be known before the figures are held against each other.
    """

    section: str
    ratios: Literal["times", "change"]
    rows: dict[str, ScenarioRow]
    remarks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rows_of_this_table(self) -> ScenarioRows:
        for name, row in self.rows.items():
            if row.against and row.against not in self.rows:
                raise ValueError(f"row {name} is against {row.against}, which is no row here")
            if unknown := sorted(set(row.figures) - set(SCENARIO_ROW_METRICS)):
                raise ValueError(f"{unknown[0]} is no figure that rows can have: {', '.join(SCENARIO_ROW_METRICS)}")
        return self


class Claims(Strict):
    """A whole document."""

    schema_version: Whole
    name: str
    title: str
    source: Source
    system: str = ""
    model: ModelFacts | None = None
    experiments: tuple[Experiment, ...] = ()
    conditions: tuple[Condition, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    tables: tuple[Table, ...] = ()
    curves: dict[str, Curves] = Field(default_factory=dict)
    scenario_rows: dict[str, ScenarioRows] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("scenario_rows", "beside"),  # `beside` is the name it had before
    )
    derived: tuple[Derived, ...] = ()
    growth: tuple[Growth, ...] = ()
    fits: tuple[Fit, ...] = ()
    promises: tuple[Promise, ...] = ()
    features: tuple[Feature, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
