"""The parameters of a search: their bounds and choices, read from what each proposal's values were drawn from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.analysis.tables import axis_label
from fer_ray.proposals import Proposal


@dataclass(frozen=True)
class Parameter:
    """One parameter over all proposals of a search.

    Attributes:
        name: as the space asked for it.
        label: how people say it; unlike that of any other parameter.
        low, high: bounds of a number, the widest of all proposals; of a choice 0 and the last one's place.
        is_log: whether it was drawn by its order of magnitude.
        step: distance of the values of a number that has only some; else None.
        choices: the values of a choice; of a number none.
        is_conditional: whether some proposals do not have it.
    """

    name: str
    label: str
    low: float
    high: float
    is_log: bool
    step: float | None
    choices: tuple[Any, ...]
    is_conditional: bool

    @property
    def varies(self) -> bool:
        """Whether it has more than one value."""
        return self.high > self.low

    @property
    def num_values(self) -> int | None:
        """How many values it can take; None for a continuous one."""
        if self.choices:
            return len(self.choices)
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def position(self, value: Any) -> float:
        """Where a value stands between the bounds, 0 to 1, on the scale it was drawn on; a choice by its place."""
        place = float(self.choices.index(value) if self.choices else value)
        if not self.varies:
            return 0.5
        low, high, place = (log(x) if self.is_log else x for x in (self.low, self.high, place))
        return (place - low) / (high - low)

    def encode(self, positions: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Positions float[n] as columns for a model, float[n, 1]; of a choice float[n, choices], one-hot."""
        if not self.choices:
            return positions[:, None]
        return np.eye(len(self.choices))[np.rint(positions * (len(self.choices) - 1)).astype(int)]

    def draw(self, uniform: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Positions float[n] of values drawn evenly, from numbers float[n] in [0, 1)."""
        if self.num_values is None or self.num_values == 1:
            return uniform
        return np.floor(uniform * self.num_values) / (self.num_values - 1)


def parameters(proposals: Iterable[Proposal]) -> list[Parameter]:
    """The parameters of all proposals, in the order in which they were first asked for."""
    from optuna.distributions import BaseDistribution, json_to_distribution

    proposals = list(proposals)
    drawn: dict[str, dict[str, BaseDistribution]] = {}
    for proposal in proposals:
        for name, text in proposal.distributions.items():
            drawn.setdefault(name, {}).setdefault(text, json_to_distribution(text))
    labels = {name: axis_label(name) for name in drawn}
    shared = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    return [
        _parameter(
            name,
            name if labels[name] in shared else labels[name],
            list(found.values()),
            any(name not in proposal.params for proposal in proposals),
        )
        for name, found in drawn.items()
    ]


def distance(space: Iterable[Parameter], first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Gower's distance (1971) of two points, 0 to 1: the mean over the parameters that at least one of them has.

    Numbers differ by the share of their range between them, on the scale they were drawn on; choices by 0 or 1, and
    so does a parameter that only one of the two has.
    """
    parts = []
    for parameter in space:
        has = [parameter.name in point for point in (first, second)]
        if all(has):
            a, b = (point[parameter.name] for point in (first, second))
            apart = float(a != b) if parameter.choices else abs(parameter.position(a) - parameter.position(b))
            parts.append(apart)
        elif any(has):
            parts.append(1.0)
    return sum(parts) / len(parts) if parts else 0.0


def _parameter(name: str, label: str, drawn: list[Any], is_conditional: bool) -> Parameter:
    choices = tuple(dict.fromkeys(choice for found in drawn for choice in getattr(found, "choices", ())))
    if choices:
        return Parameter(name, label, 0, len(choices) - 1, False, None, choices, is_conditional)
    low, high = min(found.low for found in drawn), max(found.high for found in drawn)
    is_log = drawn[0].log
    return Parameter(name, label, low, high, is_log, None if is_log else drawn[0].step, (), is_conditional)
