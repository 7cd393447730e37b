"""Finds the result that a user names: a folder, the name of a scenario, or a time stamp.

A name stands for the scenario's newest complete result. A newer one that was broken off, or is still being made, does
not hide it, and is told. A name that is found one folder deeper only, as that of an example is, is told with its place.
What is there instead of a result is told too.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.errors import ResultError
from kvbench.result.calibration import FILE
from kvbench.result.record_files import PLAN, RUN, read_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvbench.result.plan_record import PlanRecord


def find_result(what: str, results: Path, tell: Callable[[str], object] | None = None) -> Path:
    """Return the result folder that a user means; `tell` gets a line where a newer one is passed over.

    Raises:
        ResultError: there is none; the message says what is there instead.

    """
    for named in (Path(what), results / what):
        if (named / PLAN).exists():
            return named
    if stamped := sorted(path.parent for path in results.glob(f"*/{what.strip('/')}/{PLAN}")):
        return stamped[-1]
    for named in (results / what, Path(what)):
        found = sorted(path.parent for path in named.glob(f"*/{PLAN}"))
        if len({_scenario_of(folder) for folder in found}) == 1:
            return _newest(found, tell)
    if deeper := _deeper(what, results):
        best = _newest(deeper, tell)
        if tell is not None:
            tell(f"note: {best} is shown; {results} itself has no result called {what}")
        return best
    raise _missing(what, results)


def _deeper(what: str, results: Path) -> list[Path]:
    """Return the results of a scenario in a folder of results below this one, or in one that holds nothing but them."""
    own = sorted(path.parent for path in results.glob(f"*/{PLAN}") if _scenario_of(path.parent) == what)
    if own or not (name := what.strip("/")):
        return own
    for named in sorted(results.glob(f"*/{name}")):
        found = sorted(path.parent for path in named.glob(f"*/{PLAN}"))
        if len({_scenario_of(folder) for folder in found}) == 1:
            return found
    return []


def _newest(folders: list[Path], tell: Callable[[str], object] | None) -> Path:
    """Return the newest complete result; else the newest with a sealed run; else the newest."""
    runs = {folder: _runs(folder) for folder in folders}
    whole = [folder for folder, (sealed, planned) in runs.items() if 0 < planned == sealed]
    begun = [folder for folder, (sealed, _) in runs.items() if sealed]
    best = (whole or begun or folders)[-1]
    if tell is not None and best != folders[-1]:
        sealed, planned = runs[folders[-1]]
        done = f"{sealed} of its {planned} runs are done" if planned else "its plan cannot be read"
        tell(f"note: {best} is shown; a newer result is not finished, {done}: {folders[-1]}")
    return best


def _runs(folder: Path) -> tuple[int, int]:
    """Return how many runs of a result are sealed, and how many were planned."""
    plan = _plan(folder)
    planned = plan.runs if plan is not None else ()
    return sum((folder / "runs" / spec.run_id / RUN).exists() for spec in planned), len(planned)


def _scenario_of(folder: Path) -> str:
    plan = _plan(folder)
    return plan.scenario if plan is not None else folder.parent.name


def _plan(folder: Path) -> PlanRecord | None:
    try:
        return read_plan(folder)
    except ResultError:  # cut off, or of another version: it must not hide the others
        return None


# -- what is there instead --------------------------------------------------------------------------------------------


def _missing(what: str, results: Path) -> ResultError:
    places = (Path(what), results / what, *results.glob(f"*/{what.strip('/')}"))
    path = next((path for path in places if path.exists()), None)
    if path is None:
        return _unknown(what, results)
    if path.is_file():
        remedy = "Give the name of its scenario, as the file says after `name:`, or the result's folder."
        return ResultError(f"{path} is a file, and a result is a folder", remedy)
    if (path / FILE).exists():
        return _calibration(f"{path} is a calibration, and no result")
    if calibrations := sum(not (one.parent / PLAN).exists() for one in path.glob(f"*/{FILE}")):
        plural = "s" if calibrations > 1 else ""
        return _calibration(f"{path} holds {calibrations} calibration{plural}, and no result")
    if names := list(_scenarios(path)):
        counted = ", ".join(f"{name} ({count})" for name, count in names)
        remedy = f"Name one of them, such as {_all_in(path)[-1]}."
        return ResultError(f"{path} is not a result but holds results: {counted}", remedy)
    return ResultError(f"{path} is no result: there is no plan.json in it", "Name a folder that `kvbench run` wrote.")


def _calibration(sentence: str) -> ResultError:
    return ResultError(sentence, "Name a result that was made after it: show and report print what it says.")


def _unknown(what: str, results: Path) -> ResultError:
    names = [name for name, _ in _scenarios(results)]
    near = difflib.get_close_matches(what, names, n=1)
    remedy = "Run the scenario first, or give the folder's path."
    if near:
        remedy = f"Did you mean {near[0]}?"
    elif names:
        remedy = f"There {'are' if len(names) > 1 else 'is'} {', '.join(names)}; or give a folder's path."
    return ResultError(f"no result called {what} in {results}", remedy)


def _scenarios(folder: Path) -> Iterator[tuple[str, int]]:
    """Give the scenarios that have results below a folder, and how many each has."""
    counted: dict[str, int] = {}
    for result in _all_in(folder):
        name = result.parent.name if result.parent != folder else _scenario_of(result)
        counted[name] = counted.get(name, 0) + 1
    yield from counted.items()


def _all_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in [*folder.glob(f"*/{PLAN}"), *folder.glob(f"*/*/{PLAN}")])
