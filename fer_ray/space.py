"""What a search space is: a question, its axes, its seeds. Plain data, free of Ray and torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any


def folds(count: int) -> tuple[str, ...]:
    """The values of the axis `data.fold` for k-fold cross-validation.

    >>> folds(3)
    ('1/3', '2/3', '3/3')
    """
    return tuple(f"{number}/{count}" for number in range(1, count + 1))


@dataclass(frozen=True, kw_only=True)
class Space:
    """A factorial design: every cell of the axes is trained to its end with every seed.

    Attributes:
        name: the file's name, as given to `--space`.
        question: the one sentence that the tables answer.
        axes: config key -> its values, e.g. `{"data.real_fraction": (0.0, 1.0)}`. The first varies slowest.
        seeds: values of `training.seed`; every cell runs with each.
        recipe: a recipe's name, whose values hold in every cell.
        base: config key -> value, set in every cell, on top of the recipe.
        demo: like `base`, on top of it when the sweep runs on rendered demo faces; `training.seed` may be a tuple.
        small: like `demo`, for `--small`: the same question in minutes on a laptop.
        rows, columns: the axes that tables show down and across; by default the first and the second.
        metric: the test metric the question is decided by.
    """

    name: str
    question: str
    axes: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    demo: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    rows: str | None = None
    columns: str | None = None
    metric: str = "test_macro_f1"

    def cells(self) -> list[dict[str, Any]]:
        """One dict of config key -> value per cell of the axes, without the seeds."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]
