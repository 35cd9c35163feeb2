"""The images that a trial was tested on, with truth and answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fer_ray.artifacts.words import MISSING, plain


@dataclass(frozen=True)
class Judged:
    """One test part, as far as its truth is known.

    Attributes:
        split: its name.
        title: which network was judged on what, on one line.
        classes: C names, in the order of the columns of `probabilities`.
        labels, probabilities: int64 [n] and float64 [n, C]; both None without classes.
        affect: float64 [m, 4], valence, arousal and both as predicted, NaN where unknown; None if not learned.
    """

    split: str
    title: str
    classes: Sequence[str]
    labels: np.ndarray | None
    probabilities: np.ndarray | None
    affect: np.ndarray | None


def parts(row: dict[str, Any], predictions: pd.DataFrame, classes: Sequence[str]) -> Iterator[Judged]:
    """The test parts in a trial's predictions, in their order there."""
    for split in predictions["split"].unique():
        if split != "validation":
            yield _part(row, predictions[predictions["split"] == split], split, classes)


def _part(row: dict[str, Any], frame: pd.DataFrame, split: str, classes: Sequence[str]) -> Judged:
    labels = probabilities = affect = None
    if {f"p_{name}" for name in classes} <= set(frame.columns):
        codes = pd.Categorical(frame["label"].astype(object), categories=list(classes)).codes
        values = frame[[f"p_{name}" for name in classes]].to_numpy(np.float64)
        known = (codes >= 0) & np.isfinite(values).all(axis=1)
        if known.any():
            labels, probabilities = codes[known].astype(np.int64), values[known]
    if "predicted_valence" in frame.columns:
        names = ["valence", "arousal", "predicted_valence", "predicted_arousal"]
        values = frame[names].to_numpy(np.float64)
        values = values[np.isfinite(values[:, 2:]).all(axis=1)]
        affect = values if np.isfinite(values[:, :2]).any() else None
    name = plain(str(row.get(f"{split}_name") or split), 60)
    network = plain(row["model.name"], 40)
    title = f"{network}, epoch {row.get('chosen_epoch') or MISSING}, on {name}"
    return Judged(split, title, classes, labels, probabilities, affect)
