"""The files that users of other FER systems expect beside a trial: weights, pictures, a report, logs, a comparison.

trials/<id>/artifacts/
  best.pth, best_phase1.pth ...      weights of the chosen epoch; with several phases, of the best one of each
  training_history.png               loss, accuracy, CCC and MAE over the epochs
  confusion_matrix.png, roc_curves.png, classification_report.txt, affect_scatter.png
                                     of the test part; of another one as confusion_matrix_cross_test.png ...
  tensorboard/                       event files: loss, accuracy, learning rate, memory per epoch
  metadata.json                      config, classes in order, versions, data, metrics, and these files with SHA-256
comparison.csv, comparison.png       over all finished trials of the results folder
"""

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fer_ray.artifacts.comparison import compare
from fer_ray.config import RunConfig
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.training.loop import Outcome

__all__ = ["Written", "compare", "write"]


@dataclass(frozen=True)
class Written:
    """What `write` left.

    Attributes:
        files: their paths, sorted, the comparison's last.
        notes: sentences on what was left out and how to get it.
    """

    files: list[Path]
    notes: list[str]


def write(
    folder: Path,
    row: dict[str, Any],
    epochs: pd.DataFrame,
    predictions: pd.DataFrame,
    outcome: "Outcome",
    config: RunConfig,
    classes: Sequence[str],
) -> Written:
    """Writes `folder/artifacts/`, whole or not at all, and the comparison of the results folder around it.

    Args:
        folder: the trial's, `<root>/trials/<id>`, as `results.write_trial` left it.
        row, epochs, predictions: the trial, as in `results.Trial`.
        outcome: what the training loop found; of a failed run, an empty one.
        config: of the run, as executed.
        classes: names in the order of the network's outputs.

    Raises UserError when the disk is full or the folder is not writable.
    """
    target, staging = folder / "artifacts", folder / f".artifacts.{uuid.uuid4().hex[:8]}"
    try:
        staging.mkdir()
        notes = _fill(staging, row, epochs, predictions, outcome, config, classes)
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {target}: {reason}; free space there, or leave --artifacts out") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return Written([*files, *compare(folder.parents[1])], notes)


def _fill(
    folder: Path,
    row: dict[str, Any],
    epochs: pd.DataFrame,
    predictions: pd.DataFrame,
    outcome: "Outcome",
    config: RunConfig,
    classes: Sequence[str],
) -> list[str]:
    from fer_ray.artifacts import checkpoints, event_files, judged, metadata, pictures, report

    checkpoints.write(folder, row, epochs, outcome, config, classes)
    with pictures.style():
        if len(epochs):
            pictures.save(pictures.training_history(row, epochs), folder / "training_history.png")
        for part in judged.parts(row, predictions, classes):
            suffix = "" if part.split == "test" else f"_{part.split}"
            if part.labels is not None:
                pictures.save(pictures.confusion_matrix(part), folder / f"confusion_matrix{suffix}.png")
                pictures.save(pictures.roc_curves(part), folder / f"roc_curves{suffix}.png")
                text = report.classification_report(part)
                (folder / f"classification_report{suffix}.txt").write_text(text, encoding="utf-8")
            if part.affect is not None:
                pictures.save(pictures.affect_scatter(part), folder / f"affect_scatter{suffix}.png")
    notes = event_files.write(folder / "tensorboard", epochs)
    metadata.write(folder, row, config, classes)
    return notes
