"""Does it help to train on synthetic faces, and for which network? Seven networks x five real shares.

The design of the StyleGAN2-ADA ratio study (`replace`: the number of training images stays, their origin changes).
Cost: 35 cells, with three seeds 105 trials. On rendered demo faces one seed, 35 trials, minutes on 2 CPU cores.
"""

from fer_ray.space import Space

SPACE = Space(
    name="ratios",
    question="How does the share of real faces in training change accuracy, and for which networks?",
    axes={
        "model.name": (
            "ResNet18",
            "ResNet50",
            "EfficientNetB0",
            "MobileNetV3-Large",
            "ShuffleNetV2-x1.0",
            "DenseNet121",
            "ConvNeXt-Tiny",
        ),
        "data.real_fraction": (0.0, 0.1, 0.3, 0.5, 1.0),
    },
    seeds=(0, 1, 2),
    demo={
        "training.seed": (0,),
        "data.image_size": 32,
        "data.num_train_images": 480,
        "augmentation.preset": "flip",
        "training.epochs": 2,
    },
    small={
        "training.seed": (0,),
        "data.image_size": 32,
        "data.num_train_images": 2000,
        "training.epochs": 4,
    },
)
