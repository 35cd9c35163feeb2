"""System C: expression, valence and arousal at once, on an AffectNet-style folder, by three networks.

The source: 3,999 faces of 224x224x3, 8 classes; ResNet50, EfficientNetB0 or a CNN of four blocks, each with its own
head and three outputs (8 softmax, two tanh); batch 32; 30 epochs of the head alone at 1e-3, then 10 of all layers at
1e-4; validation .15 and test .15, stratified; loss 1.0 cross-entropy + .5 MSE of valence + .5 MSE of arousal; early
stopping with patience 10, learning rate x .5 on a plateau; rotation 20, shifts .2, flip, zoom .2, shear .1, fill
nearest. It expects 50 to 70 % accuracy and MAE of .2 to .3.

Not stated, and chosen here: the optimizer (Adam, the default of its library), the plateau's patience (5 epochs), the
initial weights of the two known networks (ImageNet, as a head trained alone suggests), dropout and norms as listed in
`fer_ray.models.heads`. Its early stopping watches one phase; so does ours.

The CNN has no pretrained weights, and a head on untrained features learns nothing: all its layers train in both
phases. `--weights none --set training.phases=none` does the same for the others where there is no network connection.
"""

from typing import Any

SOURCE: dict[str, Any] = {
    "task.name": "multitask",
    "data.image_size": 224,
    "augmentation.preset": "affect-multitask",
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.0,
    "optimizer.schedule": "plateau",
    "optimizer.plateau_epochs": 5,
    "optimizer.plateau_factor": 0.5,
    "training.phases": "head 30, all 10 x0.1",
    "training.epochs": 40,
    "training.batch_size": 32,
    "training.patience": 10,
    "training.label_smoothing": 0.0,
    "training.max_gradient_norm": None,
    "training.selection_metric": "loss",
}

RECIPES: dict[str, dict[str, Any]] = {
    "affect-multitask": SOURCE
    | {"model.name": "ResNet50", "model.head": "affect-resnet50", "model.weights": "imagenet"},
    "affect-multitask-efficientnetb0": SOURCE
    | {"model.name": "EfficientNetB0", "model.head": "affect-efficientnetb0", "model.weights": "imagenet"},
    "affect-multitask-cnn": SOURCE
    | {"model.name": "FourBlockCNN", "model.head": "affect-cnn", "training.phases": "all 30, all 10 x0.1"},
}
