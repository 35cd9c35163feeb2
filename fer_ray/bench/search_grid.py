"""How good is a grid of 48 cells? Three optimizers x four rates x two weight decays x with or without augmentation.

The grid that `python -m fer_ray.bench search` holds a search against, fixed before anything was run on it. Rates are
spread about each optimizer's usual one (see the space `learning_rate`), weight decay is the usual one and ten times as
much. A small network, since 48 runs are to be done in minutes: 48 x 6 epochs of 2,048 faces at 32 pixels, one seed.

Metric: accuracy on PublicTest, which scatters less over seeds than macro F1 with its 55 disgusted faces.
"""

from typing import Any

from fer_ray.space import VARIANT, Space

OPTIMIZERS: dict[str, tuple[tuple[float, ...], tuple[float, float]]] = {
    "adamw": ((5e-4, 1e-3, 2e-3, 4e-3), (0.02, 0.2)),
    "sgd": ((0.02, 0.05, 0.1, 0.2), (5e-4, 5e-3)),
    "muon": ((0.01, 0.02, 0.05, 0.1), (5e-4, 5e-3)),
}
"""Name -> learning rates, weight decays."""

PRESETS = ("none", "standard")

BASE: dict[str, Any] = {
    "model.name": "FourBlockCNN",
    "model.channels": 1,
    "data.image_size": 32,
    "data.num_train_images": 2048,
    "optimizer.warmup_fraction": 0.1,
    "training.epochs": 6,
    "training.batch_size": 64,
    "training.selection_metric": "accuracy",
}

SPACE = Space(
    name="search_grid",
    question="Which optimizer, rate, weight decay and augmentation are best, of 48 settings?",
    variants={
        f"{optimizer} {rate:g}, decay {decay:g}": {
            "optimizer.name": optimizer,
            "optimizer.learning_rate": rate,
            "optimizer.weight_decay": decay,
        }
        for optimizer, (rates, decays) in OPTIMIZERS.items()
        for rate in rates
        for decay in decays
    },
    axes={"augmentation.preset": PRESETS},
    rows=VARIANT,
    columns="augmentation.preset",
    seeds=(0,),
    base=BASE,
    metric="test_accuracy",
)
