"""A results folder as a search: its proposals, how they rank, which is best, what lies near it, the Pareto front."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from fer_ray import results
from fer_ray.analysis.load import SEED, plain
from fer_ray.analysis.parameters import Parameter, distance, parameters
from fer_ray.analysis.stats import LEVEL
from fer_ray.errors import UserError
from fer_ray.phases import parse_phases
from fer_ray.proposals import Proposal, read_proposals
from fer_ray.space import Direction

MIN_SEEDS = 3
"""Fewer seeds say too little of their spread for an interval."""
NEIGHBOURS = 5
TEST_COLUMNS = ("test_accuracy", "test_macro_f1")
RECIPE = "best_recipe.json"


@dataclass(frozen=True)
class Search:
    """The files of a search.

    Attributes:
        sweep: rows and epochs of its runs, and sweep.json.
        proposals: by number.
        objectives: columns of the rows that were optimised; the first one ranks.
        directions: of each.
    """

    sweep: results.Sweep
    proposals: list[Proposal]
    objectives: tuple[str, ...]
    directions: tuple[Direction, ...]

    @property
    def is_population(self) -> bool:
        """Whether its proposals are members of a population, and copies of them."""
        return self.sweep.info.get("scheduler") == "pbt"

    @cached_property
    def parameters(self) -> list[Parameter]:
        """What was searched over."""
        return parameters(self.proposals)

    @cached_property
    def complete(self) -> list[Proposal]:
        """The proposals that went to the end with a value for every objective; repetitions are not counted twice."""
        return [p for p in self.proposals if p.state == "complete" and None not in (p.values or (None,))]

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Run id -> its row."""
        return {str(row["id"]): {str(k): v for k, v in row.items()} for _, row in self.sweep.trials.iterrows()}

    def mean(self, proposal: Proposal, objective: int = 0) -> float:
        """An objective of a complete proposal, over its seeds."""
        assert proposal.values is not None
        value = proposal.values[objective]
        assert value is not None
        return value

    def loss(self, proposal: Proposal, objective: int = 0) -> float:
        """The same, turned so that less is better."""
        return self.mean(proposal, objective) * (-1 if self.directions[objective] == "maximize" else 1)

    def seed_values(self, proposal: Proposal, column: str) -> list[float]:
        """A column of the rows of a proposal's finished runs, where it is defined, in the order of its seeds."""
        rows = (self.rows.get(run.id, {}) for run in proposal.runs if run.status == results.FINISHED)
        return [float(row[column]) for row in rows if plain(row.get(column)) is not None]

    def num_seeds(self, proposal: Proposal) -> int:
        """How many of its runs finished."""
        return sum(run.status == results.FINISHED for run in proposal.runs)


def read_search(root: str | Path) -> Search:
    """Reads the folder of a search. Raises UserError when it is missing, damaged or has no run yet."""
    sweep = results.load(root)
    missing = [key for key in ("objectives", "directions") if not sweep.info.get(key)]
    if missing:
        raise UserError(f"{sweep.root / 'sweep.json'}: of a search, but without {' and '.join(missing)}")
    proposals = read_proposals(sweep.root)
    if not proposals:
        raise UserError(f"{sweep.root}: of a search, but without proposals/; copy the whole folder")
    return Search(sweep, proposals, tuple(sweep.info["objectives"]), tuple(sweep.info["directions"]))


def rate_factors(proposal: Proposal) -> list[float]:
    """The factors of a proposal's learning rate, one per phase: of a member of a population, per generation."""
    return [phase.factor for phase in parse_phases(proposal.config.get("training.phases"))]


def interval(values: list[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean over seeds; None below MIN_SEEDS."""
    if len(values) < MIN_SEEDS:
        return None
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def frame(search: Search) -> pd.DataFrame:
    """A row per proposal: complete ones by the first objective, best first, then the others by number.

    Columns: `proposal`, `state`, `source`, `repeats`, each objective (the mean over finished seeds), `low` and `high`
    (95 % t-interval of the first), `num_seeds`, `epochs` (of all its runs), `rate_factors` (of a population:
    `rate_factors`, spaces between), `last_value` (of a stopped one: the first
    objective at its last epoch), `param.<name>`, the mean of each of TEST_COLUMNS over finished seeds, `reason`.
    """
    epochs = Counter(search.sweep.epochs["id"].astype(str))
    order = sorted(search.complete, key=lambda p: (search.loss(p), p.number))
    done = {proposal.number for proposal in order}
    records = []
    for proposal in [*order, *(p for p in search.proposals if p.number not in done)]:
        values = proposal.values or [None] * len(search.objectives)
        low, high = interval(search.seed_values(proposal, search.objectives[0])) or (None, None)
        known = {epoch: value for epoch, value in proposal.intermediate.items() if value is not None}
        tested = {column: search.seed_values(proposal, column) for column in TEST_COLUMNS}
        records.append(
            {
                "proposal": proposal.number,
                "state": proposal.state,
                "source": proposal.source,
                "repeats": proposal.repeats,
                **dict(zip(search.objectives, values, strict=True)),
                "low": low,
                "high": high,
                "num_seeds": search.num_seeds(proposal),
                "epochs": sum(epochs[run.id] for run in proposal.runs),
                "rate_factors": " ".join(f"{f:g}" for f in rate_factors(proposal)) if search.is_population else None,
                "last_value": known[max(known)] if known and proposal.state == "pruned" else None,
                **{f"param.{p.name}": proposal.params.get(p.name) for p in search.parameters},
                **{column: float(np.mean(found)) if found else None for column, found in tested.items()},
                "reason": proposal.reason,
            }
        )
    return pd.DataFrame(records).astype({"repeats": "Int64"})


def best(search: Search) -> Proposal | None:
    """The best mean of the first objective among the complete proposals with the most finished seeds.

    In a race over seeds only the proposals that stayed in it have the most, so one lucky seed does not win.
    None without a complete proposal.
    """
    most = max(map(search.num_seeds, search.complete), default=0)
    raced = [proposal for proposal in search.complete if search.num_seeds(proposal) == most]
    return min(raced, key=lambda p: (search.loss(p), p.number), default=None)


def neighbours(search: Search, proposal: Proposal) -> list[tuple[float, Proposal]]:
    """The NEIGHBOURS complete proposals nearest to one, with their distance (`parameters.distance`), nearest first."""
    others = (other for other in search.complete if other.number != proposal.number)
    found = [(distance(search.parameters, proposal.params, other.params), other) for other in others]
    return sorted(found, key=lambda pair: (pair[0], pair[1].number))[:NEIGHBOURS]


def front(search: Search) -> list[Proposal]:
    """The complete proposals that none other equals or betters in every objective and betters in one (Pareto front).

    Sorted by the first objective, best first.
    """
    losses = np.array([[search.loss(p, k) for k in range(len(search.objectives))] for p in search.complete])
    kept = [
        proposal
        for proposal, loss in zip(search.complete, losses, strict=True)
        if not ((losses <= loss).all(axis=1) & (losses < loss).any(axis=1)).any()
    ]
    return sorted(kept, key=lambda p: (search.loss(p), p.number))


def recipe(search: Search, proposal: Proposal) -> dict[str, Any]:
    """The proposal's config as flat keys, for `fer_ray.train --recipe`: without the seed, and without what belongs to
    the machine it ran on.
    """
    config = {**search.sweep.info.get("fixed", {}), **proposal.config}
    return {key: value for key, value in config.items() if key != SEED and not key.startswith("runtime.")}
