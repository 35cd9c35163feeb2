"""Optuna's samplers by name, and what a search space proposes."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution

from fer_ray.config import RunConfig
from fer_ray.errors import UserError, nearest
from fer_ray.space import OBJECTIVES, Direction, Search

SAMPLERS = ("tpe", "gp", "nsga2", "random")

NUM_EXAMPLES = 64
"""Proposals drawn at random before a search, which show what it will ask for."""

NUM_RANDOM = 5
"""Results that TPE and GP wait for before they model anything; Optuna's own 10 are most of a search of FER networks.

Played 200 times each on the 48 known curves of `bench search`, with a quarter of its epochs and from the same three
known points, TPE + ASHA ended at one of the two best cells in 94 % of the plays after 5 and in 82 % after 10.
"""

NOT_PROPOSED = ("training.seed", "data.source", "data.synthetic", "data.test_source")


@dataclass(frozen=True)
class Point:
    """What a space made of an Optuna trial: `params` and `distributions` (JSON) by its own names, and the config."""

    params: dict[str, Any]
    distributions: dict[str, str]
    values: dict[str, Any]
    config: RunConfig


def build(name: str, seed: int, num_objectives: int) -> optuna.samplers.BaseSampler:
    """A sampler: TPE (Bergstra 2011; multivariate, grouped by branch), GP, NSGA-II (Deb 2002) or random.

    Running proposals count as bad ones for TPE, so that trials at once are not all alike.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of grouping, years old by now
    if name == "tpe":
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=NUM_RANDOM, seed=seed
        )
    if name == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=NUM_RANDOM, seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(10, 5 * num_objectives))
    return optuna.samplers.RandomSampler(seed=seed)


def propose(space: Search, base: RunConfig, trial: optuna.Trial) -> Point:
    """Asks a space what an Optuna trial stands for.

    Raises UserError when the space's function fails, or gives what is no config.
    """
    try:
        values = space.suggest(trial)
    except Exception as error:  # a user's own code may raise anything
        raise UserError(f"space {space.name}: suggest failed: {type(error).__name__}: {error}") from error
    if not isinstance(values, Mapping):
        raise UserError(f"space {space.name}: suggest returned {values!r}, expected config key -> value")
    if found := values.keys() & set(NOT_PROPOSED):
        raise UserError(f"space {space.name}: suggest gave {', '.join(sorted(found))}, which a search does not vary")
    try:
        config = base.replace(values)
    except UserError as error:
        raise UserError(f"space {space.name}: suggest gave a value that is none: {error}") from error
    distributions = {name: distribution_to_json(found) for name, found in trial.distributions.items()}
    return Point(dict(trial.params), distributions, dict(values), config)


def examples(space: Search, base: RunConfig, seed: int = 0) -> list[Point]:
    """Points drawn at random, the space's known ones first. Raises UserError as `propose`, or for a known point that
    the space does not take.
    """
    study = optuna.create_study(sampler=build("random", seed, 1))
    for known in space.known:
        study.enqueue_trial(dict(known))
    points = [propose(space, base, study.ask()) for _ in range(len(space.known) + NUM_EXAMPLES)]
    for wanted, point in zip(space.known, points, strict=False):
        for name, value in wanted.items():
            if point.params.get(name) != value:
                got = point.params.get(name, "no such parameter there")
                raise UserError(
                    f"space {space.name}: known point {dict(wanted)}: {name}={value!r} is not taken ({got})"
                )
        if (reason := misfit(point.params, point.distributions)) is not None:
            raise UserError(f"space {space.name}: known point {dict(wanted)}: {reason}")
    return points


def misfit(params: Mapping[str, Any], distributions: Mapping[str, str]) -> str | None:
    """Why one of these values is none of its distribution (JSON), if so; Optuna itself takes it with a warning."""
    ranges = {name: json_to_distribution(distributions[name]) for name in params}
    try:
        optuna.trial.create_trial(value=0.0, params=dict(params), distributions=ranges)
    except ValueError as error:
        return str(error)
    return None


def parameters(points: Sequence[Point]) -> dict[str, Any]:
    """Name -> distribution (JSON object), of all that these points were asked for."""
    found: dict[str, str] = {}
    for point in points:
        found |= point.distributions
    return {name: json.loads(found[name]) for name in sorted(found)}


def directions(objectives: Sequence[str]) -> list[Direction]:
    """Optuna's "maximize" or "minimize" of each objective."""
    return [OBJECTIVES[name] for name in objectives]


def check_objectives(names: Sequence[str]) -> None:
    """Raises UserError for a name that is no objective."""
    for name in names:
        if name not in OBJECTIVES:
            hint = " (the test split is not for choosing)" if name.startswith("test") else nearest(name, OBJECTIVES)
            raise UserError(f"--objectives: {name!r} is none{hint}; there are {', '.join(OBJECTIVES)}")
