"""What does each component of `fer2013-best` contribute? The full recipe, then without one of them at a time.

`leave_one_out` finds what a recipe has; a file of your own with another name in it is an ablation of that recipe. An
optimizer cannot be left out without another in its place, at that one's own rate: SGD at .1 (He et al. 2016,
arXiv:1512.03385) with this recipe's weight decay, and AdamW as in `fer_ray.config`.

Read differences against the first row, which are paired by seed. Components interact: what one leaves behind when it
goes is not what it would add alone.

Seeds: three. Metric: macro F1. Cost: 30 runs, of 38 epochs each about two hours on a CPU core; `--small` 20 minutes on
2 CPU cores, the demo two.
"""

from fer_ray.ablation import leave_one_out
from fer_ray.space import Space

SPACE = Space(
    name="ablation",
    question="What does each component of the best recipe contribute?",
    recipe="fer2013-best",
    variants=leave_one_out(
        "fer2013-best",
        {
            "Muon (SGD)": {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1},
            "Muon (AdamW)": {
                "optimizer.name": "adamw",
                "optimizer.learning_rate": 2e-3,
                "optimizer.weight_decay": 0.02,
            },
        },
    ),
    demo={"data.image_size": 32, "data.num_train_images": 480, "training.batch_size": 32, "training.epochs": 2},
    small={"data.image_size": 32, "data.num_train_images": 2000, "training.batch_size": 32, "training.epochs": 4},
)
