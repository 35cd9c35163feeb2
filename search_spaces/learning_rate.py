"""Which learning rate suits which optimizer, and how much does a wrong one cost? Three optimizers x six rates.

Half decades from 3e-4 to .1 hold the usual rates of all three: AdamW 1e-3 (Kingma and Ba 2015, arXiv:1412.6980;
systems B and C), SGD .1 (He et al. 2016, arXiv:1512.03385), Muon .02 (Jordan 2024) to .05 (`fer2013-best`). Weight
decay is each one's own: decoupled and .02 in AdamW, 5e-4 in SGD and Muon, where it is part of the gradient. Batch 128,
as rates of SGD are given for 128 to 256. Another network, `--models ConvNeXt-Tiny`, will have another best rate.

Seeds: three. Metric: macro F1. Cost: 54 runs; `--small` half an hour on 2 CPU cores, the demo three minutes.
"""

from fer_ray.space import VARIANT, Space

SPACE = Space(
    name="learning_rate",
    question="Which learning rate suits which optimizer, and what does a wrong one cost?",
    variants={
        "AdamW": {"optimizer.name": "adamw", "optimizer.weight_decay": 0.02},
        "SGD": {"optimizer.name": "sgd", "optimizer.weight_decay": 5e-4},
        "Muon": {"optimizer.name": "muon", "optimizer.weight_decay": 5e-4},
    },
    axes={"optimizer.learning_rate": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
    rows=VARIANT,
    columns="optimizer.learning_rate",
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
