"""Which optimizer, learning rate, SAM radius, freeze schedule and share of real faces are best together? A search.

    optimizer      AdamW, SGD or Muon, each with a rate of its own, by order of magnitude: a factor of 10 or more about
                   the usual one (see `learning_rate`), and with its usual weight decay
    SAM            or not; only with it a radius from .01 to .5, the range of Foret et al. (2021, arXiv:2010.01412)
    freezing       or not; only with it a schedule, that of system A, C or D
    real faces     10 to 100 %, in tens, so that a proposal can come again and is then answered from the results

It begins with three known points: AdamW as in `fer_ray.config`, the same with SAM at .05 (Foret et al.; system A), and
Muon as in `fer2013-best`. Give `--weights imagenet`, since with random weights it can only find that freezing is bad;
and where there are no synthetic faces `--mixing real_only`, which makes the share one of the real faces alone.

Seeds: a proposal is tried with the first, and those still in the race with up to five. Objective: validation macro F1;
the test split is read for finished runs alone. Cost: 50 proposals, by default about as many runs as `ratios`; `--small`
an hour on 2 CPU cores, the demo ten minutes.
"""

from typing import Any

from fer_ray.space import Search, Suggester

OPTIMIZERS: dict[str, tuple[float, float, float]] = {
    "adamw": (3e-4, 1e-2, 0.02),
    "sgd": (1e-2, 3e-1, 5e-4),
    "muon": (5e-3, 2e-1, 5e-4),
}
"""Name -> lowest and highest learning rate, weight decay."""

SCHEDULES = ("head 3, all 6 x0.1", "head 30, all 10 x0.1", "head 30, last-30 20 x0.1")


def suggest(trial: Suggester) -> dict[str, Any]:
    """One proposal."""
    optimizer = trial.suggest_categorical("optimizer", tuple(OPTIMIZERS))
    low, high, weight_decay = OPTIMIZERS[optimizer]
    values = {
        "optimizer.name": optimizer,
        "optimizer.learning_rate": trial.suggest_float(f"{optimizer}_learning_rate", low, high, log=True),
        "optimizer.weight_decay": weight_decay,
        "data.real_fraction": trial.suggest_int("real_percent", 10, 100, step=10) / 100,
    }
    if trial.suggest_categorical("sam", (False, True)):
        values["optimizer.sam_rho"] = trial.suggest_float("sam_rho", 0.01, 0.5, log=True)
    if trial.suggest_categorical("freezing", (False, True)):
        values["training.phases"] = trial.suggest_categorical("phases", SCHEDULES)
    return values


ADAMW = {"optimizer": "adamw", "adamw_learning_rate": 2e-3, "real_percent": 100, "sam": False, "freezing": False}

SPACE = Search(
    name="hpo",
    question="Which optimizer, learning rate, SAM radius, freeze schedule and share of real faces are best together?",
    suggest=suggest,
    known=(
        ADAMW,
        ADAMW | {"sam": True, "sam_rho": 0.05},
        {"optimizer": "muon", "muon_learning_rate": 0.05, "real_percent": 100, "sam": False, "freezing": False},
    ),
    seeds=(0, 1, 2, 3, 4),
    base={"model.name": "ResNet18", "augmentation.preset": "flip", "augmentation.views": 2},
    demo={
        "model.name": "ShuffleNetV2-x1.0",
        "data.image_size": 32,
        "data.num_train_images": 480,
        "training.epochs": 4,
    },
    small={
        "model.name": "ShuffleNetV2-x1.0",
        "data.image_size": 32,
        "data.num_train_images": 2000,
        "training.epochs": 4,
    },
)
