"""What a search found, as tables and sentences: proposals, importance, the best one and its neighbours, the front."""

from collections import Counter
from collections.abc import Iterable, Sequence
from shlex import quote
from typing import Any, get_args

import numpy as np
import pandas as pd

from fer_ray import results
from fer_ray.analysis.importance import MIN_PROPOSALS, Importance, comparable
from fer_ray.analysis.load import plain
from fer_ray.analysis.parameters import Parameter
from fer_ray.analysis.search import MIN_SEEDS, RECIPE, TEST_COLUMNS, Search, best, interval, rate_factors
from fer_ray.analysis.tables import MISSING, Entry, Table, number, value_text
from fer_ray.proposals import Proposal, State

STATES = {"pruned": "stopped"}
"""Optuna's word, and that of the rows."""
POPULATION = (
    "Population-based training: after each generation the worst quarter were stopped, and copies of the best quarter "
    "went on in their places, with another learning rate. A copy has its original's parameters, and its original's "
    "epochs count as its own."
)
MAX_PAIRS = 10
METHODS = (
    "PED-ANOVA: which parameters the best proposals have in common, as shares of 1. fANOVA: share of the variance over "
    "the whole space that a parameter causes alone, by a random forest. They ask different questions, and need "
    "not agree."
)


def objective_label(name: str) -> str:
    """A column as people say it.

    >>> objective_label("validation_macro_f1")
    'validation macro F1'
    """
    return name.replace("_", " ").replace("f1", "F1").replace("gpu", "GPU")


def measure(value: Any) -> str:
    """A value of an objective: shares with three decimals, seconds and counts with as many digits as matter."""
    if plain(value) is None or not np.isfinite(value):
        return MISSING
    if abs(value) < 10:
        return number(value)
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def parameter_text(value: Any, missing: str = MISSING) -> str:
    """A parameter's value in three digits; `missing` where a proposal does not have it."""
    if plain(value) is None:
        return missing
    return f"{value:.3g}" if isinstance(value, float) else value_text(plain(value))


def status_text(search: Search) -> str:
    """How many proposals and runs ended how, and how many proposals are missing. Every state is named, 0 as well."""
    states = Counter(proposal.state for proposal in search.proposals)
    counts = ", ".join(f"{states[state]} {STATES.get(state, state)}" for state in get_args(State))
    wanted = search.sweep.info.get("trials")
    missing = ""
    if wanted is not None:
        there = states["complete"] if search.is_population else len(search.proposals) - states["repeated"]
        missing = f", {max(0, wanted - there)} missing of {wanted} wanted"
    runs = Counter(search.sweep.trials["status"])
    ended = ", ".join(f"{runs[status]} {status}" for status in (results.FINISHED, results.STOPPED, results.FAILED))
    return f"{len(search.proposals)} proposals: {counts}{missing}. {len(search.sweep.trials)} runs: {ended}."


def notes(search: Search) -> list[str]:
    """What holds for all tables of a search."""
    info = search.sweep.info
    sentences = ["Rendered demo faces: these figures say nothing about real ones."] if info.get("demo") else []
    return [
        *sentences,
        status_text(search),
        f"Proposals are ranked by {objective_label(search.objectives[0])}, the mean over finished seeds, ± half the "
        f"width of its 95 % interval (Student's t over seeds; none below {MIN_SEEDS} seeds). It was measured on "
        "validation images; test figures are for information, nothing was chosen by them. A repeated proposal was "
        "answered from an earlier one and is not counted again.",
        *([POPULATION] if search.is_population else []),
    ]


