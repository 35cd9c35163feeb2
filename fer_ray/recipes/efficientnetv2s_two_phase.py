"""System D: EfficientNetV2-S on the folder edition of FER2013 in two phases, seven classes at 224 pixels.

The source: all 7,178 test images; RGB, ImageNet mean and deviation; batch 64, fp16; ImageNet weights; a head of three
layers (790,535 parameters of 20,968,023); phase 1: 30 epochs, frozen backbone, AdamW, 2e-4; phase 2: 20 epochs, the
last 30 layers, 2e-5; the best checkpoint of each phase is kept. It prints an accuracy of 65.2 % and a macro F1 of .640.

Not stated, and chosen here: weight decay .01 (AdamW's default), a constant learning rate, flip as the only
augmentation, no label smoothing. The epoch is chosen on 15 % of the training images: the source's text leaves open
whether it looked at test images for that, and we do not. Precision is what the hardware has: bfloat16 rather than fp16
on a GPU that has it.
"""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "efficientnetv2s-two-phase": {
        "model.name": "EfficientNetV2-S",
        "model.head": "efficientnetv2s-two-phase",
        "model.weights": "imagenet",
        "data.test_split": "all",
        "data.image_size": 224,
        "data.normalization": "imagenet",
        "augmentation.preset": "flip",
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 2e-4,
        "optimizer.weight_decay": 0.01,
        "optimizer.schedule": "constant",
        "optimizer.warmup_fraction": 0.0,
        "training.phases": "head 30, last-30 20 x0.1",
        "training.epochs": 50,
        "training.batch_size": 64,
        "training.label_smoothing": 0.0,
        "training.max_gradient_norm": None,
        "training.selection_metric": "accuracy",
    }
}
