"""Do valence and arousal help the expressions, or get in their way? Weights of both in the loss: 0, .5 and 1.

The expressions' weight is 1. (0, 0) learns expressions alone and (.5, .5) is system C; the rest is as in its CNN, but
that cells run to their end (no patience) and choose their epoch by macro F1, since losses with other weights cannot be
compared. A weight of 0 leaves its output where it starts: its own figures mean nothing there.

Needs faces with valence and arousal (an AffectNet-style folder); demo faces have both.

Seeds: three. Metric: macro F1, with the CCC of valence and arousal beside it. Cost: 27 runs of 40 epochs at 224 pixels,
minutes each on a GPU, hours on a CPU core; `--small` a quarter of an hour on 2 CPU cores, the demo two minutes.
"""

from fer_ray.space import Space

SPACE = Space(
    name="multitask_weights",
    question="Do valence and arousal help the expressions, or get in their way?",
    axes={"task.valence_weight": (0.0, 0.5, 1.0), "task.arousal_weight": (0.0, 0.5, 1.0)},
    recipe="affect-multitask-cnn",
    base={"training.patience": None, "training.selection_metric": "macro_f1"},
    demo={"data.image_size": 32, "data.num_train_images": 480, "training.epochs": 4},
    small={"data.image_size": 48, "data.num_train_images": 1500, "training.epochs": 8},
)
