"""Does sharpness-aware minimisation help, over which base optimizer, and at which radius? Two optimizers x five radii.

Radius 0 is the base optimizer alone. The others are those that Foret et al. (2021, arXiv:2010.01412) tried, .05 being
their choice and that of the thesis (system A), without the ends of their range. SGD takes the rate and weight decay of
their CIFAR runs, .1 and 5e-4; AdamW those of `fer_ray.config`. SAM takes two passes a step: at equal epochs its runs
cost twice the base's, which the table of costs shows.

Seeds: three. Metric: macro F1. Cost: 30 runs worth 54; `--small` half an hour on 2 CPU cores, the demo three minutes.
"""

from fer_ray.space import VARIANT, Space

SPACE = Space(
    name="sam_rho",
    question="Does sharpness-aware minimisation help, over which optimizer, and at which radius?",
    variants={
        "AdamW": {"optimizer.name": "adamw", "optimizer.learning_rate": 2e-3, "optimizer.weight_decay": 0.02},
        "SGD": {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "optimizer.weight_decay": 5e-4},
    },
    axes={"optimizer.sam_rho": (0.0, 0.02, 0.05, 0.1, 0.2)},
    rows=VARIANT,
    columns="optimizer.sam_rho",
    base={"model.name": "ResNet9", "training.batch_size": 128},
    demo={
        "model.name": "FourBlockCNN",
        "data.image_size": 32,
        "data.num_train_images": 480,
        "training.batch_size": 32,
        "training.epochs": 3,
    },
    small={"data.image_size": 32, "data.num_train_images": 2000, "training.batch_size": 32, "training.epochs": 4},
)
