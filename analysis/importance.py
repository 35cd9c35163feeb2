"""Which parameters mattered in a search, and which of them together. No two methods agree, so each is named.

PED-ANOVA (Watanabe, Bansal, Hutter 2023; for conditional parameters, 2026) asks which parameters the best proposals
have in common: how far the density of the top proposals is from that of all, as shares of 1. It is Optuna's.

fANOVA (Hutter, Hoos, Leyton-Brown 2014) asks what explains the objective over the whole space: the variance of a
random forest's prediction that one parameter causes, and that two cause together beyond their own. Optuna's has no
pairs, spreads a parameter that is searched by its order of magnitude evenly over its bounds, and averages a choice over
points that are two of its values or none; so the decomposition is estimated here, as Sobol' indices of the forest, on
the scale that was searched.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from fer_ray.analysis.parameters import Parameter
from fer_ray.analysis.search import Search
from fer_ray.proposals import study_of

MIN_PROPOSALS = 10
"""Fewer complete proposals than this rank parameters by luck."""
MIN_TOP = 5
"""Proposals that count as the top at least; Optuna's advice for PED-ANOVA."""
TOP_SHARE = 0.1
TREES = 64
LOG2_POINTS = 12
"""4,096 points: indices are good to about .01."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Importance:
    """How much parameters mattered to one objective.

    Attributes:
        objective: the column.
        num_proposals: complete proposals it is from.
        num_top: how many of them PED-ANOVA takes as the top.
        ped_anova: parameter -> share, all of them 1 together; largest first. Conditional ones are in it.
        main: parameter -> share of the forest's variance that it causes alone; of parameters that all proposals have.
        pairs: two of these -> share that they cause beyond both alone.
        fit: R2 of the forest on proposals it was not grown on (out of bag); from 0 down it has learned nothing.
        notes: what Optuna warned of.
    """

    objective: str
    num_proposals: int
    num_top: int
    ped_anova: dict[str, float]
    main: dict[str, float]
    pairs: dict[tuple[str, str], float]
    fit: float
    notes: tuple[str, ...]


def assess(search: Search, objective: int = 0) -> Importance | None:
    """Importances for one objective; None under MIN_PROPOSALS, where all of them have the same value, and of a
    population, whose members are copies of each other.
    """
    values = np.array([search.loss(proposal, objective) for proposal in search.complete])
    if search.is_population or len(values) < MIN_PROPOSALS or np.ptp(values) == 0:
        return None
    shared, _ = comparable(search)
    main, pairs, fit = _decompose(search, shared, values)
    num_top = max(MIN_TOP, int(np.ceil(TOP_SHARE * len(values))))
    found, notes = _ped_anova(search, objective, num_top / len(values))
    return Importance(search.objectives[objective], len(values), num_top, found, main, pairs, fit, notes)


def comparable(search: Search) -> tuple[list[Parameter], list[Parameter]]:
    """The parameters that vary, as those that every complete proposal has, and those of some branches only."""
    varied = [parameter for parameter in search.parameters if parameter.varies]
    shared = [p for p in varied if all(p.name in proposal.params for proposal in search.complete)]
    return shared, [parameter for parameter in varied if parameter not in shared]


def sobol_indices(
    model: Callable[[Floats], Floats], dimensions: int
) -> tuple[dict[int, float], dict[tuple[int, int], float]]:
    """First- and second-order Sobol' indices of a function of numbers that are spread evenly over [0, 1).

    Pick and freeze: points of which some columns are kept and the others drawn again covary by the variance that the
    kept columns cause (Sobol' 1993; estimator of Saltelli et al. 2010). `model` maps float[n, dimensions] to float[n].

    Returns:
        Column -> share of the variance it causes alone; two columns -> the share they cause beyond both. Shares below
        0, by the estimate's error, are 0. A constant function has none.
    """
    from scipy.stats import qmc

    both = qmc.Sobol(2 * dimensions, scramble=False).random_base2(LOG2_POINTS)
    first, second = both[:, :dimensions], both[:, dimensions:]
    at_first, at_second = model(first), model(second)
    centre = float(np.mean([at_first, at_second]))
    variance = float(np.var([at_first, at_second]))
    if variance == 0:
        return {}, {}

    def closed(columns: Sequence[int]) -> float:
        mixed = second.copy()
        mixed[:, columns] = first[:, columns]
        return float(np.mean((at_first - centre) * (model(mixed) - at_second)) / variance)

    alone = {j: closed([j]) for j in range(dimensions)}
    pairs = {(j, k): max(0.0, closed([j, k]) - alone[j] - alone[k]) for j, k in combinations(range(dimensions), 2)}
    return {j: max(0.0, share) for j, share in alone.items()}, pairs


def _decompose(
    search: Search, shared: list[Parameter], values: Floats
) -> tuple[dict[str, float], dict[tuple[str, str], float], float]:
    from sklearn.ensemble import RandomForestRegressor

    if not shared:
        return {}, {}, float("nan")

    def columns(positions: Floats) -> Floats:
        return np.hstack([p.encode(positions[:, place]) for place, p in enumerate(shared)])

    positions = np.array([[p.position(proposal.params[p.name]) for p in shared] for proposal in search.complete])
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=0).fit(columns(positions), values)

    def predict(uniform: Floats) -> Floats:
        drawn = np.stack([p.draw(uniform[:, place]) for place, p in enumerate(shared)], axis=1)
        return forest.predict(columns(drawn))

    alone, pairs = sobol_indices(predict, len(shared))
    names = [parameter.name for parameter in shared]
    main = {names[j]: share for j, share in sorted(alone.items(), key=lambda item: -item[1])}
    together = {(names[j], names[k]): share for (j, k), share in sorted(pairs.items(), key=lambda item: -item[1])}
    return main, together, float(forest.oob_score_)


def _ped_anova(search: Search, objective: int, top: float) -> tuple[dict[str, float], tuple[str, ...]]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    alone = [replace(proposal, values=[search.mean(proposal, objective)]) for proposal in search.complete]
    study = study_of(alone, [search.directions[objective]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top))
    return found, tuple(dict.fromkeys(str(warning.message) for warning in caught))
