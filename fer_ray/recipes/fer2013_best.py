"""The strongest recipes from scratch on FER2013 that two CPU cores train in an hour or two.

A narrow ResNet-9 and Muon, because dense convolutions at low resolution are what a CPU is fast at, and because
orthogonal directions learn most in few epochs. In paired runs of 8 minutes on one core, 48 pixels, one seed, PublicTest
with flips, a narrow ResNet-18 with SGD at .1 reached 42.4 %, the same with Muon 52.0 %, a ResNet of half its blocks
with SGD 47.4 % and with Muon 56.0 %, this network with Muon 56.7 %.

`fer2013-best` learns the seven classes in 38 epochs: 65.4 % on PublicTest and 67.7 % on PrivateTest in 82 minutes
on two cores (one seed). `fer4-best` learns the four merged ones of system B in 24; with 9, in 20 minutes, it reached
68.1 % on PublicTest (one seed). PrivateTest is read once at the end of a run; no choice here was made on it.
"""

from typing import Any

SEVEN: dict[str, Any] = {
    "model.name": "ResNet9",
    "model.channels": 1,
    "model.dropout": 0.2,
    "data.image_size": 48,
    "data.normalization": "image",
    "augmentation.preset": "standard",
    "augmentation.rotation_degrees": 12.0,
    "augmentation.min_crop": 0.8,
    "augmentation.shift": 0.04,
    "augmentation.erasing_probability": 0.25,
    "augmentation.test_time": "flip",
    "optimizer.name": "muon",
    "optimizer.learning_rate": 0.05,
    "optimizer.weight_decay": 5e-4,
    "optimizer.schedule": "one_cycle",
    "optimizer.warmup_fraction": 0.1,
    "training.epochs": 38,
    "training.batch_size": 128,
    "training.label_smoothing": 0.1,
    "training.max_gradient_norm": None,
    "training.selection_metric": "accuracy",
}

RECIPES: dict[str, dict[str, Any]] = {
    "fer2013-best": SEVEN,
    "fer4-best": SEVEN | {"data.label_set": "fer4", "training.epochs": 24},
}