def proposal_table(search: Search, frame: pd.DataFrame, limit: int | None = None) -> Table:
    """Proposals from `search.frame`, in its order; with a limit only that many of the complete ones."""
    shown = frame if limit is None else frame[frame["state"] == "complete"].head(limit)
    winner = best(search)
    title = "Proposals" if limit is None else f"The best {len(shown)} of {len(search.complete)} complete proposals"
    return Table(
        title,
        "Bold: the best of those with the most seeds.",
        notes(search),
        ("proposal", ""),
        [str(row["proposal"]) for _, row in shown.iterrows()],
        [
            *map(objective_label, search.objectives),
            "seeds",
            "epochs",
            *(["rate by generation"] if search.is_population else []),
            *([] if limit else ["state"]),
            *(p.label for p in search.parameters),
            *(objective_label(column) for column in TEST_COLUMNS),
        ],
        [
            [
                Entry(_with_interval(row, search.objectives[0]), bool(winner and row["proposal"] == winner.number)),
                *(Entry(measure(row[name])) for name in search.objectives[1:]),
                Entry(str(row["num_seeds"])),
                Entry(str(row["epochs"])),
                *([Entry(row["rate_factors"])] if search.is_population else []),
                *([] if limit else [Entry(_state_text(row))]),
                *(Entry(parameter_text(row[f"param.{p.name}"])) for p in search.parameters),
                *(Entry(measure(row[column])) for column in TEST_COLUMNS),
            ]
            for _, row in shown.iterrows()
        ],
    )


def importance_tables(search: Search, found: Sequence[Importance | None]) -> list[Table]:
    """For each objective the importance of every parameter by both methods, and the strongest interactions."""
    tables = []
    labels = {parameter.name: parameter.label for parameter in search.parameters}
    for importance in filter(None, found):
        what = f"for {objective_label(importance.objective)}"
        tables.append(
            Table(
                f"Importance {what}",
                " ".join([METHODS, *importance_notes(search, importance)]),
                [],
                ("parameter", ""),
                [labels[name] for name in importance.ped_anova],
                ["PED-ANOVA", "fANOVA"],
                [
                    [Entry(number(share)), Entry(number(importance.main.get(name, np.nan)))]
                    for name, share in importance.ped_anova.items()
                ],
            )
        )
        pairs = list(importance.pairs.items())[:MAX_PAIRS]
        if pairs:
            tables.append(
                Table(
                    f"Interactions {what}",
                    "fANOVA: share of the variance that two parameters cause together beyond what each causes alone "
                    f"(second-order Sobol' index of the same forest){_strongest(len(pairs), importance)}.",
                    [],
                    ("parameters", ""),
                    [f"{labels[a]} × {labels[b]}" for (a, b), _ in pairs],
                    ["share"],
                    [[Entry(number(share))] for _, share in pairs],
                )
            )
    return tables


def importance_notes(search: Search, importance: Importance | None) -> list[str]:
    """What the importances are, from how many proposals, and how far they can be believed; or why there are none."""
    if search.is_population:
        return ["No importances: the members of a population are copies of each other."]
    if importance is None:
        same = len(search.complete) >= MIN_PROPOSALS
        return [
            "No importances: all complete proposals have the same value."
            if same
            else f"No importances: {len(search.complete)} complete proposals, at least {MIN_PROPOSALS} are needed."
        ]
    _, conditional = comparable(search)
    sentences = [
        f"From {importance.num_proposals} complete proposals, the best {importance.num_top} against all; stopped ones "
        "are not in it.",
    ]
    if importance.main:
        sentences.append(f"R² of the forest on proposals left out of its trees: {number(importance.fit, signed=True)}.")
        if importance.fit <= 0:
            sentences.append("It predicts no better than the mean, so do not lean on fANOVA.")
    if conditional:
        names = ", ".join(parameter.label for parameter in conditional)
        sentences.append(f"fANOVA leaves out what only some proposals have: {names}.")
    return [*sentences, *(f"Optuna: {note}" for note in importance.notes)]


def neighbour_table(search: Search, centre: Proposal, near: list[tuple[float, Proposal]]) -> Table:
    """The best proposal and those nearest to it."""
    points = [(0.0, centre), *near]
    return Table(
        f"Neighbourhood of proposal {centre.number}",
        "Distance: mean over parameters of the share of the range between two values (Gower 1971).",
        [],
        ("proposal", ""),
        [str(proposal.number) for _, proposal in points],
        ["distance", *map(objective_label, search.objectives), "seeds", *(p.label for p in search.parameters)],
        [
            [
                Entry(number(apart)),
                *(Entry(measure(search.mean(proposal, k))) for k in range(len(search.objectives))),
                Entry(str(search.num_seeds(proposal))),
                *(Entry(parameter_text(proposal.params.get(p.name))) for p in search.parameters),
            ]
            for apart, proposal in points
        ],
    )


