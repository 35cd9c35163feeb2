"""Do synthetic faces help, or is it the number of real ones that counts? Three ways to mix x three real shares.

`replace` keeps the number N of training images and changes their origin; `real_only` takes the same real faces and
nothing in the place of the others; `add` takes N real faces and synthetic ones on top. All see equally many images in
training. What synthetic faces are worth is `replace` against `real_only` at one share, and `add` against share 1.

The shares .3, .5 and 1 are the ratio study's. Its .1 would ask `add` for nine synthetic faces to each real one, and N,
the same in all cells, shrinks to what that leaves; give `--fractions .1,.3,.5,1` where there are as many. A share of 0
is a set without faces in `add` and `real_only`, and is left out of this space whoever asks for it. At share 1 the three
are the same training set: these cells must come out equal.

Seeds: three. Metric: macro F1 on real test faces. Cost: 27 runs; `--small` a quarter of an hour on 2 CPU cores, the
demo two minutes.
"""

from fer_ray.space import Space

SPACE = Space(
    name="ratio_controls",
    question="Do synthetic faces help, or is it the number of real ones that counts?",
    axes={"data.mixing": ("replace", "add", "real_only"), "data.real_fraction": (0.3, 0.5, 1.0)},
    demo={
        "model.name": "ShuffleNetV2-x1.0",
        "data.image_size": 32,
        "data.num_train_images": 240,
        "augmentation.preset": "flip",
        "training.epochs": 4,
    },
    small={"model.name": "ResNet9", "data.image_size": 32, "data.num_train_images": 2000, "training.epochs": 4},
)
