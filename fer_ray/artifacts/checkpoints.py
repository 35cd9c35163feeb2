"""`best.pth`: weights as users of PyTorch load them, with all that their use needs."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fer_ray.config import RunConfig

if TYPE_CHECKING:
    from fer_ray.training.loop import Outcome


def write(
    folder: Path,
    row: dict[str, Any],
    epochs: pd.DataFrame,
    outcome: "Outcome",
    config: RunConfig,
    classes: Sequence[str],
) -> None:
    """Writes `best.pth`, and with several phases `best_phase1.pth`, ...: dicts that `weights_only=True` reads.

    Keys: model_state_dict, epoch (from 1), validation_accuracy (0 to 1, or None), class_names (in the order of the
    outputs), model, image_size (pixels), normalization, channels, and config (flat, to build the network from).
    """
    import torch

    if not outcome.weights:
        return
    chosen = [("best.pth", outcome.weights, outcome.chosen_epoch)]
    if len(outcome.phase_weights) > 1:
        for phase, weights in enumerate(outcome.phase_weights, start=1):
            epoch = best_epoch(epochs[epochs["phase"] == phase], config, classes)
            chosen.append((f"best_phase{phase}.pth", weights, epoch))
    accuracies = dict(zip(epochs["epoch"], epochs["validation_accuracy"], strict=True))
    for name, weights, epoch in chosen:
        accuracy = accuracies[epoch]
        content = {
            "model_state_dict": {key: value.detach().cpu().contiguous() for key, value in weights.items()},
            "epoch": epoch,
            "validation_accuracy": float(accuracy) if pd.notna(accuracy) else None,
            "class_names": list(classes),
            "model": config.model.name,
            "image_size": row["data.image_size"],
            "normalization": row["data.normalization"],
            "channels": config.model.channels,
            "config": config.flat(),
        }
        # Into memory first: on a full disk torch.save ends with an error of its own, which does not say so.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        (folder / name).write_bytes(buffer.getbuffer())


def best_epoch(epochs: pd.DataFrame, config: RunConfig, classes: Sequence[str]) -> int:
    """The epoch that the training loop takes for the best of these: by the task's score, the earlier one on a tie."""
    from fer_ray.training import tasks

    task = tasks.build(config, tuple(classes), np.ones(len(classes), np.int64))
    summaries = epochs.filter(like="validation_").rename(columns=lambda name: name.removeprefix("validation_"))
    scores = [task.score({k: v for k, v in line.items() if pd.notna(v)}) for line in summaries.to_dict("records")]
    return int(epochs["epoch"].iloc[int(np.argmax(scores))])
