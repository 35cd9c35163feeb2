"""A results folder as a study: its axes, its cells, and the test predictions of every finished trial."""

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fer_ray import results
from fer_ray.errors import UserError, nearest

SEED = "training.seed"
FOLD = "data.fold"
VARIANT = "variant"
"""The axis of an ablation: settings of more than one key, by name; the first is what the others are compared with."""
REPLICATE = "replicate"
"""Column that tells the trials of a cell apart: the seed, and in a cross-validation the fold."""

OTHER_TESTS = {"synthetic_test": "synthetic test faces", "cross_test": "another data set"}
"""Split in predictions.parquet -> what a table over it is called."""
USUAL_AXES = ("model.name", "data.real_fraction")
"""Stand in where a space has fewer than two axes, so that a table always has rows and columns."""

Cell = tuple[Any, ...]
"""A value of each axis, in the order of `Study.axes`."""


@dataclass(frozen=True)
class Predictions:
    """What one trial answered on the test split.

    Attributes:
        test_set: names the images and their labels; equal for trials that were tested on the same ones.
        labels: int64[n], the true class.
        probabilities: float32[n, C].
        classes: the C names.
        affect: "valence" and "arousal" -> float64[2, n], the true value (NaN: unknown) and the predicted one; empty
            where they were not learned.
    """

    test_set: int
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    affect: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A sweep with its finished trials put into cells; a cell is one value of every axis, over all seeds.

    Attributes:
        sweep: the files as they were read.
        trials: the finished trials, a row each, numbered from 0, with REPLICATE.
        predictions: one for each row of `trials`.
        axes: config key -> its values, in the space's order, without the seed and the fold.
        rows, columns: the two axes that tables show down and across.
    """

    sweep: results.Sweep
    trials: pd.DataFrame
    predictions: list[Predictions]
    axes: dict[str, list[Any]]
    rows: str
    columns: str

    @property
    def other_axes(self) -> list[str]:
        """The axes beyond rows and columns; each combination of their values has tables of its own."""
        return [key for key in self.axes if key not in (self.rows, self.columns)]

    def all_cells(self) -> list[Cell]:
        """Every combination of the axes' values, whether trained or not."""
        return list(product(*self.axes.values()))

    def members(self) -> dict[Cell, list[int]]:
        """The numbers of a cell's finished trials, sorted by seed and fold."""
        keys = [SEED, FOLD] if FOLD in self.trials else [SEED]
        return _group(self.trials.sort_values(keys, kind="stable"), self.axes)

    def members_with(self, status: str) -> dict[Cell, list[int]]:
        """The numbers of a cell's trials that failed or were stopped, as rows of `sweep.trials`."""
        return _group(self.sweep.trials[self.sweep.trials["status"] == status], self.axes)


def read_study(root: str | Path, *, rows: str | None = None, columns: str | None = None) -> Study:
    """Reads a results folder. `rows` and `columns` are axes of the space; by default those that the space states.

    Raises UserError when the folder is missing or damaged, no trial has finished, or an axis is unknown.
    """
    sweep = results.load(root)
    finished = sweep.trials[sweep.trials["status"] == results.FINISHED].reset_index(drop=True)
    if finished.empty:
        first = sweep.trials.iloc[0]
        raise UserError(f"{root}: none of {len(sweep.trials)} trials finished; {first['id']}: {first.get('error')}")
    axes = _axes(sweep)
    finished[REPLICATE] = _replicates(finished)
    _check_one_trial_per_seed(finished, [*axes, REPLICATE], Path(root))
    rows, columns = _choose(axes, rows, columns, sweep.info)
    predictions = [_predictions(sweep, row) for _, row in finished.iterrows()]
    return Study(sweep, finished, predictions, axes, rows, columns)


def other_tests(study: Study) -> dict[str, Study]:
    """The same trials on other images: name -> study, for each that all of them have predictions of.

    `clean`: the test images without a copy in training; the splits of OTHER_TESTS.
    """
    found = {}
    for split in OTHER_TESTS:
        column = f"{split}_name"
        if column in study.trials and study.trials[column].notna().all():
            rows = [_predictions(study.sweep, row, split) for _, row in study.trials.iterrows()]
            found[split] = replace(study, predictions=rows)
    if leaked := study.sweep.leaked():
        rows = [_predictions(study.sweep, row, "test", leaked) for _, row in study.trials.iterrows()]
        found["clean"] = replace(study, predictions=rows)
    return found


