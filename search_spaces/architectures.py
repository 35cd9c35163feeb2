"""Which network learns expressions best from scratch? The fourteen of the zoo, all with the same settings.

The settings are those of `fer_ray.config`: AdamW at 2e-3, one cycle, 20 epochs, batch 32. They suit no network best;
`learning_rate` asks which rate does. `--weights imagenet` compares pretrained networks; ResNet9, FourBlockCNN and
ResEmoteNet have no such weights, so name the others with `--models`.

Seeds: three. Metric: macro F1; `python -m fer_ray.models` prints what each network costs beside it. Cost: 42 runs, of
which ResEmoteNet and VGG19-BN take most; `--small` (one seed) half an hour on 2 CPU cores, the demo (one seed) five
minutes.
"""

from fer_ray.space import Space

SPACE = Space(
    name="architectures",
    question="Which network classifies expressions best when all are trained alike?",
    axes={
        "model.name": (
            "ResNet18",
            "ResNet34",
            "ResNet50",
            "EfficientNetB0",
            "EfficientNetV2-S",
            "MobileNetV3-Large",
            "MobileNetV3-Small",
            "ShuffleNetV2-x1.0",
            "DenseNet121",
            "ConvNeXt-Tiny",
            "VGG19-BN",
            "ResNet9",
            "FourBlockCNN",
            "ResEmoteNet",
        )
    },
    demo={
        "training.seed": (0,),
        "data.image_size": 32,
        "data.num_train_images": 480,
        "augmentation.preset": "flip",
        "training.epochs": 2,
    },
    small={"training.seed": (0,), "data.image_size": 32, "data.num_train_images": 1000, "training.epochs": 3},
)
