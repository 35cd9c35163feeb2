"""One run: a config in, a row and files out. Called by `fer_ray.train` and the Ray trial alike."""

import contextlib
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fer_ray import labels as label_names
from fer_ray import metrics, results
from fer_ray.config import RunConfig
from fer_ray.data import mixing, splits
from fer_ray.data.store import Dataset, open_dataset, open_synthetic
from fer_ray.errors import UserError

DEMO, DEMO_NAME = "demo", "demo faces"


@dataclass(frozen=True)
class Experiment:
    """The data of a run or a sweep, opened and matched: real and synthetic faces with one list of classes.

    `left_out` names the classes that only one side has, which `--classes common` goes on without.
    """

    real: Dataset
    synthetic: Dataset | None
    splits: splits.Splits
    left_out: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.real.classes

    def signature(self, config: RunConfig) -> str:
        """The config's signature on this data; synthetic faces that give it neither images nor classes are left out."""
        used = self.synthetic if uses_synthetic(config) or config.data.classes == "common" else None
        return config.signature(self.real.digest, used.digest if used else None)


def uses_synthetic(config: RunConfig) -> bool:
    """Whether the run draws any synthetic face."""
    return config.data.mixing != "real_only" and config.data.real_fraction < 1


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The config with its data named from the root, so that it can be repeated from any working directory."""
    paths = {"data.source": config.data.source, "data.synthetic": config.data.synthetic}
    named = {key: str(Path(path).expanduser().absolute()) for key, path in paths.items() if path not in (None, DEMO)}
    return config.replace(named)


def open_experiment(config: RunConfig) -> Experiment:
    """Opens the data of a config from the cache, filling it on first use.

    Raises UserError when a file cannot be read or the classes of both domains differ (see `labels.common_classes`).
    """
    source = config.data.source
    synthetic_source = config.data.synthetic or (DEMO if source == DEMO else None)
    real = open_dataset(source)
    synthetic = open_synthetic(synthetic_source, real) if synthetic_source else None
    left_out: tuple[str, ...] = ()
    if synthetic is not None:
        shared = label_names.common_classes(real.classes, synthetic.classes, config.data.classes)
        left_out = label_names.in_order({*real.classes, *synthetic.classes}.difference(shared))
        real, synthetic = real.select_classes(shared), synthetic.select_classes(shared)
    return Experiment(real, synthetic, splits.assign(real, config.data.test_split), left_out)


def data_notes(experiment: Experiment) -> list[str]:
    """What a user should know about the data before a number is trained on it, a line each."""
    real, synthetic, parts = experiment.real, experiment.synthetic, experiment.splits
    lines = []
    if real.name == DEMO_NAME:
        lines.append("rendered demo faces, no --data given: the figures say nothing about real ones")
    height, width, channels = real.images.shape[1:]
    lines.append(
        f"{real.name}: {len(parts.train):,} training images, {height}x{width}x{channels}, "
        f"{len(real.classes)} classes; chosen on {parts.validation_name}, tested on {parts.test_name}"
    )
    if synthetic is not None:
        lines.append(f"synthetic: {synthetic.name}, {len(synthetic.images):,} images")
    if experiment.left_out:
        lines.append(f"classes of one side only are left out: {', '.join(experiment.left_out)}")
    return [*lines, *real.notes, *(synthetic.notes if synthetic else ())]


def normalization(config: RunConfig) -> str:
    """The input normalisation: as asked, or the one that suits the weights."""
    if config.data.normalization != "auto":
        return config.data.normalization
    return "imagenet" if config.model.weights == "imagenet" else "image"


def image_size(config: RunConfig, real: Dataset) -> int:
    """Side of the network's input in pixels."""
    return real.images.shape[1] if config.data.image_size == "native" else config.data.image_size