def front_table(search: Search, front: list[Proposal]) -> Table:
    """The Pareto front of several objectives."""
    goals = (
        f"{objective_label(name)} {'up' if direction == 'maximize' else 'down'}"
        for name, direction in zip(search.objectives, search.directions, strict=True)
    )
    return Table(
        f"Pareto front: {len(front)} of {len(search.complete)} complete proposals",
        f"No complete proposal is at least as good in every objective and better in one ({', '.join(goals)}).",
        [],
        ("proposal", ""),
        [str(proposal.number) for proposal in front],
        [*map(objective_label, search.objectives), "seeds", *(p.label for p in search.parameters)],
        [
            [
                *(Entry(measure(search.mean(proposal, k))) for k in range(len(search.objectives))),
                Entry(str(search.num_seeds(proposal))),
                *(Entry(parameter_text(proposal.params.get(p.name))) for p in search.parameters),
            ]
            for proposal in front
        ],
    )


def headline(search: Search) -> list[str]:
    """Sentences on the best proposal: its value, its interval over seeds, its parameters, and what to be careful of."""
    winner = best(search)
    name = objective_label(search.objectives[0])
    if winner is None:
        return [f"No proposal is complete, so there is no best one yet. {status_text(search)}"]
    seeds, span = search.num_seeds(winner), interval(search.seed_values(winner, search.objectives[0]))
    sure = (
        f"95 % t-interval over {seeds} seeds {measure(span[0])} to {measure(span[1])}"
        if span
        else f"{seeds} seed{'s' if seeds > 1 else ''}, so no interval; {MIN_SEEDS} are needed"
    )
    sentences = [
        f"Best of {len(search.complete)} complete proposals: number {winner.number}, {name} "
        f"{measure(search.mean(winner))} ({sure}).",
        f"It has {point_text(search.parameters, winner)}.",
    ]
    if search.is_population:
        factors = " ".join(f"{factor:g}" for factor in rate_factors(winner))
        sentences.append(f"Its learning rate by generation, as factors of its own: {factors}.")
    higher = [p for p in search.complete if search.loss(p) < search.loss(winner)]
    if higher:
        top = min(higher, key=search.loss)
        sentences.append(
            f"Better means over fewer seeds, which may be luck: {len(higher)}, the best of them number {top.number} "
            f"({measure(search.mean(top))}, seeds: {search.num_seeds(top)})."
        )
    return [*sentences, "It was chosen by these seeds, so its value is flattering; a fresh seed is a fair judge."]


def recipe_command(search: Search) -> str:
    """The command that runs the best configuration with a seed that no proposal has had."""
    return (
        f"python -m fer_ray.train --recipe {quote(str(search.sweep.root / RECIPE))} --seed {_fresh(search)} "
        f"--out {quote(f'{search.sweep.root}-best')}"
    )


def point_text(space: Iterable[Parameter], proposal: Proposal) -> str:
    """A proposal's parameters in words."""
    return ", ".join(f"{p.label} {parameter_text(proposal.params[p.name])}" for p in space if p.name in proposal.params)


def _fresh(search: Search) -> int:
    return max(run.seed for proposal in search.proposals for run in proposal.runs) + 1


def _strongest(shown: int, importance: Importance) -> str:
    return f"; the strongest {shown} of {len(importance.pairs)} pairs" if shown < len(importance.pairs) else ""


def _with_interval(row: pd.Series, objective: str) -> str:
    half = "" if plain(row["low"]) is None else f" ±{measure((row['high'] - row['low']) / 2)}"
    return measure(row[objective]) + half


def _state_text(row: pd.Series) -> str:
    if row["state"] == "repeated":
        return f"repeats {row['repeats']}"
    if row["state"] == "pruned" and plain(row["last_value"]) is not None:
        return f"stopped at {measure(row['last_value'])}"
    return STATES.get(row["state"], row["state"])
