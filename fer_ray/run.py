"""One run: a config in, a row and files out. Called by `fer_ray.train` and the Ray trial alike."""

import contextlib
import platform
import shlex
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fer_ray import metrics, results
from fer_ray.config import RunConfig
from fer_ray.data.store import Dataset
from fer_ray.errors import UserError
from fer_ray.experiment import Experiment, draw, open_experiment
from fer_ray.run_data import gather, image_size, normalization

if TYPE_CHECKING:
    from fer_ray.models.network import Network
    from fer_ray.training.loop import RunData
    from fer_ray.training.tasks import Answers


def execute(
    config: RunConfig,
    out: Path,
    *,
    report: Callable[[dict[str, Any]], bool | None] = lambda row: None,
    experiment: Experiment | None = None,
    weights_file: Path | None = None,
    is_resumable: bool = True,
    with_artifacts: bool = False,
    say: Callable[[str], None] = lambda note: None,
    on_checkpoint: Callable[[Path], None] = lambda path: None,
    tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs a config and writes `out/trials/<id>/`; returns its row.

    A run that cannot go on (a loss that is not finite) is written with status "failed" and its error. One that is
    interrupted leaves checkpoints in `out/checkpoints/<id>/`, from which the same config goes on, unless
    `is_resumable` is False; they go when the run ends. Where a GPU's memory does not hold a batch, it is cut in half,
    with accumulated gradients, and the run goes on; the row counts it.

    Args:
        experiment: the opened data of the config.
        weights_file: where the file of `model.weights` lies on this machine, if it is named as it is on another.
        report: told of each epoch's row; True ends the run there, with status "stopped" and the test split unread.
        with_artifacts: write what `fer_ray.artifacts` lists beside the row.
        say: told what happened on the way: weights that were loaded, a checkpoint that a run goes on from.
        on_checkpoint: told of each checkpoint, before its epoch is reported.
        tags: further columns of the row, which say what the run is part of.
    """
    import torch
    from safetensors.torch import save

    from fer_ray.models import zoo
    from fer_ray.training import checkpoint, loop, tasks
    from fer_ray.training import runtime as machine

    started, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    runtime = machine.resolve(config.runtime)
    experiment = experiment or open_experiment(config)
    real = experiment.real
    parts = experiment.parts(config)
    mixture, num_train_images = draw(config, experiment)
    synthetic = experiment.synthetic if len(mixture.synthetic) else None
    size = image_size(config, real)
    data = gather(config, experiment, mixture, num_train_images, runtime.device)
    classes = experiment.classes
    train_counts = np.bincount(data.labels[data.train][data.labels[data.train] >= 0], minlength=len(classes))
    task = tasks.build(config, classes, train_counts)
    num_parameters = 0
    local = config if weights_file is None else config.replace({"model.weights": str(weights_file)})

    def build_network() -> "Network":
        nonlocal num_parameters
        network = zoo.build(local.model, task.num_classes, task.num_affect, size)
        num_parameters = sum(p.numel() for p in network.parameters())
        for line in network.load_report.lines() if network.load_report else []:
            say(f"{config.model.weights}: {line}")
        return network

    signature = experiment.signature(local)
    run_id = config.run_id(signature)
    outcome, error, retries = loop.Outcome(), None, 0
    checkpoints = out / "checkpoints" / run_id if is_resumable else None
    epoch_rows: list[dict[str, Any]] = []

    def on_epoch(row: dict[str, Any]) -> bool | None:
        epoch_rows.append(row)
        return report(row)

    fitted = config
    while True:
        try:
            outcome = loop.fit(
                fitted,
                build_network,
                task,
                data,
                runtime,
                on_epoch,
                checkpoints=checkpoints,
                signature=signature,
                on_checkpoint=on_checkpoint,
            )
        except loop.TrainingFailed as failure:
            error = str(failure)
        except torch.OutOfMemoryError as failure:
            if (halved := _halved(fitted)) is not None:
                fitted, retries = halved, retries + 1
                epoch_rows.clear()
                machine.free_memory()
                continue
            error = f"the GPU's memory does not hold two images of a batch: {str(failure).splitlines()[0]}"
        break
    if retries:
        parts_of_batch = fitted.optimizer.accumulation_steps
        say(f"{run_id}: the GPU's memory was full; each batch was trained in {parts_of_batch} parts")

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
        "status": results.FAILED if error else results.STOPPED if outcome.is_stopped else results.FINISHED,
        "error": error,
        **repeated.flat(),
        "data.num_train_images": num_train_images,
        "data.image_size": size,
        "data.normalization": normalization(config),
        **(tags or {}),
        "data_name": real.name,
        "data_digest": real.digest,
        "synthetic_name": synthetic.name if synthetic else None,
        "synthetic_digest": synthetic.digest if synthetic else None,
        "cross_digest": experiment.cross.digest if experiment.cross else None,
        "classes": list(experiment.classes),
        **{f"{name}_name": test.name for name, test in parts.tests.items()},
        "validation_name": parts.validation_name,
        "num_train_real": len(mixture.real),
        "num_train_synthetic": len(mixture.synthetic),
        "parameters": num_parameters,
        "epochs_run": len(epoch_rows),
        "images_seen": outcome.images_seen,
        "chosen_epoch": outcome.chosen_epoch or None,
        "test_reads": outcome.test_reads,
        "out_of_memory_retries": retries,
        "validation_loss": next((e["validation_loss"] for e in epoch_rows if e["epoch"] == outcome.chosen_epoch), None),
        **_scores("validation", data, data.validation, outcome.validation, classes),
        **{
            key: value
            for name, index in data.tests.items()
            for key, value in _scores(name, data, index, outcome.tests.get(name), classes).items()
        },
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
    predictions = [
        predictions_table("validation", real, parts.validation, outcome.validation),
        *(
            predictions_table(name, test.dataset, test.index, outcome.tests.get(name))
            for name, test in parts.tests.items()
        ),
    ]
    trial = results.Trial(
        row,
        pd.DataFrame([{"id": run_id, **r} for r in epoch_rows], columns=list(results.EPOCH_COLUMNS)),
        pd.concat(predictions, ignore_index=True),
    )
    folder = out / "trials" / run_id
    files: dict[str, bytes | str | Path] = {
        "config.json": repeated.model_dump_json(indent=1) + "\n",
        "command.txt": repeat_command(folder) + "\n",
    }
    if outcome.weights and not outcome.is_stopped:
        files["best.safetensors"] = save(
            {name: value.contiguous() for name, value in outcome.weights.items()},
            {"classes": ",".join(experiment.classes), "model": config.model.name, "id": run_id},
        )
    results.write_trial(folder, trial, files)
    if checkpoints is not None and not outcome.is_stopped:
        checkpoint.discard(checkpoints)
    for note in outcome.notes:
        say(note)
    if with_artifacts:
        from fer_ray import artifacts

        for note in artifacts.write(
            folder, row, trial.epochs, trial.predictions, outcome, repeated, experiment.classes
        ).notes:
            say(note)
    return row


def _halved(config: RunConfig) -> RunConfig | None:
    """The config with each batch cut into twice as many parts; None where a part would be one image."""
    parts = 2 * config.optimizer.accumulation_steps
    if config.training.batch_size // parts < 2:
        return None
    return config.replace({"optimizer.accumulation_steps": parts})


def repeat_command(folder: Path) -> str:
    """The shell command that repeats the run of a trial's folder."""
    return f"python -m fer_ray.train --recipe {shlex.quote(str(folder / 'config.json'))} --out repeated"


def _scores(
    split: str, data: "RunData", index: np.ndarray, answers: "Answers | None", classes: tuple[str, ...]
) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if answers is not None and answers.probabilities is not None:
        scores |= metrics.classification_metrics(data.labels[index], answers.probabilities, classes)
    valence, arousal = data.affect(index)
    if answers is not None and answers.affect is not None and valence is not None and arousal is not None:
        scores |= metrics.affect_metrics(np.stack([valence, arousal], axis=1), answers.affect)
    return {f"{split}_{name}": value for name, value in scores.items()}


def predictions_table(split: str, dataset: Dataset, index: np.ndarray, answers: "Answers | None") -> pd.DataFrame:
    """The rows of predictions.parquet for the images at `index`, int64 [n], of a split."""
    index = index if answers is not None else index[:0]
    columns: dict[str, Any] = {
        "id": [sample.decode() for sample in np.asarray(dataset.ids)[index]],
        "split": split,
        "label": pd.Categorical.from_codes(dataset.labels[index], list(dataset.classes)),
    }
    values = np.empty((0, len(dataset.classes)), np.float32) if answers is None else answers.probabilities
    if values is not None:
        columns |= {f"p_{name}": values[:, i] for i, name in enumerate(dataset.classes)}
    if answers is not None and answers.affect is not None:
        for i, name in enumerate(("valence", "arousal")):
            columns[name] = getattr(dataset, name)[index]
            columns[f"predicted_{name}"] = answers.affect[:, i]
    return pd.DataFrame(columns)


def write_failure(
    config: RunConfig, run_id: str, out: Path, error: str, detail: str, tags: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes the row of a run that ended with an error of the program or of its worker; returns it.

    `detail` goes to its `traceback.txt`. Where not even this can be written, the row is still returned.
    """
    row = {"id": run_id, "status": results.FAILED, "error": error, **(tags or {}), **config.flat()}
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