def draw(config: RunConfig, experiment: Experiment) -> tuple[mixing.Mixture, int]:
    """The training images of a run and its N, the largest that this cell can fill where the config leaves it open."""
    synthetic = experiment.synthetic if uses_synthetic(config) else None
    if synthetic is None and uses_synthetic(config):
        raise UserError(
            f"data.real_fraction: {config.data.real_fraction:g} needs synthetic faces; give some with --synthetic"
        )
    count = config.data.num_train_images
    if count == "auto":
        count = max_train_images(experiment, [config.data.real_fraction], config.data.mixing)
    mixture = mixing.draw(
        experiment.real,
        experiment.splits.train,
        synthetic,
        num_train_images=count,
        real_fraction=config.data.real_fraction,
        mixing=config.data.mixing,
        seed=config.training.seed,
    )
    return mixture, count


def max_train_images(
    experiment: Experiment, real_fractions: Sequence[float], mixing_name: Literal["replace", "add", "real_only"]
) -> int:
    """The largest N that the cells of all these real fractions can fill without drawing a face twice."""
    real, synthetic = experiment.real, experiment.synthetic
    real_counts = mixing.class_counts(real, experiment.splits.train)
    synthetic_counts = mixing.class_counts(synthetic, synthetic.in_split("train")) if synthetic else None
    return mixing.max_train_images(real_counts, synthetic_counts, real_fractions, mixing_name)


def execute(
    config: RunConfig,
    out: Path,
    *,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    experiment: Experiment | None = None,
) -> dict[str, Any]:
    """Runs a config and writes `out/trials/<id>/`; returns its row.

    A run that cannot go on (a loss that is not finite) is written with status "failed" and its error.
    """
    import torch
    from safetensors.torch import save

    from fer_ray.data.batches import Batches
    from fer_ray.models import zoo
    from fer_ray.training import loop
    from fer_ray.training import runtime as machine

    started, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    runtime = machine.resolve(config.runtime)
    experiment = experiment or open_experiment(config)
    real = experiment.real
    mixture, num_train_images = draw(config, experiment)
    synthetic = experiment.synthetic if len(mixture.synthetic) else None
    size = image_size(config, real)
    data = loop.RunData(
        batches=Batches(real, synthetic, size=size, normalization=normalization(config), device=runtime.device),
        labels=np.concatenate([real.labels, *([synthetic.labels] if synthetic else [])]).astype(np.int64),
        train=np.concatenate([mixture.real, mixture.synthetic + len(real.images)]),
        validation=experiment.splits.validation,
        test=experiment.splits.test,
        num_nominal=num_train_images,
        num_classes=len(experiment.classes),
    )
    num_parameters = 0

    def build_model() -> torch.nn.Module:
        nonlocal num_parameters
        model = zoo.build(config.model, data.num_classes)
        num_parameters = sum(p.numel() for p in model.parameters())
        return model

    signature = experiment.signature(config)
    run_id = config.run_id(signature)
    outcome, error = loop.Outcome(), None
    epoch_rows: list[dict[str, Any]] = []

    def on_epoch(row: dict[str, Any]) -> None:
        epoch_rows.append(row)
        report(row)

    try:
        outcome = loop.fit(config, build_model, data, runtime, on_epoch)
    except loop.TrainingFailed as failure:
        error = str(failure)

    # As executed: the same threads, device and precision give the same numbers again.
    repeated = config.replace(
        {
            "runtime.threads": runtime.threads,
            "runtime.precision": runtime.precision,
            "runtime.device": runtime.device.type,
        }
    )
    row: dict[str, Any] = {
        "id": run_id,
        "signature": signature,
        "status": results.FAILED if error else results.FINISHED,
        "error": error,
        **repeated.flat(),
        "data.num_train_images": num_train_images,
        "data.image_size": size,
        "data.normalization": normalization(config),
        "data_name": real.name,
        "data_digest": real.digest,
        "synthetic_name": synthetic.name if synthetic else None,
        "synthetic_digest": synthetic.digest if synthetic else None,
        "classes": list(experiment.classes),
        "test_name": experiment.splits.test_name,
        "validation_name": experiment.splits.validation_name,
        "num_train_real": len(mixture.real),
        "num_train_synthetic": len(mixture.synthetic),
        "parameters": num_parameters,
        "epochs_run": len(epoch_rows),
        "images_seen": outcome.images_seen,
        "chosen_epoch": outcome.chosen_epoch or None,
        "test_reads": outcome.test_reads,
        **_scores("validation", data.labels[data.validation], outcome.validation_probabilities, experiment.classes),
        **_scores("test", data.labels[data.test], outcome.test_probabilities, experiment.classes),
        "device": machine.device_name(runtime.device),
        "precision": runtime.precision,
        "threads": runtime.threads,
        **machine.provenance(),
        "train_seconds": outcome.train_seconds,
        "wall_seconds": time.perf_counter() - started,
        "images_per_second": outcome.images_seen / outcome.train_seconds if outcome.train_seconds else None,
        "peak_memory_mb": max((r["peak_memory_mb"] or 0 for r in epoch_rows), default=None),
        "started_at": started_at,
        "host": platform.node(),
    }
    parts = [
        _predictions(name, real, index, probabilities, experiment.classes)
        for name, index, probabilities in (
            ("validation", data.validation, outcome.validation_probabilities),
            ("test", data.test, outcome.test_probabilities),
        )
    ]
    trial = results.Trial(
        row,
        pd.DataFrame([{"id": run_id, **r} for r in epoch_rows], columns=list(results.EPOCH_COLUMNS)),
        pd.concat(parts, ignore_index=True),
    )
    folder = out / "trials" / run_id
    files: dict[str, bytes | str | Path] = {
        "config.json": repeated.model_dump_json(indent=1) + "\n",
        "command.txt": repeat_command(folder) + "\n",
    }
    if outcome.weights:
        files["best.safetensors"] = save(
            {name: value.contiguous() for name, value in outcome.weights.items()},
            {"classes": ",".join(experiment.classes), "model": config.model.name, "id": run_id},
        )
    results.write_trial(folder, trial, files)
    return row


