"""The published noisy-neighbour experiment, and the measured level that is nearest to its load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.publications import library
from kvbench.report.table import Cell, Column, Row, Table, change_cell, row
from kvbench.report.text import SPACE, percent

if TYPE_CHECKING:
    from kvbench.analysis.neighbor_types import NeighborImpact, NeighborLevel
    from kvbench.analysis.summary_types import Summary
    from kvbench.report.report_input import ReportInput


@dataclass(frozen=True, slots=True)
class PublishedExperiment:
    """The figures of the published experiment, as its document prints them."""

    title: str
    section: str
    neighbor_rate: str  # GB/s
    storage_rate: str  # GB/s
    quiet_per_s: str
    noisy_per_s: str
    quiet_s: str
    noisy_s: str
    reduction: str  # Percent, called a reduction in throughput there
    over_recompute: str

    @property
    def share(self) -> float:
        """The neighbours' rate over what the storage reads."""
        return number(self.neighbor_rate) / number(self.storage_rate)

    @property
    def throughput_loss(self) -> float:
        """What the printed rates say."""
        return 1 - number(self.noisy_per_s) / number(self.quiet_per_s)

    @property
    def time_increase(self) -> float:
        """What the printed times say."""
        return number(self.noisy_s) / number(self.quiet_s) - 1


def experiment() -> PublishedExperiment:
    """Read the published experiment from its document."""
    claims = library.document("ibm-storage-scale").claims
    found = {one.id: one.value for one in claims.quantities}
    reduction = next(one.value for one in claims.derived if one.of == "rps-noisy" and one.over == "rps-g4")
    over = next(one.value for one in claims.derived if one.of == "rps-noisy" and one.over == "rps-recompute")
    section = next(one.section for one in claims.quantities if one.id == "rps-noisy")
    return PublishedExperiment(
        title=claims.title,
        section=section,
        neighbor_rate=found["neighbour-rate"],
        storage_rate=found["storage-read"],
        quiet_per_s=found["rps-g4"],
        noisy_per_s=found["rps-noisy"],
        quiet_s=found["time-g4"],
        noisy_s=found["time-noisy"],
        reduction=str(reduction),
        over_recompute=str(over),
    )


def number(text: str) -> float:
    """Read a printed number."""
    return float(text.replace(",", ""))


def nearest(impact: NeighborImpact) -> list[NeighborLevel]:
    """Return of each load the level with a figure whose delivered share is nearest to the published one."""
    found, target = [], experiment().share
    for load in dict.fromkeys(level.load_name for level in impact.levels):
        own = [level for level in impact.levels if level.load_name == load and level.throughput_loss.value is not None]
        paced = [level for level in own if not level.unlimited] or own
        if paced:
            found.append(min(paced, key=lambda level: abs((level.of_capacity or 0.0) - target)))
    return found


def published_neighbors(given: ReportInput) -> Table | None:
    """Return a row for the published experiment and one for each nearest level.

    None without neighbours, without a level that has a figure, and where another document stands beside the result.
    """
    impact = given.summary.neighbors
    levels = nearest(impact) if impact is not None and given.summary.published_table is None else []
    if not levels:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("delivered_bytes_per_s", "Neighbours", "bytes/s"),
        Column("of_capacity", "Of capacity", "share"),
        Column("quiet_per_s", "Requests/s, quiet", "1/s", "higher"),
        Column("noisy_per_s", "Requests/s, noisy", "1/s", "higher"),
        Column("quiet_s", "Total time, quiet", "s", "lower"),
        Column("noisy_s", "Total time, noisy", "s", "lower"),
        Column("throughput_loss", "Throughput loss (1 - noisy / quiet)", "share", "lower"),
        Column("time_increase", "Time increase (noisy / quiet - 1)", "share", "lower"),
        Column("over_recompute", "Requests/s over recompute", "ratio", "higher"),
    )
    rows = (_published_row(experiment()), *(_level_row(level, given.summary) for level in levels))
    title = "The published experiment and the nearest levels"
    return Table("published_neighbors", title, columns, rows, (sentence(),), is_turned=True)


def _published_row(experiment: PublishedExperiment) -> Row:
    rate, unit = number(experiment.neighbor_rate) * 1e9, f"{SPACE}GB/s"
    return row(
        Cell("published", mark="published"),
        Cell(rate, text=f"{experiment.neighbor_rate}{unit}", below="printed, delivered not stated", mark="published"),
        Cell(experiment.share, below=f"of {experiment.storage_rate}{unit}", mark="published"),
        Cell(number(experiment.quiet_per_s), text=experiment.quiet_per_s, mark="published"),
        Cell(number(experiment.noisy_per_s), text=experiment.noisy_per_s, mark="published"),
        Cell(number(experiment.quiet_s), text=f"{experiment.quiet_s} s", mark="published"),
        Cell(number(experiment.noisy_s), text=f"{experiment.noisy_s} s", mark="published"),
        Cell(experiment.throughput_loss, below=f"{experiment.reduction}{SPACE}% is printed", mark="published"),
        Cell(experiment.time_increase, below="derived", mark="published"),
        Cell(
            number(experiment.over_recompute), text=f"{experiment.over_recompute}x", below="printed", mark="published"
        ),
    )


def _level_row(level: NeighborLevel, summary: Summary) -> Row:
    quiet = summary.treatments[level.quiet].metrics if level.quiet is not None else None
    noisy = summary.treatments[level.treatment].metrics
    return row(
        level.treatment,
        Cell(level.delivered_bytes_per_s.mean),
        Cell(level.of_capacity),
        Cell(quiet["requests_per_s"].value if quiet is not None else None),
        Cell(noisy["requests_per_s"].value),
        Cell(quiet["total_time"].value if quiet is not None else None),
        Cell(noisy["total_time"].value),
        change_cell(level.throughput_loss, mark=""),
        change_cell(level.time_increase, mark=""),
        change_cell(level.requests_over_recompute, mark=""),
    )


def sentence() -> str:
    """Say what was published of such an experiment, and which of its percentages is which."""
    one = experiment()
    return (
        f"Published ({one.title}, {one.section}): {one.neighbor_rate} GB/s of neighbours, {percent(one.share)} of the"
        f" {one.storage_rate} GB/s that its storage reads. From {one.quiet_per_s} to {one.noisy_per_s} requests/s is a"
        f" throughput loss of {percent(one.throughput_loss)}; from {one.quiet_s} to {one.noisy_s} s is a time increase"
        f" of {percent(one.time_increase)}. What is printed there as a reduction in throughput of"
        f" {one.reduction}{SPACE}% is the time increase. Whether the load was delivered, and whether storage bound the"
        " quiet run, is not stated there."
    )
