"""All finished trials of a results folder side by side: `comparison.csv` and `comparison.png`."""

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fer_ray import results
from fer_ray.artifacts.words import plain
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "id": "id",
    "model": "model.name",
    "real_fraction": "data.real_fraction",
    "seed": "training.seed",
    "parameters": "parameters",
    "epochs_run": "epochs_run",
    "chosen_epoch": "chosen_epoch",
    "validation_accuracy": "validation_accuracy",
    "validation_macro_f1": "validation_macro_f1",
    "validation_ccc": "validation_ccc",
    "test": "test_name",
    "accuracy": "test_accuracy",
    "macro_precision": "test_macro_precision",
    "macro_recall": "test_macro_recall",
    "macro_f1": "test_macro_f1",
    "auroc": "test_auroc",
    "valence_mae": "test_valence_mae",
    "arousal_mae": "test_arousal_mae",
    "mae": "test_mae",
    "ccc": "test_ccc",
    "train_seconds": "train_seconds",
}
"""Column of the table -> column of a row. Figures without a prefix are of the test part."""

PANELS = {
    "test: 0 to 1 (CCC from −1), more is better": {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "auroc": "AUROC",
        "ccc": "CCC",
    },
    "test: mean absolute error, 0 to 2, less is better": {"valence_mae": "valence", "arousal_mae": "arousal"},
}
MARKERS = "osD^"

LONGEST = 40
"""Trials in the picture; the table has all."""


def compare(root: Path) -> list[Path]:
    """Writes `comparison.csv` and `comparison.png`, a row per finished trial, the best on validation first.

    Returns their paths; none where no trial is finished. Raises UserError when they cannot be written.
    """
    from fer_ray.artifacts import pictures

    rows = [row for row in results.read_rows(root) if row["status"] == results.FINISHED]
    if not rows:
        return []
    table = comparison_table(rows)
    paths = [root / "comparison.csv", root / "comparison.png"]
    # Trials of a sweep come here at the same time, so that each writes under a name of its own.
    partials = [root / f".{uuid.uuid4().hex[:8]}.{path.name}" for path in paths]
    try:
        table.to_csv(partials[0], index=False)
        with pictures.style():
            pictures.save(comparison_picture(table), partials[1])
        for partial, path in zip(partials, paths, strict=True):
            os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {paths[0]} and .png: {error.strerror or error}; free space there") from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return paths


def comparison_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A row per trial with COLUMNS, undefined values missing; the best on validation (macro F1, CCC) first."""
    table = pd.DataFrame([{name: row.get(key) for name, key in COLUMNS.items()} for row in rows], columns=list(COLUMNS))
    keys = ["validation_macro_f1", "validation_ccc", "id"]
    return table.sort_values(keys, ascending=[False, False, True], kind="stable", ignore_index=True)


def comparison_picture(table: pd.DataFrame) -> "Figure":
    """Dots per trial: what is better when it is more, and errors of valence and arousal where they are learned."""
    from fer_ray.artifacts import pictures

    shown = table.head(LONGEST)
    count = f"The best {len(shown)} of {len(table)} trials" if len(table) > len(shown) else f"Trials: {len(table)}"
    defined = set(shown.dropna(axis="columns", how="all").columns)
    groups = {axis: {k: v for k, v in names.items() if k in defined} for axis, names in PANELS.items()}
    groups = {axis: names for axis, names in groups.items() if names} or PANELS
    title, height = f"{count}, the best on validation first", 1.8 + 0.28 * len(shown)
    figure, every = pictures.panels(title, len(groups), 6.5, height, is_shared=True)
    places = range(len(shown))
    for axes, (axis, names) in zip(every, groups.items(), strict=True):
        for i, (column, label) in enumerate(names.items()):
            axes.plot(pd.to_numeric(shown[column]), places, MARKERS[i], color=pictures.COLOURS[i], label=label)
        axes.set(xlabel=axis, ylim=(len(shown) - 0.5, -0.5))
        axes.set_yticks(places, [plain(name, 48) for name in shown["id"]], fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(names))
    return figure
