"""Trained networks on any data set, alone or as an ensemble: metrics, a table by class, and a row for the tables."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray import cli, recipes
from fer_ray.config import RunConfig
from fer_ray.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from fer_ray.data.store import Dataset
    from fer_ray.trained import Trained

SPLITS = ("test", "validation", "train", "all")

OF_TRAINING = ("num_train_real", "num_train_synthetic", "chosen_epoch", "epochs_run", "parameters", "synthetic_digest")
"""Columns of a row that an evaluated network brings along."""

FILE_FLAGS = {
    "--task": "task.name",
    "--model": "model.name",
    "--head": "model.head",
    "--image-size": "data.image_size",
    "--normalization": "data.normalization",
    "--channels": "model.channels",
}
"""What a weights file does not say of itself."""

FLAGS = {
    "--data": "data.source",
    "--test-split": "data.test_split",
    "--label-set": "data.label_set",
    "--test-time": "augmentation.test_time",
    "--device": "runtime.device",
    "--threads": "runtime.threads",
    **FILE_FLAGS,
}


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.evaluate`."""
    parser = cli.Parser(
        "evaluate",
        "Score trained networks on a data set. Several are an ensemble: the mean of their probabilities. With --out, "
        "a row and predictions are written, which fer_ray.analysis takes like a trial's.",
        "python -m fer_ray.evaluate results/NAME/trials/ID --data fer2013.csv --split test",
    )
    parser.add_argument(
        "models",
        nargs="+",
        type=Path,
        metavar="MODEL",
        help="folder of a trial, a weights file (.pth, .pt, .safetensors; with --model and --names), or with --best "
        "the folder of a sweep",
    )
    parser.add_argument("--best", type=cli.number(int, least=1), metavar="K", help="an ensemble of a sweep's best K")
    parser.add_argument("--names", metavar="A,B,...", help="classes of a weights file, in the order of its outputs")
    parser.add_argument("--recipe", metavar="NAME", help="recipe that a weights file was trained by")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which images (default: test)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder for row and predictions")
    cli.add_config_flags(parser, FLAGS)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.evaluate`; returns the exit code."""
    options = parser().parse(arguments)
    values = cli.config_values(options, FLAGS)
    if "data.source" not in values:
        raise UserError("name the data set with --data, e.g. --data fer2013.csv")
    if options.out:
        cli.writable_folder(options.out)
    console = cli.stderr_console()
    models = _open(options, values)
    for model in models:
        console.print(f"{model.name}: {model.config.model.name}, {', '.join(model.classes)}, {model.image_size} px")

    import numpy as np

    from fer_ray import metrics
    from fer_ray.training import runtime as machine
    from fer_ray.training.tasks import Answers

    first = models[0]
    config = first.config.replace(values)
    runtime = machine.resolve(config.runtime)
    dataset, index, split_name = _images(config, first, options.split)
    for note in dataset.notes:
        console.print(note)
    console.print(f"{dataset.name}: {split_name}")
    answers = Answers.mean([_answer(model, config, dataset, index, runtime) for model in models])
    scores: dict[str, Any] = {}
    if answers.probabilities is not None:
        scores |= metrics.classification_metrics(
            dataset.labels[index].astype(np.int64), answers.probabilities, first.classes
        )
    if answers.affect is not None and dataset.valence is not None and dataset.arousal is not None:
        true = np.stack([dataset.valence[index], dataset.arousal[index]], axis=1)
        scores |= metrics.affect_metrics(true, answers.affect)
    _print(scores, first.classes)
    if options.out:
        folder = _write(options.out, models, config, dataset, index, split_name, answers, scores, arguments)
        print(f"written to {folder}")
    return 0


def _open(options: Any, values: dict[str, Any]) -> "list[Trained]":
    """The networks that the command line names. Raises UserError when they do not answer the same question."""
    from fer_ray import trained

    paths = options.models
    if options.best:
        if len(paths) > 1:
            raise UserError("--best takes the folder of one sweep")
        paths = trained.best_of(paths[0], options.best)
    models = []
    for path in paths:
        if path.is_dir():
            models.append(trained.open_trial(trained.read_record(path)))
            continue
        if not options.names:
            raise UserError(
                f"{path} does not say its classes; give them in order, e.g. --names angry,happy,sad,neutral"
            )
        base = recipes.load(options.recipe).values if options.recipe else {}
        config = RunConfig.from_flat({**base, **values, "model.weights": "none"})
        models.append(trained.open_file(path, config, cli.split_list(options.names)))
    others = [model.name for model in models if model.classes != models[0].classes]
    if others:
        raise UserError(
            f"{others[0]} has other classes than {models[0].name}, or another order: an ensemble needs the same"
        )
    return models


def _images(config: RunConfig, model: "Trained", split: str) -> "tuple[Dataset, np.ndarray, str]":
    """The data with the network's classes, int64 indices of the split, and its name.

    Raises UserError when the data have other classes than the network, or nothing in the split.
    """
    import numpy as np

    from fer_ray import labels
    from fer_ray.data import splits
    from fer_ray.data.store import open_dataset

    dataset = open_dataset(config.data.source, align=config.data.align)
    if config.data.label_set != "native":
        label_map = labels.map_to(dataset.classes, config.data.label_set)
        dataset = dataset.select_classes(label_map.classes, label_map.merged)
    if not set(dataset.classes) & set(model.classes):
        raise UserError(
            f"{dataset.name} has none of the network's classes ({', '.join(model.classes)}), but "
            f"{', '.join(dataset.classes)}; choose a --label-set"
        )
    strange = [name for name in dataset.classes if name not in model.classes]
    if strange and config.data.classes != "common":
        raise UserError(
            f"{dataset.name} has classes that the network does not know: {', '.join(strange)}; choose a --label-set, "
            "or leave them out with --set data.classes=common"
        )
    dataset = dataset.select_classes(model.classes)
    if split == "all":
        index = np.flatnonzero(dataset.labels >= 0)
        return dataset, index, f"all ({len(index):,})"
    parts = splits.assign(dataset, config.data.test_split, config.data.fold, needs_all_classes=False)
    index = getattr(parts, split)
    name = {"test": parts.test_name, "validation": parts.validation_name}.get(split, f"train ({len(index):,})")
    if not len(index):
        raise UserError(f"{dataset.name} has no images in the split {split}")
    return dataset, index, name


def _answer(model: "Trained", config: RunConfig, dataset: "Dataset", index: "np.ndarray", runtime: Any) -> Any:
    import numpy as np

    from fer_ray.data import augment
    from fer_ray.data.batches import Batches
    from fer_ray.training import loop, tasks

    task = tasks.build(model.config, model.classes, np.ones(len(model.classes), np.int64))
    batches = Batches(
        [dataset],
        size=model.image_size,
        normalization=model.normalization,
        channels=model.config.model.channels,
        device=runtime.device,
    )
    views = augment.test_views(config.augmentation.test_time)
    return loop.predict(runtime.place(model.network), batches, index, task, runtime, views)


def _print(scores: dict[str, Any], classes: tuple[str, ...]) -> None:
    from rich.table import Table

    console = cli.stdout_console()
    measures = ("precision", "recall", "f1", "auroc")
    by_class = {f"{measure}_{name}" for measure in (*measures, "support") for name in classes}
    for name, value in scores.items():
        if name not in by_class and isinstance(value, int | float | None):
            console.print(f"{name:27} {'–' if value is None else f'{value:.4f}'}")
    if f"support_{classes[0]}" not in scores:
        return
    table = Table("class", "precision", "recall", "F1", "AUROC", "support")
    for name in classes:
        values = [scores.get(f"{measure}_{name}") for measure in measures]
        table.add_row(name, *("–" if v is None else f"{v:.3f}" for v in values), f"{scores[f'support_{name}']:,}")
    console.print(table)


def _write(
    out: Path,
    models: "list[Trained]",
    config: RunConfig,
    dataset: "Dataset",
    index: "np.ndarray",
    split_name: str,
    answers: Any,
    scores: dict[str, Any],
    arguments: Sequence[str],
) -> Path:
    """A row and predictions like a trial's, on the split called test."""
    import pandas as pd

    from fer_ray import results
    from fer_ray.run import predictions_table
    from fer_ray.training.runtime import provenance

    first = models[0]
    name = "ensemble-" + "-".join(model.name.rpartition("-")[2] for model in models) if len(models) > 1 else first.name
    run_id = f"{name}-on-{dataset.digest[:8]}"
    row = {
        "id": run_id,
        "status": results.FINISHED,
        "error": None,
        **first.config.flat(),
        "model.name": name if len(models) > 1 else first.config.model.name,
        "data.source": config.data.source,
        "data_name": dataset.name,
        "data_digest": dataset.digest,
        "classes": list(first.classes),
        "test_name": split_name,
        **{key: first.row.get(key) for key in OF_TRAINING},
        "members": [model.name for model in models],
        **{f"test_{key}": value for key, value in scores.items()},
        **provenance(),
    }
    trial = results.Trial(
        row, pd.DataFrame(columns=list(results.EPOCH_COLUMNS)), predictions_table("test", dataset, index, answers)
    )
    command = shlex.join(["python", "-m", "fer_ray.evaluate", *arguments])
    return results.write_trial(out / "trials" / run_id, trial, {"command.txt": command + "\n"})


if __name__ == "__main__":
    cli.main(command)
