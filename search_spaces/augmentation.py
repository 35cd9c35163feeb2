"""Which augmentation helps? None, the systems' own, and four kinds on top of the standard one.

System B turns by 10 degrees and crops to 90 %; C turns by 20, zooms, shifts and shears; `standard` is ours. Erasing
with probability .25 as in ConvNeXt (Liu et al. 2022, arXiv:2201.03545), MixUp with alpha .2 (Zhang et al. 2018,
arXiv:1710.09412, ImageNet), CutMix with alpha 1 (Yun et al. 2019, arXiv:1905.04899). Short runs favour the weak ones,
as strong augmentation pays only once a network starts to learn its faces by heart.

Seeds: three. Metric: macro F1. Cost: 24 runs; `--small` a quarter of an hour on 2 CPU cores, the demo two minutes.
"""

from fer_ray.space import Space

SPACE = Space(
    name="augmentation",
    question="Which augmentation of the training faces helps, and how much?",
    variants={
        "none": {"augmentation.preset": "none"},
        "flip": {"augmentation.preset": "flip"},
        "system B": {"augmentation.preset": "resnet18-fer4"},
        "system C": {"augmentation.preset": "affect-multitask"},
        "standard": {"augmentation.preset": "standard"},
        "standard, erasing": {"augmentation.preset": "standard", "augmentation.erasing_probability": 0.25},
        "standard, MixUp": {"augmentation.preset": "standard", "augmentation.mixup_alpha": 0.2},
        "standard, CutMix": {"augmentation.preset": "standard", "augmentation.cutmix_alpha": 1.0},
    },
    base={"model.name": "ResNet9"},
    demo={"data.image_size": 32, "data.num_train_images": 480, "training.epochs": 3},
    small={"data.image_size": 32, "data.num_train_images": 2000, "training.epochs": 6},
)
