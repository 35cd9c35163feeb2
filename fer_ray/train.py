"""One run without Ray: the same config gives the same numbers as the trial of a sweep."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_ray import cli
from fer_ray.config import RunConfig
from fer_ray.errors import UserError

FLAGS = {
    "--model": "model.name",
    "--real-fraction": "data.real_fraction",
    "--seed": "training.seed",
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
        "--config", type=Path, metavar="FILE", help="start from a trial's config.json; flags change it (default: none)"
    )
    parser.add_argument("--again", action="store_true", help="train even if OUT has this run finished already")
    cli.add_config_flags(parser, FLAGS)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.train`; returns the exit code."""
    options = parser().parse(arguments)
    values = cli.config_values(options, FLAGS)
    base = _read_config(options.config) if options.config else RunConfig()
    config = base.replace(values)

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fer_ray import results
    from fer_ray.data import augment
    from fer_ray.models import zoo

    zoo.check_name(config.model.name)
    augment.resolve(config.augmentation)
    cli.writable_folder(options.out)
    console = cli.stderr_console()

    from fer_ray import run

    config = run.with_absolute_paths(config)
    with console.status("opening the data") if console.is_terminal else console:
        experiment = run.open_experiment(config)
    for note in run.data_notes(experiment):
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

        row = run.execute(config, options.out, report=on_epoch, experiment=experiment)
    print(summary(row))
    print(f"written to {folder}")
    return 0 if row["status"] == results.FINISHED else cli.FAILED_TRIALS


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {row['epoch']:3d}/{epochs}  loss {row['train_loss']:.3f}  train {row['train_accuracy']:.3f}  "
        f"validation {row['validation_accuracy']:.3f} (macro F1 {row['validation_macro_f1']:.3f})  "
        f"{row['images_per_second']:.0f} images/s"
    )


def summary(row: dict[str, Any]) -> str:
    """A run's outcome in one line."""
    if row["error"]:
        return f"{row['id']} failed: {row['error']}"
    return (
        f"{row['id']}: epoch {row['chosen_epoch']} of {row['epochs_run']}; validation accuracy "
        f"{row['validation_accuracy']:.4f} on {row['validation_name']}; test accuracy {row['test_accuracy']:.4f}, "
        f"macro F1 {row['test_macro_f1']:.4f} on {row['test_name']}; {row['wall_seconds']:.0f} s"
    )


def _read_config(path: Path) -> RunConfig:
    try:
        groups = json.loads(path.read_bytes())
        return RunConfig.from_flat(
            {f"{group}.{name}": groups[group][name] for group in groups for name in groups[group]}
        )
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"--config {path}: expected the config.json of a trial ({error})") from error
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error


if __name__ == "__main__":
    cli.main(command)
