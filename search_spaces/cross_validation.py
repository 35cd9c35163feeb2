"""Which network is better, over five folds of the training images rather than one split? Three networks x five folds.

Each fold trains on four fifths and chooses its epoch on the fifth; the test split stays the same. A cell of the tables
is the mean over folds and seeds. Cost: 15 runs for each seed.
"""

from fer_ray.space import Space, folds

SPACE = Space(
    name="cross_validation",
    question="Which network classifies best, whichever fifth of the training images it is chosen on?",
    axes={"model.name": ("ResNet18", "MobileNetV3-Large", "ConvNeXt-Tiny"), "data.fold": folds(5)},
    seeds=(0,),
    demo={"data.image_size": 32, "data.num_train_images": 480, "augmentation.preset": "flip", "training.epochs": 1},
    small={"data.image_size": 32, "data.num_train_images": 2000, "training.epochs": 4},
)
