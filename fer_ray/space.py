"""What a search space is: a question, what varies, its seeds. Plain data, free of Ray, Optuna and torch.

Two kinds: `Space`, a factorial design, and `Search`, whose configurations Optuna proposes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, Protocol


def folds(count: int) -> tuple[str, ...]:
    """The values of the axis `data.fold` for k-fold cross-validation.

    >>> folds(3)
    ('1/3', '2/3', '3/3')
    """
    return tuple(f"{number}/{count}" for number in range(1, count + 1))


VARIANT = "variant"
"""The axis of a design's variants, beside those that are config keys."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What both kinds of space state.

    Attributes:
        name: the file's name, as given to `--space`.
        question: the one sentence that the tables answer.
        seeds: values of `training.seed`.
        recipe: a recipe's name, whose values hold in every run.
        base: config key -> value, set in every run, on top of the recipe.
        demo: like `base`, on top of it when the sweep runs on rendered demo faces; `training.seed` may be a tuple.
        small: like `demo`, for `--small`: the same question in minutes on a laptop.
    """

    name: str
    question: str
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    demo: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Space(_Question):
    """A factorial design: every cell of the axes is trained to its end with every seed, none is stopped early.

    Attributes:
        axes: config key -> its values, e.g. `{"data.real_fraction": (0.0, 1.0)}`. The first varies slowest.
        variants: name -> config values, an axis of settings that are more than one key, told apart by name;
            VARIANT is its key, and it varies slower than the axes.
        rows, columns: the axes that tables show down and across; by default the first and the second.
        metric: the test metric the question is decided by.
    """

    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rows: str | None = None
    columns: str | None = None
    metric: str = "test_macro_f1"

    def cells(self) -> list[dict[str, Any]]:
        """One dict of config key -> value per cell, without the seeds."""
        combinations = [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]
        return [{**variant, **cell} for variant in (self.variants.values() or [{}]) for cell in combinations]


class Suggester(Protocol):
    """The part of `optuna.Trial` that a search space uses; names are config keys, or words of the space's own."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number between two bounds, evenly or (log) by its order of magnitude."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number between two bounds."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of several: None, bool, int, float or str."""


Direction = Literal["maximize", "minimize"]

OBJECTIVES: dict[str, Direction] = {
    "validation_macro_f1": "maximize",
    "validation_accuracy": "maximize",
    "validation_loss": "minimize",
    "validation_ccc": "maximize",
    "validation_mae": "minimize",
    "images_per_second": "maximize",
    "parameters": "minimize",
    "train_seconds": "minimize",
    "gpu_seconds": "minimize",
}
"""Columns of a run that a search may optimise. Never one of the test split, which would no longer be a test."""


@dataclass(frozen=True, kw_only=True)
class Search(_Question):
    """A search: configurations are proposed by Optuna, learn from each other, and bad ones may be stopped early.

    Its `seeds` are those that a proposal may be raced over: the first one for all, more while it is still in the race.

    Attributes:
        suggest: draws a proposal, define-by-run: asks an Optuna trial for values and returns config key -> value.
        trials: proposals that are trained, by default.
        known: points to begin with, as values by the names that `suggest` uses.
        objectives: columns of OBJECTIVES to optimise; with several the Pareto front is looked for.
    """

    suggest: Callable[[Suggester], Mapping[str, Any]]
    trials: int = 50
    known: tuple[Mapping[str, Any], ...] = ()
    objectives: tuple[str, ...] = ("validation_macro_f1",)
