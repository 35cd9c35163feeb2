"""One run without Ray: the same config gives the same numbers as the trial of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_ray import cli, recipes
from fer_ray.config import RunConfig

FLAGS = {
    "--model": "model.name",
    "--real-fraction": "data.real_fraction",
    "--seed": "training.seed",
    "--task": "task.name",
    **cli.COMMON_FLAGS,
}


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.train`."""
    parser = cli.Parser(
        "train",
        "Train and evaluate one network. Writes OUT/trials/<id>/ with its row, epochs, predictions and weights.",
        "python -m fer_ray.train --data fer2013.csv --model ResNet18 --epochs 20 --out results/resnet18",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results folder")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"start from a recipe: {', '.join(recipes.names())}, or a .json file of config keys, such as a trial's "
        "config.json; flags change it (default: none)",
    )
    cli.add_strict_flag(parser)
    parser.add_argument(
        "--artifacts",
        action="store_true",
        help="also write checkpoints (.pth), pictures, a report, TensorBoard logs and metadata into the trial's folder",
    )
    parser.add_argument("--again", action="store_true", help="train even if OUT has this run finished already")
    cli.add_config_flags(parser, FLAGS)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.train`; returns the exit code."""
    options = parser().parse(arguments)
    values = cli.config_values(options, FLAGS)
    recipe = recipes.load(options.recipe) if options.recipe else None
    config = RunConfig.from_flat({**(recipe.values if recipe else {}), **values})

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fer_ray import results
    from fer_ray.data import augment
    from fer_ray.models import zoo

    zoo.check_name(config.model.name)
    augment.resolve(config.augmentation)
    cli.writable_folder(options.out)
    console = cli.stderr_console()

    from fer_ray import experiment as data
    from fer_ray import run
    from fer_ray.progress import shown

    config = data.with_absolute_paths(config)
    with shown(console):
        experiment = data.open_experiment(config)
        notes = data.data_notes(experiment, config) + data.check_leaks(experiment, config, options.strict)
    for note in notes:
        console.print(note)
    signature = experiment.signature(config)
    folder = options.out / "trials" / config.run_id(signature)
    if not options.again and (folder / "row.json").exists():
        row = results.read_json(folder / "row.json")
        if row["status"] == results.FINISHED:
            console.print(f"already finished, not trained again (--again does): {folder}")
            print(summary(row))
            return 0
    columns = (TextColumn("epochs"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("epochs", total=config.training.epochs)

        def on_epoch(row: dict[str, Any]) -> None:
            console.print(epoch_line(row, config.training.epochs))
            progress.advance(bar)

        results.write_leakage(options.out, data.leak_columns(experiment, config))
        row = run.execute(
            config,
            options.out,
            report=on_epoch,
            experiment=experiment,
            is_resumable=not options.again,
            with_artifacts=options.artifacts,
            say=console.print,
        )
    print(summary(row))
    print(f"written to {folder}")
    return 0 if row["status"] == results.FINISHED else cli.FAILED_TRIALS


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    parts = [f"epoch {row['epoch']:3d}/{epochs}  loss {row['train_loss']:.3f}"]
    if row["train_accuracy"] is not None:
        parts.append(f"train {row['train_accuracy']:.3f}")
        parts.append(f"validation {row['validation_accuracy']:.3f} (macro F1 {row['validation_macro_f1']:.3f})")
    if "validation_ccc" in row:
        parts.append(f"valence and arousal: CCC {row['validation_ccc']:.3f}, MAE {row['validation_mae']:.3f}")
    return "  ".join([*parts, f"{row['images_per_second']:.0f} images/s"])


def summary(row: dict[str, Any]) -> str:
    """A run's outcome in one line."""
    if row["error"]:
        return f"{row['id']} failed: {row['error']}"
    others = [name for name in ("synthetic_test", "cross_test") if f"{name}_name" in row]
    parts = [f"validation {_scores(row, 'validation')} on {row['validation_name']}"]
    parts += [f"{name.replace('_', ' ')} {_scores(row, name)} on {row[f'{name}_name']}" for name in ("test", *others)]
    epoch = f"epoch {row['chosen_epoch']} of {row['epochs_run']}"
    memory = f", at most {row['peak_memory_mb']:,.0f} MB" if row.get("peak_memory_mb") else ""
    return f"{row['id']}: {epoch}; {'; '.join(parts)}; {row['wall_seconds']:.0f} s{memory}"


def _scores(row: dict[str, Any], split: str) -> str:
    names = {"accuracy": "accuracy", "macro_f1": "macro F1", "ccc": "CCC", "mae": "MAE"}
    values = {said: row.get(f"{split}_{name}") for name, said in names.items()}
    return ", ".join(f"{said} {value:.4f}" for said, value in values.items() if value is not None)


if __name__ == "__main__":
    cli.main(command)
