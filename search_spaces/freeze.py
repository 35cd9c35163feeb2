"""What should be trained when: the head alone, the head and then more, or all layers from the start? Seven schedules.

Three are systems' own: A's `head 3, all 6` and C's `head 30, all 10`, each from 1e-3 down to 1e-4, and D's `head 30,
last-30 20` with a tenth of the rate. Beside them the head alone, the last block with the head, and all layers at the
rate of either phase. Shares are of `training.epochs`, so that all cells see equally many images.

Pretrained weights are what makes freezing worth asking about: give `--weights imagenet` or a file. From scratch it
works as well, and shows what features nobody trained are worth. `from-layer4` is a block of ResNets; the others fit any
network. Faces come flipped or not, as two fixed views of each, so that phases of the head alone take the backbone's
features from the cache.

Seeds: three. Metric: macro F1. Cost: 21 runs; `--small` 20 minutes on 2 CPU cores, the demo four minutes.
"""

from fer_ray.space import Space

SPACE = Space(
    name="freeze",
    question="Which layers should be trained when, the head first or all from the start?",
    axes={
        "training.phases": (
            "head 1",
            "head 3, all 6 x0.1",
            "head 30, all 10 x0.1",
            "head 30, last-30 20 x0.1",
            "from-layer4 1",
            "all 1",
            "all 1 x0.1",
        )
    },
    base={
        "model.name": "ResNet18",
        "optimizer.learning_rate": 1e-3,
        "augmentation.preset": "flip",
        "augmentation.views": 2,
    },
    demo={"data.image_size": 32, "data.num_train_images": 480, "training.epochs": 3},
    small={"data.image_size": 32, "data.num_train_images": 1000, "training.epochs": 4},
)
