"""Ablations: a recipe, and the same without one of its components at a time.

SPACE = Space(
    name="mine",
    question="What does each component of system A contribute?",
    recipe="thesis-effnet-b0",
    variants=leave_one_out("thesis-effnet-b0", {"Adam (SGD .01)": {"optimizer.name": "sgd", ...}}),
)
"""

from collections.abc import Mapping
from typing import Any

from fer_ray import recipes
from fer_ray.config import RunConfig

FULL = "full recipe"

COMPONENTS: Mapping[str, Mapping[str, Any]] = {
    "pretrained weights": {"model.weights": "none"},
    "freeze schedule": {"training.phases": None},
    "augmentation": {
        "augmentation.preset": "none",
        "augmentation.flip_probability": None,
        "augmentation.rotation_degrees": None,
        "augmentation.min_crop": None,
        "augmentation.zoom": None,
        "augmentation.shift": None,
        "augmentation.shear_degrees": None,
    },
    "random erasing": {"augmentation.erasing_probability": 0.0},
    "MixUp": {"augmentation.mixup_alpha": 0.0},
    "CutMix": {"augmentation.cutmix_alpha": 0.0},
    "test-time views": {"augmentation.test_time": "none"},
    "dropout": {"model.dropout": 0.0},
    "label smoothing": {"training.label_smoothing": 0.0},
    "weight decay": {"optimizer.weight_decay": 0.0},
    "learning-rate schedule": {"optimizer.schedule": "constant", "optimizer.warmup_fraction": 0.0},
    "SAM": {"optimizer.sam_rho": 0.0},
    "weight averaging": {"optimizer.ema_decay": None},
    "gradient clipping": {"training.max_gradient_norm": None},
    "class weights": {"task.class_weights": "none"},
    "balanced sampling": {"data.sampling": "natural"},
    "focal loss": {"task.classification_loss": "cross_entropy"},
}
"""Component -> the values that take it out. What has no neutral value, the optimizer for one, is not among them."""


def leave_one_out(recipe: str, others: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """The variants of an ablation: FULL, then `without X` for each of the COMPONENTS that the recipe has.

    A component is in a recipe if the values that take it out would change its config. `others` are further components:
    name -> the config values of the recipe without it. An optimizer that is left out needs one in its place, at a
    learning rate of its own.

    Args:
        recipe: a recipe's name, or a .json file as `recipes.load` takes it. Give the space the same one.

    Raises:
        UserError: the recipe is unknown or damaged, or a value out of bounds.
    """
    full = RunConfig.from_flat(recipes.load(recipe).values)
    flat = full.flat()
    variants: dict[str, dict[str, Any]] = {FULL: {}}
    for name, without in {**COMPONENTS, **(others or {})}.items():
        full.replace(without)  # refuses what is no config
        changed = {key: value for key, value in without.items() if flat[key] != value}
        if changed:
            variants[f"without {name}"] = changed
    return variants
