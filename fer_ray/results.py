"""What a sweep leaves on disk: the schema of trials, epochs and predictions, and its reading and writing.

    <storage>/<name>/
      sweep.json             question, space, command, seeds, versions, machine, data digests
      leakage.parquet        pairs of equal or nearly equal images in two parts of the data
      trials/<id>/           written whole and renamed into place; the unit of truth
        row.json             config, status, chosen epoch, every metric, cost, provenance
        epochs.parquet       a row per epoch
        predictions.parquet  per image of validation and test: id, split, label, p_<class> ...
        config.json          the config; `python -m fer_ray.train --recipe` repeats the run
        command.txt          that command, ready to paste
        best.safetensors     weights of the chosen epoch, kept for the best three of a sweep
      trials.parquet, epochs.parquet   compactions of the above, made again at any time
      tables/, dashboard.html          made by `python -m fer_ray.analysis`

No Ray and no torch here: results are read on a laptop, years later.
"""

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.errors import UserError

FINISHED = "finished"
FAILED = "failed"
STOPPED = "stopped"
"""Ended from outside before its last epoch, by a scheduler or a budget; its test split was not read."""

COST_COLUMNS = (
    "train_seconds",
    "wall_seconds",
    "seconds",
    "images_per_second",
    "peak_memory_mb",
    "started_at",
    "host",
)
"""Columns that may differ between two runs of the same thing; every other column is bit-identical."""

EPOCH_COLUMNS = (
    "id",
    "epoch",
    "phase",
    "images_seen",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "train_macro_f1",
    "validation_loss",
    "validation_accuracy",
    "validation_macro_f1",
    "validation_ccc",
    "validation_mae",
    "seconds",
    "images_per_second",
    "peak_memory_mb",
)


@dataclass(frozen=True)
class Trial:
    """One run's outcome.

    Attributes:
        row: one flat dict: `id`, `signature`, `status`, the config keys, `classes` (list of names), `chosen_epoch`,
            `validation_*` and `test_*` metrics, cost, provenance. What is undefined is None, never 0.
        epochs: a row per epoch, with EPOCH_COLUMNS.
        predictions: a row per image that the run was judged on: `id`, `split` ("validation", "test", "synthetic_test"
            or "cross_test"), `label` (class name), `p_<class>` (float32 probabilities);
            where valence and arousal are learned, `valence`, `arousal` and `predicted_valence`, `predicted_arousal`.
    """

    row: dict[str, Any]
    epochs: pd.DataFrame
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Sweep:
    """All of a results folder but the predictions, which are read one trial at a time.

    Attributes:
        root: the folder.
        info: `sweep.json`; for a folder of single runs, {}.
        trials: a row per trial, sorted by `id`.
        epochs: a row per trial and epoch, sorted by `id` and `epoch`.
    """

    root: Path
    info: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame

    def predictions(self, trial_id: str, split: str = "test") -> pd.DataFrame:
        """Predictions of one trial on "test" or another split, sorted by sample id."""
        frame = read_parquet(self.root / "trials" / trial_id / "predictions.parquet")
        return frame[frame["split"] == split].sort_values("id", kind="stable").reset_index(drop=True)

    def leaked(self, split: str = "test") -> set[str]:
        """Ids of the images of a split that have a copy in what was trained on; empty where nothing is known."""
        path = self.root / "leakage.parquet"
        if not path.exists():
            return set()
        pairs = read_parquet(path)
        trained = ["train", "synthetic"]
        if "data.fold" in self.trials and self.trials["data.fold"].nunique() > 1:
            trained.append("validation")  # what validates in one fold is trained on in the others
        first = pairs.loc[(pairs["first_part"] == split) & pairs["second_part"].isin(trained), "first"]
        second = pairs.loc[(pairs["second_part"] == split) & pairs["first_part"].isin(trained), "second"]
        return {*first, *second}


