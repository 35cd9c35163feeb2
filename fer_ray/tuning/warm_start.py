"""What an earlier sweep teaches a new search.

Where both train the same thing on the same data, its results are Optuna's observations. Otherwise its values cannot be
compared, and its best settings are the first to be tried.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from fer_ray import results
from fer_ray.config import DATA_PATHS
from fer_ray.errors import UserError
from fer_ray.proposals import frozen_trial, read_proposals
from fer_ray.space import OBJECTIVES, VARIANT, Search
from fer_ray.tuning import samplers

if TYPE_CHECKING:
    from fer_ray.tuning.plan import Plan

NUM_POINTS = 5
"""Settings of an earlier sweep that are tried first where its results cannot be taken over."""


@dataclass(frozen=True)
class Learned:
    """Optuna trials to take as observed, points to try first, and what to say of both."""

    observed: tuple[optuna.trial.FrozenTrial, ...] = ()
    points: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


NOTHING = Learned()


def read(folder: Path, plan: "Plan") -> Learned:
    """Reads an earlier sweep for the search of a plan.

    Raises UserError when there is no sweep, or none of its settings is one that the search knows.
    """
    if not (folder / "sweep.json").exists():
        raise UserError(f"--warm-start {folder}: there is no sweep.json; expected the results folder of a sweep")
    info, space = results.read_json(folder / "sweep.json"), plan.space
    assert isinstance(space, Search)
    names, mine = set(plan.parameters), plan.info()
    if info.get("kind") == "search":
        ended = [p for p in read_proposals(folder) if p.values and names.issuperset(p.params)]
        is_population = info.get("scheduler") == "pbt"  # its values are of schedules that a search does not have
        same = (
            not is_population
            and all(info[key] == mine[key] for key in ("objectives", "parameters"))
            and _same_runs(info, mine)
        )
        if same and ended:
            # An earlier record of the same thing, whatever number it had.
            found = tuple(frozen_trial(replace(p, reason=None), samplers.directions(space.objectives)) for p in ended)
            return Learned(observed=found, notes=(f"{len(found)} proposals of {folder} are taken as observed",))
        scored = [(p.values[0], dict(p.params)) for p in ended if p.values and p.values[0] is not None]
        is_higher_better = info["directions"][0] == "maximize"
    else:
        rows = [row for row in results.read_rows(folder) if row["status"] == results.FINISHED]
        keys = [key for key in info["axes"] if key in names and key != VARIANT]
        objective = space.objectives[0]
        scored = [(row[objective], {key: row[key] for key in keys}) for row in rows if row.get(objective) is not None]
        scored = [item for item in scored if item[1]]
        is_higher_better = OBJECTIVES[objective] == "maximize"
    ranges = {name: json.dumps(found) for name, found in plan.parameters.items()}
    scored = [(value, point) for value, point in scored if samplers.misfit(point, ranges) is None]
    if not scored:
        raise UserError(
            f"--warm-start {folder}: it has no result for a parameter of this search ({', '.join(sorted(names))})"
        )
    points = _best(scored, is_higher_better)
    said = f"the best {len(points)} settings of {folder} are tried first; its values are of other runs or data"
    return Learned(points=tuple(points), notes=(said,))


def _same_runs(info: dict[str, Any], mine: dict[str, Any]) -> bool:
    digests = ("digest", "synthetic_digest", "cross_digest")
    skipped = {*DATA_PATHS, *(key for key in mine["fixed"] if key.startswith("runtime."))}
    return (
        info["training_version"] == mine["training_version"]
        and all(info["data"].get(name) == mine["data"][name] for name in digests)
        and all(info["fixed"].get(key) == value for key, value in mine["fixed"].items() if key not in skipped)
    )


def _best(scored: Sequence[tuple[float, dict[str, Any]]], is_higher_better: bool) -> list[dict[str, Any]]:
    """The best different points."""
    points: list[dict[str, Any]] = []
    for _, point in sorted(scored, key=lambda item: item[0], reverse=is_higher_better):
        if point not in points:
            points.append(point)
    return points[:NUM_POINTS]
