"""The ranges of `search_grid` as a search: the same runs, with rates and decays from anywhere between its ends.

One seed a proposal, as the grid has. `python -m fer_ray.bench search` runs it.
"""

from typing import Any

from fer_ray.bench.search_grid import BASE, OPTIMIZERS, PRESETS
from fer_ray.space import Search, Suggester


def suggest(trial: Suggester) -> dict[str, Any]:
    """One proposal."""
    optimizer = trial.suggest_categorical("optimizer", tuple(OPTIMIZERS))
    rates, decays = OPTIMIZERS[optimizer]
    return {
        "optimizer.name": optimizer,
        "optimizer.learning_rate": trial.suggest_float(f"{optimizer}_learning_rate", rates[0], rates[-1], log=True),
        "optimizer.weight_decay": trial.suggest_float(f"{optimizer}_weight_decay", decays[0], decays[-1], log=True),
        "augmentation.preset": trial.suggest_categorical("augmentation", PRESETS),
    }


SPACE = Search(
    name="search_space",
    question="Which optimizer, rate, weight decay and augmentation are best, within the ranges of the grid?",
    suggest=suggest,
    trials=1000,
    seeds=(0,),
    objectives=("validation_accuracy",),
    base=BASE,
)
