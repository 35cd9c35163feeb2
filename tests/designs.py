"""Small designs on the tiny data set, for tests of planning and of what comes after it."""

from collections.abc import Mapping
from typing import Any

from conftest import TinyFaces

from fer_ray.space import Search, Space, Suggester
from fer_ray.tuning import planning
from fer_ray.tuning.plan import Plan

FRACTIONS, MODELS = "data.real_fraction", "model.name"
BASE = {"data.image_size": 32, "training.epochs": 1, "training.batch_size": 16}


def space(**changes: Any) -> Space:
    """Two networks, three shares, two seeds."""
    axes = {MODELS: ("ResNet18", "ShuffleNetV2-x1.0"), FRACTIONS: (0.0, 0.5, 1.0)}
    return Space(**{"name": "mine", "question": "Which?", "axes": axes, "seeds": (0, 1), "base": BASE, **changes})


def suggest(trial: Suggester) -> dict[str, Any]:
    """A rate, and a radius only with SAM."""
    values = {"optimizer.learning_rate": trial.suggest_float("rate", 1e-3, 1e-1, log=True)}
    if trial.suggest_categorical("sam", (False, True)):
        values["optimizer.sam_rho"] = trial.suggest_float("rho", 0.01, 0.5)
    return values


def search(**changes: Any) -> Search:
    """Over `suggest`."""
    base = BASE | {MODELS: "ShuffleNetV2-x1.0"}
    return Search(**{"name": "mine", "question": "Which?", "suggest": suggest, "base": base, **changes})


def sources_of(faces: TinyFaces) -> dict[str, Any]:
    """The flags that give the tiny data set."""
    return {"data.source": str(faces.real), "data.synthetic": str(faces.synthetic)}


def make(
    values: Mapping[str, Any],
    design: Space | Search | None = None,
    *,
    axes: Mapping[str, tuple] | None = None,
    seeds: tuple[int, ...] | None = None,
    small: bool = False,
) -> Plan:
    """A plan without a command line."""
    return planning.make(design or space(), values, axes=axes or {}, seeds=seeds, small=small)
