"""Does everything work here? One small network, two real shares, one short epoch: less than a minute on a laptop."""

from fer_ray.space import Space

SPACE = Space(
    name="smoke",
    question="Does a sweep run from faces to tables on this machine?",
    axes={"model.name": ("ShuffleNetV2-x1.0",), "data.real_fraction": (0.0, 1.0)},
    seeds=(0,),
    base={
        "data.image_size": 32,
        "data.num_train_images": 128,
        "training.epochs": 1,
    },
)
