"""The cells of `search_grid` as a search: rate and decay are places in its lists, so that either can find the other's.

It begins as a user would, with the usual rate of each optimizer (see the space `learning_rate`), its weaker decay and
standard augmentation. One seed a proposal, as the grid has. `python -m fer_ray.bench search` runs it.
"""

from typing import Any

from fer_ray.bench.search_grid import BASE, OPTIMIZERS, PRESETS
from fer_ray.space import Search, Suggester

USUAL = {"adamw": 1e-3, "sgd": 0.1, "muon": 0.02}
"""Optimizer -> its usual learning rate."""


def suggest(trial: Suggester) -> dict[str, Any]:
    """One proposal."""
    optimizer = trial.suggest_categorical("optimizer", tuple(OPTIMIZERS))
    rates, decays = OPTIMIZERS[optimizer]
    return {
        "optimizer.name": optimizer,
        "optimizer.learning_rate": rates[trial.suggest_int(f"{optimizer}_rate", 0, len(rates) - 1)],
        "optimizer.weight_decay": decays[trial.suggest_int(f"{optimizer}_decay", 0, len(decays) - 1)],
        "augmentation.preset": trial.suggest_categorical("augmentation", PRESETS),
    }


SPACE = Search(
    name="search_space",
    question="Which optimizer, rate, weight decay and augmentation are best, of the grid's 48 settings?",
    suggest=suggest,
    known=tuple(
        {
            "optimizer": optimizer,
            f"{optimizer}_rate": OPTIMIZERS[optimizer][0].index(rate),
            f"{optimizer}_decay": 0,
            "augmentation": "standard",
        }
        for optimizer, rate in USUAL.items()
    ),
    trials=1000,
    seeds=(0,),
    objectives=("validation_accuracy",),
    base=BASE,
)
