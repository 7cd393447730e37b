"""Figures of metrics as words: a value in its unit, its interval, or what stands in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.metrics import METRICS
from kvbench.pooled import PROMPTS_REPEAT, SEVERAL_TURNS
from kvbench.report.grid import NOTHING, percent, three_digits
from kvbench.units import format_duration, format_rate

if TYPE_CHECKING:
    from kvbench.metrics import Unit

# What tables show of all metrics, in this order; JSON has every one. Latency from the schedule says nothing in a closed
# loop, and stands in a table of its own for an open one.
SHOWN = (
    "ttft_p50",
    "ttft_p95",
    "ttft_p99",
    "ttft_max",
    "tpot_p50",
    "latency_p50",
    "latency_p95",
    "latency_p99",
    "total_time",
    "requests_per_s",
    "output_tokens_per_s",
    "prompt_tokens_per_s",
    "hit_rate",
    "kv_bytes_per_s",
    "slo_attainment",
    "goodput_per_s",
)


_SHORT_WORDS = {"no difference shown": "none shown", "too few rounds": "too few", "cannot be compared": "not compared"}


def value_text(unit: Unit, value: float | None) -> str:
    """Write a value in its unit: 0.0242 s to "24.2 ms", a share to "62.5 %", a rate to three digits."""
    if value is None:
        return NOTHING
    if unit == "share":
        return percent(float(f"{value:.3g}")).replace("\u00a0", " ")
    if unit == "s":
        return format_duration(value)
    if unit == "bytes/s":
        return format_rate(value)
    for size, prefix in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{three_digits(value / (1e3 if prefix == 'k' else size))}{prefix}"
    return three_digits(value) if value else "0"


def value_with_interval(unit: Unit, figure: dict[str, Any]) -> str:
    """Write value and interval in one line, the unit once where they share it: "72.4 ms (72.0\N{EN DASH}73.1)"."""
    if figure["value"] is None:
        return figure["refusal"] or NOTHING
    value, interval = value_text(unit, figure["value"]), interval_text(unit, figure)
    name = value.partition(" ")[2]
    if name and " " not in name and interval.count(name) == 1 and interval.endswith(f" {name}"):
        low, dash, _ = interval.partition("\N{EN DASH}")
        if not dash or " " not in low:
            interval = interval.removesuffix(f" {name}")
    return f"{value} ({interval})" if interval else value


def interval_text(unit: Unit, figure: dict[str, Any]) -> str:
    """Write a figure's interval, its upper bound alone, or why a value has none: "n=4 < 5", "prompts repeat".

    Nothing where rounds are too few: their number stands at the head of a table, once.
    """
    if figure["high"] is None:
        reason = bare_refusal(figure["refusal"] or "")
        return "" if reason.startswith("rounds=") else reason.rpartition(", ")[2]
    high = _end_text(unit, figure["high"])
    if figure["low"] is None:
        return f"\u2264 {high}"
    if figure["low"] == figure["high"]:
        return "no spread"
    number, _, name = _end_text(unit, figure["low"]).partition(" ")
    return f"{number if not name or high.endswith(f' {name}') else f'{number} {name}'}\N{EN DASH}{high}"


def _end_text(unit: Unit, value: float) -> str:
    """Write an end of an interval: as a value, but minutes in seconds, where "1 min 27 s" would hide the spread."""
    return f"{three_digits(value)} s" if unit == "s" and value >= 60 else value_text(unit, value)


def bare_refusal(refusal: str) -> str:
    """Take the brackets off a refusal, for a place that is in brackets or small print itself."""
    return refusal.removeprefix("n/a (").removesuffix(")") if refusal.startswith("n/a (") else refusal


def dependence_note(summary: dict[str, Any]) -> str:
    """Explain the words in place of an interval where requests are not independent; nothing where nobody needs it."""
    refusals = [
        figure["refusal"] or "" for item in summary["treatments"].values() for figure in item["metrics"].values()
    ]
    if any(SEVERAL_TURNS in refusal or "conversations <" in refusal for refusal in refusals):
        return (
            f"{SEVERAL_TURNS}: turns of one conversation are not independent, so percentiles beyond the median have no"
            " interval; a number of conversations: too few of them."
        ).capitalize()
    if any(PROMPTS_REPEAT in refusal or "prompts <" in refusal for refusal in refusals):
        return (
            f"{PROMPTS_REPEAT}: requests of one prompt in one run are not independent, so percentiles beyond the median"
            " have no interval; a number of prompts: too few of them, each counted once a run."
        ).capitalize()
    return ""


def marked(name: str, summary: dict[str, Any]) -> str:
    """Return a treatment's name, with "(!)" if its own verdict is suspect; all of an import is, and has no marks."""
    return f"{name} (!)" if not summary["imported"] and summary["treatments"][name]["verdict"] == "suspect" else name


def mark_note(summary: dict[str, Any]) -> str:
    """Explain the mark of `marked`; nothing where no treatment has it."""
    is_used = any(marked(name, summary) != name for name in summary["treatments"])
    return "(!) suspect: the verdict at the end says why." if is_used else ""


def worth_showing(name: str, all_metrics: list[dict[str, Any]]) -> bool:
    """Tell whether a metric says anything of any treatment: a value, or a refusal that names its n."""
    figures = [metrics[name] for metrics in all_metrics]
    if METRICS[name].of_run is not None:
        return any(figure["value"] is not None for figure in figures)
    return any(figure["n"] for figure in figures)


def short_word(word: str) -> str:
    """Shorten what may be said for a narrow column: "within 5 %", "none shown" for no difference, "too few" rounds."""
    if word.startswith("equivalent "):
        return word.removeprefix("equivalent ")
    return _SHORT_WORDS.get(word, word)
