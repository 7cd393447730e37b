"""The report: one page that needs nothing but itself, as HTML for the screen and as PDF for paper.

    result folder -> material -> answer, figures, evidence, setting, plots -> template -> HTML -> PDF

Everything shown comes from the result folder; the same folder gives the same HTML, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kvbench import __version__
from kvbench.errors import StorageError
from kvbench.report import (
    answer,
    audit_section,
    beside,
    client_error,
    course_plot,
    dose_section,
    evidence,
    figure_text,
    figures,
    imported,
    material,
    matrix,
    metric_tables,
    open_loop,
    plots,
    series,
    setting,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.report.material import Material


def write_report(results: Sequence[Path], out: Path, *, html: bool, pdf: bool) -> list[Path]:
    """Write `<scenario>.html` and `<scenario>.pdf` for each result, both from the same page; return what was written.

    Raises:
        ResultError: a folder is not a result, or no run of it is sealed.
        StorageError: the folder `out` cannot be made or written.

    """
    read = [material.read(result) for result in results]
    written = []
    for name, one in zip(_file_names(read), read, strict=True):
        page = render(one)
        if html:
            written.append(_write(out / f"{name}.html", page.encode()))
        if pdf:
            written.append(_write(out / f"{name}.pdf", to_pdf(page)))
    return written


def render(one: Material) -> str:
    """Fill the template."""
    import jinja2  # noqa: PLC0415 - only a report needs it
    from markupsafe import Markup  # noqa: PLC0415

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kvbench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    drawn = {
        "rate": plots.rate_plot(one),
        "courses": course_plot.course_plot(one),
        "ttft": plots.ttft_plot(one),
        "published": plots.published_plot(one),
    }
    pictures = {name: svg and Markup(svg) for name, svg in drawn.items()}  # noqa: S704 - our own SVG
    return environment.get_template("report.html.j2").render(**_content(one), plots=pictures)


def _breakable(name: str) -> str:
    """Let a name that is too long for its column on paper break after an underscore, and not inside a word."""
    from markupsafe import Markup, escape  # noqa: PLC0415

    return escape(name).replace("_", Markup("_<wbr>"))


def _content(one: Material) -> dict[str, Any]:
    """Return what the template shows, section by section."""
    return {
        "version": __version__,
        "summary": one.summary,
        "answers": answer.answers(one.summary),
        "asked": setting.asked(one),
        "compared": bool(series.speed_up_series(one)),
        "done": setting.complete_text(one),
        "reasons": evidence.reasons(one),
        "measured": figures.measured_grid(one),
        "beside": figures.published_grid(one),
        "load_ratio": figures.has_load_ratio(one.summary),
        "printed_rows": beside.beside_grid(one.summary["beside"]) if one.summary["beside"] else None,
        "open_loop": open_loop.open_loop_grid(one.summary),
        "open_loop_note": open_loop.note(one.summary),
        "queues": list(open_loop.sentences(one.summary)),
        "matrix": matrix.matrix_grid(one.summary) if matrix.has_matrix(one.summary) else None,
        "matrix_needs": matrix.needed_text(),
        "metrics": list(metric_tables.metrics_grids(one.summary)),
        "dependence": figure_text.dependence_note(one.summary),
        "remarks": list(metric_tables.comparison_lines(one.summary)),
        "proof": evidence.proof_grid(one),
        "steps": evidence.step_grids(one),
        "odd_steps": evidence.odd_steps_grid(one),
        "runs": evidence.runs_grid(one),
        "client": evidence.client_grid(one),
        "client_error": client_error.sentence(one.summary),
        "calibration_needs": client_error.needed_text(),
        "calibration": client_error.calibration_grid(one.summary),
        "audit": audit_section.section(one),
        "dose": dose_section.section(one),
        "fact_groups": setting.groups(one),
        "imported": one.summary.get("imported"),
        "import_grid": imported.grid(one.summary) if one.summary.get("imported") else None,
        "origin": imported.origin(one.summary) if one.summary.get("imported") else None,
        "scenario_text": one.scenario_text,
        **setting.reproduction(one),
    }


def to_pdf(page: str) -> bytes:
    """Lay the page out on A4."""
    import weasyprint  # noqa: PLC0415 - heavy, and only a PDF needs it

    content: bytes = weasyprint.HTML(string=page, url_fetcher=_refuse_url).write_pdf()
    return content


def _refuse_url(url: str) -> dict[str, Any]:
    raise ValueError(f"a report refers to nothing outside itself, not to {url}")


def _file_names(read: Sequence[Material]) -> list[str]:
    """Name each file by its scenario, by its result folder too where that is not enough."""
    scenarios = Counter(one.summary["scenario"] for one in read)
    names: list[str] = []
    for one in read:
        scenario, folder = one.summary["scenario"], one.summary["result"]
        name = scenario if scenarios[scenario] == 1 else f"{scenario}-{folder}"
        again = names.count(name)
        names.append(name if not again else f"{name}-{again + 1}")
    return names


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise StorageError(
            f"cannot write {path}: {reason}", "Choose a folder that you may write, with --out DIR."
        ) from (fault)
    return path
