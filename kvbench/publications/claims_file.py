"""Reads a claims file into one list of figures: quantities, table cells and curve points with their conditions.

    YAML -> Claims (strict) -> Document: cells, figures, derived claims, every reference resolved

A rule of the audit asks a `Document` for a kind of figure under a kind of condition, and never for a document by name.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench import model_shapes, strict_yaml
from kvbench.errors import ResultError
from kvbench.publications import printed_figure
from kvbench.publications.claims import (
    Claims,
    Condition,
    Derived,
    Statistic,
    Table,
    TableRow,
    What,
    Workload,
    dimension_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.publications.printed_figure import Interval, Printed

SCHEMA_VERSION = 1
_KIND = strict_yaml.Kind(
    "a claims file",
    "Name a claims file, a result or a document; docs/claims.md says how to write one.",
    "docs/claims.md",
    as_text=True,
)
_REMEDY = "docs/claims.md says how a claims file is written."


@dataclass(frozen=True)
class Cell:
    """A condition with all that it inherits from its experiment."""

    name: str
    experiment: str
    treatment: str
    factors: tuple[tuple[str, str], ...]
    load: Workload
    section: str

    @property
    def place(self) -> tuple[Any, ...]:
        """What cells have in common that differ in their treatment only."""
        return self.experiment, self.factors, self.load.concurrency, self.load.prompt_tokens

    @property
    def values(self) -> int | None:
        """How many values are behind a statistic of this cell."""
        return self.load.samples or self.load.requests


@dataclass(frozen=True)
class Figure:
    """One printed figure with its condition, wherever in the document it stood."""

    ref: str
    what: What
    printed: Printed
    section: str
    statistic: Statistic | None = None
    cell: Cell | None = None
    experiment: str = ""
    subject: str = ""
    tier: str = ""
    per: str = ""
    restates: str = ""
    background: str = ""

    @property
    def interval(self) -> Interval:
        """All values that it may stand for; "up to 80 GB/s" stands for 80 GB/s, and so do other open words."""
        open_words = ("up to", "at most", "over", "at least")
        return self.printed.rounded if self.printed.words in open_words else self.printed.interval

    @property
    def name(self) -> str:
        """What it is, for people: "mean ttft of g4"."""
        what = self.what.replace("_", " ").replace("ttft", "TTFT").replace("tpot", "TPOT").replace("kv ", "KV ")
        kind = f"{self.statistic + ' ' if self.statistic else ''}{what}"
        about = self.cell.name if self.cell else self.subject or self.tier
        return f"{kind} of {about}" if about else kind

    def __str__(self) -> str:
        """Name it and say what is printed."""
        source = f" ({self.background})" if self.background else ""
        return f"{self.name}: {self.printed}{source}"


@dataclass(frozen=True)
class Document:
    """A claims document laid out for the rules."""

    claims: Claims
    cells: tuple[Cell, ...]
    figures: tuple[Figure, ...]
    derived: tuple[Derived, ...]

    def figure(self, ref: str) -> Figure:
        """Return the figure of that id; for a table's cell it is `row.column`."""
        for one in self.figures:
            if one.ref == ref:
                return one
        near = difflib.get_close_matches(ref, [one.ref for one in self.figures], n=3, cutoff=0.4)
        remedy = f"It has {', '.join(near)}." if near else _REMEDY
        raise ResultError(f"{self.claims.name} refers to a figure {ref} that it does not have", remedy)

    def find(
        self, what: What, statistic: Statistic | None = None, *, cell: Cell | None = None, tier: str | None = None
    ) -> list[Figure]:
        """Return all figures of a kind: of one cell where it is given, of one tier where that is given."""
        return [
            one
            for one in self.figures
            if one.what == what
            and (statistic is None or one.statistic == statistic)
            and (cell is None or one.cell == cell)
            and (tier is None or one.tier == tier)
        ]

    def first(self, what: What, statistic: Statistic | None = None, *, cell: Cell | None = None) -> Figure | None:
        """Return the first such figure, None where there is none; without a cell, one that belongs to none."""
        found = self.find(what, statistic, cell=cell)
        return next((one for one in found if cell is not None or one.cell is None), None)

    @property
    def shape(self) -> model_shapes.ModelShape | None:
        """The shape of the model, where the document gives it."""
        return model_shapes.shape_of(self.claims.model.shape) if self.claims.model else None


def load(path: Path) -> Document:
    """Read and check a claims file.

    Raises:
        ResultError: unreadable, not YAML, an unknown or mistyped key, or a reference to what is not there.

    """
    try:
        text = strict_yaml.read(path, _KIND)
    except strict_yaml.Fault as fault:
        raise ResultError(fault.message, fault.remedy) from None
    return parse(text, str(path))


def parse(text: str, where: str) -> Document:
    """Check the text of a claims file; `where` names it in messages.

    Raises:
        ResultError: not YAML, an unknown or mistyped key, or a reference to what is not there.

    """
    try:
        claims = strict_yaml.check(strict_yaml.parse(text, where, _KIND), Claims)
    except strict_yaml.Fault as fault:
        raise ResultError(fault.message, fault.remedy) from None
    if claims.schema_version != SCHEMA_VERSION:
        raise ResultError(f"{where} has schema_version {claims.schema_version}, not {SCHEMA_VERSION}", _REMEDY)
    return lay_out(claims)


# -- laying out -------------------------------------------------------------------------------------------------------