def _replicates(trials: pd.DataFrame) -> "pd.Series[str]":
    names = trials[SEED].astype(str)
    if FOLD in trials and trials[FOLD].notna().any():
        names = names + " fold " + trials[FOLD].astype(str)
    return names


def _check_one_trial_per_seed(finished: pd.DataFrame, keys: list[str], root: Path) -> None:
    """Two trials of one cell and seed would pass for two seeds."""
    first: dict[tuple[Any, ...], str] = {}
    for trial_id, *values in zip(finished["id"], *(finished[key] for key in keys), strict=True):
        cell = tuple(map(plain, values))
        if cell in first:
            raise UserError(
                f"{root}: {first[cell]} and {trial_id} are the same cell and seed ({', '.join(keys)}); "
                "move one of the two folders out of trials/"
            )
        first[cell] = trial_id


def status_text(sweep: results.Sweep) -> str:
    """How many trials ended how, each state named; missing ones are told where the sweep says how many it wanted."""
    counts = sweep.trials["status"].value_counts()
    texts = [f"{counts.get(state, 0)} {state}" for state in (results.FINISHED, results.FAILED, results.STOPPED)]
    planned = sweep.info.get("planned")
    if planned is not None:
        texts.append(f"{max(0, planned - len(sweep.trials))} missing of {planned}")
    return ", ".join(texts)


def plain(value: Any) -> Any:
    """A value of a table's column as the config had it: pandas' missing value is None, numpy scalars are Python's."""
    if isinstance(value, float) and np.isnan(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def where(frame: pd.DataFrame, key: str, value: Any) -> pd.DataFrame:
    """The rows whose column `key` has an axis value; a missing value stands for None, which `==` would not find."""
    # A plain list would be taken for column names when the frame is empty.
    return frame[pd.Series([plain(found) == value for found in frame[key]], frame.index, dtype=bool)]


def _axes(sweep: results.Sweep) -> dict[str, list[Any]]:
    stated: dict[str, list[Any]] = {
        key: list(v) for key, v in sweep.info.get("axes", {}).items() if key not in (SEED, FOLD)
    }
    for key in USUAL_AXES:
        if len(stated) < 2:
            stated.setdefault(key, [])
    for key, values in stated.items():
        found = [plain(value) for value in sweep.trials[key]]
        values.extend(value for value in dict.fromkeys(found) if value not in values)
    return stated


def _choose(axes: dict[str, list[Any]], rows: str | None, columns: str | None, info: dict[str, Any]) -> tuple[str, str]:
    for flag, key in (("--rows", rows), ("--cols", columns)):
        if key is not None and key not in axes:
            raise UserError(f"{flag} {key}: not an axis of this sweep{nearest(key, axes)}")
    if rows is not None and rows == columns:
        raise UserError(f"--rows and --cols are both {rows}; they must differ, axes are: {', '.join(axes)}")
    wanted = [info.get("rows"), info.get("columns"), *axes]
    rows = rows or next(key for key in wanted if key in axes and key != columns)
    columns = columns or next(key for key in (*wanted[1:], *axes) if key in axes and key != rows)
    return rows, columns


def _group(trials: pd.DataFrame, axes: Iterable[str]) -> dict[Cell, list[int]]:
    cells: dict[Cell, list[int]] = {}
    for number, values in zip(trials.index, zip(*(trials[key] for key in axes), strict=True), strict=True):
        cells.setdefault(tuple(plain(value) for value in values), []).append(number)
    return cells


def _predictions(
    sweep: results.Sweep, row: pd.Series, split: str = "test", without: Collection[str] = ()
) -> Predictions:
    frame = sweep.predictions(row["id"], split)
    frame = frame[~frame["id"].isin(without)] if without else frame
    classes = tuple(row["classes"])
    columns = [f"p_{name}" for name in classes]
    if frame.empty or not {"label", *columns} <= set(frame.columns) or not frame["label"].isin(classes).all():
        path = sweep.root / "trials" / row["id"] / "predictions.parquet"
        raise UserError(
            f"{path}: expected {split} rows with a label among {', '.join(classes)} and their p_<class> columns; "
            "delete its folder to run that trial again"
        )
    codes = frame["label"].map({name: code for code, name in enumerate(classes)}).to_numpy(np.int64)
    test_set = zlib.crc32("\n".join([*classes, *frame["id"], *frame["label"]]).encode())
    affect = {
        name: frame[[name, f"predicted_{name}"]].to_numpy(np.float64).T
        for name in ("valence", "arousal")
        if f"predicted_{name}" in frame
    }
    return Predictions(test_set, codes, frame[columns].to_numpy(np.float32), classes, affect)