def repeat_command(folder: Path) -> str:
    """The shell command that repeats the run of a trial's folder."""
    return f"python -m fer_ray.train --config {shlex.quote(str(folder / 'config.json'))} --out repeated"


def _scores(
    split: str, labels: np.ndarray, probabilities: np.ndarray | None, classes: tuple[str, ...]
) -> Mapping[str, Any]:
    if probabilities is None:
        return {}
    scores = metrics.classification_metrics(labels, probabilities, classes)
    return {f"{split}_{name}": value for name, value in scores.items()}


def _predictions(
    split: str, real: Dataset, index: np.ndarray, probabilities: np.ndarray | None, classes: tuple[str, ...]
) -> pd.DataFrame:
    if probabilities is None:
        index, probabilities = index[:0], np.empty((0, len(classes)), np.float32)
    columns: dict[str, Any] = {
        "id": [sample.decode() for sample in np.asarray(real.ids)[index]],
        "split": split,
        "label": pd.Categorical.from_codes(real.labels[index], list(classes)),
    }
    columns |= {f"p_{name}": probabilities[:, i] for i, name in enumerate(classes)}
    return pd.DataFrame(columns)


def write_failure(config: RunConfig, run_id: str, out: Path, error: str, detail: str) -> dict[str, Any]:
    """Writes the row of a run that ended with an error of the program or of its worker; returns it.

    `detail` goes to its `traceback.txt`. Where not even this can be written, the row is still returned.
    """
    row = {"id": run_id, "status": results.FAILED, "error": error, **config.flat()}
    empty = pd.DataFrame(columns=list(results.EPOCH_COLUMNS))
    folder = out / "trials" / run_id
    files: dict[str, bytes | str | Path] = {
        "config.json": config.model_dump_json(indent=1) + "\n",
        "command.txt": repeat_command(folder) + "\n",
        "traceback.txt": detail,
    }
    with contextlib.suppress(UserError):
        results.write_trial(folder, results.Trial(row, empty, pd.DataFrame(columns=["id", "split", "label"])), files)
    return row
