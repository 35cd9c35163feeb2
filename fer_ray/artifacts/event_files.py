"""TensorBoard's event files, through torch's writer."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

TAGS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "validation_accuracy",
    "macro_f1/train": "train_macro_f1",
    "macro_f1/validation": "validation_macro_f1",
    "ccc/validation": "validation_ccc",
    "mae/validation": "validation_mae",
    "learning_rate": "learning_rate",
    "memory/peak_mb": "peak_memory_mb",
    "speed/images_per_second": "images_per_second",
}
"""TensorBoard's tag -> our column; the step is the epoch."""


def write(folder: Path, epochs: pd.DataFrame) -> list[str]:
    """Writes event files into `folder`; returns notes: without the package `tensorboard`, what to do."""
    if find_spec("tensorboard") is None:
        return ["no TensorBoard logs: they need the package tensorboard; pip install tensorboard"]
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for line in epochs.to_dict("records"):
            for tag, column in TAGS.items():
                if pd.notna(line[column]):
                    writer.add_scalar(tag, line[column], int(line["epoch"]))
    return []
