"""System B: ResNet-18 from scratch on 48x48 grey FER2013, its seven classes merged to four.

The source: FER2013's CSV, split by its Usage column; angry = angry + disgust, sad = fear + sad, neutral = surprise +
neutral, happy. ResNet-18 with one input channel, no pretrained weights, 4 outputs, about 11.17 M parameters; pixels in
[0, 1]; flip .5, rotation +-10 degrees, random crop of 90 to 100 %; Adam 1e-3, StepLR(7, 0.1), cross-entropy, batch 64,
20 epochs; the best epoch by validation accuracy. It expects 50 to 60 % on validation and test.

`resnet18-fer4` is that. Not stated there, and chosen here: Adam's weight decay 0, no gradient clipping, no label
smoothing, as the libraries it names have by default. We differ in the start of the network alone: shortcuts average,
and the last norm of a block and the classifier start at zero (see ARCHITECTURE.md, Decisions).
The recipe `fer4-best` is the strongest form of the same task.
"""

from typing import Any

SOURCE: dict[str, Any] = {
    "model.name": "ResNet18",
    "model.channels": 1,
    "data.label_set": "fer4",
    "data.image_size": 48,
    "data.normalization": "unit",
    "augmentation.preset": "resnet18-fer4",
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.0,
    "optimizer.schedule": "step",
    "optimizer.step_epochs": 7,
    "optimizer.step_factor": 0.1,
    "training.epochs": 20,
    "training.batch_size": 64,
    "training.label_smoothing": 0.0,
    "training.max_gradient_norm": None,
    "training.selection_metric": "accuracy",
}

RECIPES: dict[str, dict[str, Any]] = {"resnet18-fer4": SOURCE}