def write_leakage(root: Path, columns: Mapping[str, Any]) -> None:
    """Adds rows, a pair of images each, to `leakage.parquet`: runs of one folder may have other data or splits.

    Raises OSError when it cannot be written.
    """
    path, partial = root / "leakage.parquet", root / ".leakage.partial"
    parts = [read_parquet(path)] if path.exists() else []
    pd.concat([*parts, pd.DataFrame(columns)], ignore_index=True).drop_duplicates().to_parquet(partial, index=False)
    os.replace(partial, path)


def write_trial(folder: Path, trial: Trial, files: Mapping[str, bytes | str | Path]) -> Path:
    """Writes a trial next to `folder` and renames it into place, so that a folder is whole or not there.

    `files` are further files by name: bytes or text to write, or a Path to move. An earlier folder of the same name
    is replaced. Raises UserError when the disk is full or the folder is not writable; nothing half-written stays.
    """
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        write_json(staging / "row.json", trial.row)
        trial.epochs.to_parquet(staging / "epochs.parquet", index=False)
        trial.predictions.to_parquet(staging / "predictions.parquet", index=False)
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.move(content, staging / name)
            elif isinstance(content, bytes):
                (staging / name).write_bytes(content)
            else:
                (staging / name).write_text(content, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(staging, folder)
    except OSError as error:
        raise UserError(f"cannot write the trial's results to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def read_rows(root: Path) -> list[dict[str, Any]]:
    """The rows of all trials under `root`, sorted by id. A damaged row.json raises UserError naming it."""
    return [read_json(folder / "row.json") for folder in _trial_folders(root)]


def load(root: str | Path) -> Sweep:
    """Reads a results folder from its trials. Raises UserError when it is missing or holds no trial."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no results folder at {root}; a sweep writes one, see `python -m fer_ray.sweep --help`")
    info = read_json(root / "sweep.json") if (root / "sweep.json").exists() else {}
    folders = list(_trial_folders(root))
    if not folders:
        raise UserError(f"{root} holds no trials/<id>/row.json: no trial has ended yet")
    trials = pd.DataFrame([read_json(folder / "row.json") for folder in folders])
    trials = trials.sort_values("id", kind="stable", ignore_index=True)
    epochs = [read_parquet(folder / "epochs.parquet") for folder in folders]
    whole = pd.concat([frame for frame in epochs if len(frame)] or epochs[:1], ignore_index=True)
    return Sweep(root, info, trials, whole.sort_values(["id", "epoch"], kind="stable", ignore_index=True))


def ids_beyond_best(root: Path, count: int) -> list[str]:
    """Ids of all finished trials but the `count` that are best on validation macro F1, whose weights can go."""
    rows = [row for row in read_rows(root) if row["status"] == FINISHED]
    rows.sort(key=lambda row: row["validation_macro_f1"] or 0, reverse=True)
    return [row["id"] for row in rows[count:]]


def compact(sweep: Sweep) -> None:
    """Writes trials.parquet and epochs.parquet of a sweep, atomically. Raises UserError if that is impossible."""
    for name, frame in (("trials", sweep.trials), ("epochs", sweep.epochs)):
        path, partial = sweep.root / f"{name}.parquet", sweep.root / f".{name}.parquet.partial"
        try:
            _one_type_per_column(frame).to_parquet(partial, index=False)
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _one_type_per_column(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that hold words beside numbers ("native" and 64) as words, since Parquet has one type a column."""
    mixed = {}
    for name in frame.columns:
        kinds = {type(value) for value in frame[name].dropna()} if frame[name].dtype.kind == "O" else set()
        if str in kinds and len(kinds) > 1:
            mixed[name] = frame[name].map(str, na_action="ignore")
    return frame.assign(**mixed)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinity become null, keys keep their order. OSError passes through."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises UserError naming the file when it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete its folder to run that trial again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


def _trial_folders(root: Path) -> Iterator[Path]:
    for folder in sorted((root / "trials").glob("*")):
        if not folder.name.startswith(".") and (folder / "row.json").is_file():
            yield folder


def read_parquet(path: Path) -> pd.DataFrame:
    """A table of a trial's folder. Raises UserError naming it if it cannot be read."""
    try:
        return pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read ({error}); delete its folder to run that trial again") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
