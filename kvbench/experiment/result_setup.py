"""Writes plan, facts and scenario into the result folder before the first run starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.lenient_json import at, items
from kvbench.result import calibration, differences, draw_file, record_files
from kvbench.result.files import write_atomic
from kvbench.scenario import plan
from kvbench.this_host import facts

if TYPE_CHECKING:
    from kvbench.result.folder import ResultFolder
    from kvbench.scenario.plan import Plan
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.testbed import Testbed
    from kvbench.typed_json import JsonObject


def lay_out(asked: Scenario, bed: Testbed, result: ResultFolder, file: Path, changes: list[str]) -> Plan:
    """Write down what will be done and on what, before anything is done; a resumed result has it already."""
    attached = bed.attached
    salt = f"{result.path.name}/" if attached is not None else ""
    laid_out = plan.expand(asked, salt, at(attached.info, "scale") if attached is not None else None)
    tiers: dict[str, Path] = {name: tier.path for name, tier in asked.directories.items()}
    if attached is not None and attached.tier_path is not None:
        tiers["g4"] = attached.tier_path
    gathered = facts.gather({"results": result.path, **tiers}, Path(__file__).parents[1])
    given: JsonObject = {"file": str(file), "overrides": [*changes], "fingerprint": asked.fingerprint}
    if attached is not None:
        given["endpoint"] = attached.url
    if result.resumed:
        before = result.read_json("facts.json")
        changed = sorted({*items(before.get("changed_on_resume")), *differences.differences(before, gathered)})
        result.write_json("facts.json", {**before, "changed_on_resume": changed})
    else:
        result.write_json("facts.json", {**gathered, "scenario": given})
        write_atomic(result.path / "scenario.yaml", file.read_bytes())
        draw_file.write_draws(result.path, laid_out.draw_rows())
        calibration.attach(result.path.parent.parent, result.path, facts.host_identity(gathered), asked.load.driver)
        record_files.write_plan(result.path, laid_out.record())  # the last: a folder without it is no result
    return laid_out