def lay_out(claims: Claims) -> Document:
    """Resolve what conditions inherit and every reference.

    Raises:
        ResultError: two things of one id, or a reference to what is not there.

    """
    given = [
        *claims.conditions,
        *(row.model_copy(update={"experiment": one.experiment}) for one in claims.tables for row in one.rows),
        *_curve_conditions(claims),
    ]
    cells = {one.name: _cell(one, claims) for one in given}
    figures = (*_quantities(claims, cells), *_table_figures(claims, cells), *_curve_figures(claims, cells))
    derived = (*claims.derived, *(change for table in claims.tables for change in _changes(table)))
    document = Document(claims, tuple(cells.values()), figures, derived)
    refs = [one.ref for one in figures]
    _refuse_twice(claims, [one.name for one in given], refs)
    wanted = [ref for one in derived for ref in (one.of, one.over, *one.parts)]
    wanted += [one.restates for one in figures] + [one.kv for one in claims.fits]
    wanted += [ref for one in claims.neighbours for ref in (one.rate, one.capability)]
    wanted += [
        ref for one in claims.scenario_rows.values() for row in one.rows.values() for ref in row.figures.values()
    ]
    for ref in filter(None, wanted):
        document.figure(ref)
    return document


def _refuse_twice(claims: Claims, *groups: list[str]) -> None:
    for names in groups:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ResultError(f"{claims.name} has two things of the id {twice[0]}", "Give each an id of its own.")


def _cell(condition: Condition, claims: Claims) -> Cell:
    experiment = next((one for one in claims.experiments if one.id == condition.experiment), None)
    if experiment is None:
        raise ResultError(f"condition {condition.name} is of no experiment in {claims.name}", "Name its experiment.")
    known = set(Workload.model_fields)
    said = {key: getattr(condition, key) for key in condition.model_fields_set & known}
    inherited = {key: getattr(experiment, key) for key in experiment.model_fields_set & known}
    load = Workload.model_construct(**{**inherited, **said})
    factors = tuple(sorted(condition.factors.items()))
    return Cell(condition.name, experiment.id, condition.treatment, factors, load, experiment.section)


def _curve_conditions(claims: Claims) -> Iterator[Condition]:
    for curves in claims.curves.values():
        for treatment, points in curves.treatments.items():
            for tokens in points.printed:
                given = {"experiment": curves.experiment, "treatment": treatment, "prompt_tokens": tokens}
                yield Condition(**given, cache=points.cache)


def _quantities(claims: Claims, cells: dict[str, Cell]) -> Iterator[Figure]:
    for one in claims.quantities:
        if one.condition is not None and one.condition not in cells:
            raise ResultError(f"{one.id} names a condition {one.condition} that {claims.name} does not have", _REMEDY)
        yield Figure(
            one.id,
            one.what,
            printed_figure.read(one.value, one.unit, one.words, times=one.times),
            one.section,
            one.statistic,
            cells[one.condition] if one.condition else None,
            one.experiment or "",
            one.subject,
            one.tier,
            one.per,
            one.restates,
            one.background,
        )


def _table_figures(claims: Claims, cells: dict[str, Cell]) -> Iterator[Figure]:
    for table in claims.tables:
        for row in table.rows:
            for name, text in row.figures.items():
                if name not in table.columns:
                    raise ResultError(f"row {row.name} has a figure {name}, which is no column", _REMEDY)
                column = table.columns[name]
                cell, what = cells[row.name], column.what or "change"
                try:
                    figure = printed_figure.read(text, column.unit)
                except ValueError as fault:
                    raise ResultError(f"row {row.name}, {name}: {fault}", _REMEDY) from None
                if column.what and figure.dimension != dimension_of(column.what):
                    raise ResultError(f"column {name}: {column.what} is not measured in {column.unit}", _REMEDY)
                yield Figure(
                    f"{row.name}.{name}", what, figure, table.section, column.statistic, cell, subject=column.subject
                )


def _changes(table: Table) -> Iterator[Derived]:
    """Turn each cell of a column of changes into a claim that follows from two other cells."""
    for row in table.rows:
        for name, column in table.columns.items():
            if column.change_of is None or column.versus is None or name not in row.figures:
                continue
            other = _versus(table, row, column.versus)
            yield Derived(
                text=f"{name} of {row.name}: {row.figures[name]} {column.unit}",
                section=table.section,
                form=column.form,
                value=row.figures[name],
                unit=column.unit,
                of=f"{row.name}.{column.change_of}",
                over=f"{other.name}.{column.change_of}",
            )


def _versus(table: Table, row: TableRow, treatment: str) -> TableRow:
    def place(table_row: TableRow) -> tuple[Any, ...]:
        return table_row.concurrency, table_row.prompt_tokens, table_row.factors

    for other in table.rows:
        if other.treatment == treatment and place(other) == place(row):
            return other
    raise ResultError(f"row {row.name} has no row of {treatment} to be held against", _REMEDY)


def _curve_figures(claims: Claims, cells: dict[str, Cell]) -> Iterator[Figure]:
    for curves in claims.curves.values():
        for treatment, points in curves.treatments.items():
            for tokens, text in points.printed.items():
                cell = cells[f"{treatment}-{tokens}"]
                figure = printed_figure.read(text, curves.unit)
                yield Figure(f"{cell.name}.ttft", "ttft", figure, curves.section, curves.statistic, cell)
