"""`python -m fer_ray.data gap`: how far synthetic faces are from real ones, overall and per class."""

import csv
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fer_ray import cli, labels
from fer_ray.config import KEYS
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from fer_ray.data.splits import Splits
    from fer_ray.data.store import Dataset
    from fer_ray.diagnostics.features import Features, Network
    from fer_ray.diagnostics.gap_study import Comparison, Group
    from fer_ray.trained import Record
    from fer_ray.training.runtime import Runtime

DEFAULT_EPOCHS = 3


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.data gap`."""
    test_split, classes, device = (KEYS[key] for key in ("data.test_split", "data.classes", "runtime.device"))
    parser = cli.Parser(
        "data gap",
        "Measure how far synthetic faces are from real ones in the features of a network: Frechet, kernel and "
        "Jensen-Shannon distance, precision, recall, density, coverage, and a real-or-synthetic classifier; overall "
        "and per class, each beside the same figure for two halves of the real faces. The real faces are those of "
        "validation and test, which the network did not learn from.",
        "python -m fer_ray.data gap fer2013.csv faces.parquet --out gap",
    )
    parser.add_argument("real", metavar="REAL", help="real faces: a folder, .csv, .parquet or .zip, or demo")
    parser.add_argument("synthetic", metavar="SYNTHETIC", help="synthetic faces: the same; demo has its own")
    parser.add_argument("--out", type=Path, default=Path("gap"), metavar="DIR", help="folder to write (default: gap)")
    parser.add_argument(
        "--network",
        type=Path,
        metavar="DIR",
        help="folder of a finished trial whose weights give the features (default: a ResNet18 is trained for it)",
    )
    parser.add_argument(
        "--epochs",
        type=cli.number(int, least=1),
        metavar="N",
        help=f"epochs of the network trained for it, 4,000 real faces each (default: {DEFAULT_EPOCHS})",
    )
    parser.add_argument(
        "--max-images",
        type=cli.number(int, least=50),
        default=2000,
        metavar="N",
        help="faces in each set that is compared, at most (default: 2000)",
    )
    parser.add_argument(
        "--seed", type=cli.number(int, least=0, most=2**32 - 1), default=0, metavar="N", help="default: 0"
    )
    parser.add_argument(
        "--classes",
        choices=get_args(classes.annotation),
        default=classes.default,
        metavar="VALUE",
        help=f"{classes.description} (default: {classes.default})",
    )
    parser.add_argument(
        "--test-split",
        choices=get_args(test_split.annotation),
        metavar="VALUE",
        help=f"{test_split.description} (default: that of --network, else {test_split.default})",
    )
    parser.add_argument(
        "--device", default=device.default, metavar="VALUE", help=f"{device.description} (default: {device.default})"
    )
    parser.add_argument(
        "--threads",
        type=cli.number(int, least=1, most=1024),
        metavar="N",
        help="CPU threads of the network; the same figures need the same number (default: every core)",
    )
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.data gap`; returns the exit code."""
    options = parser().parse(arguments)
    if options.network and options.epochs:
        raise UserError("--epochs is for a network that is trained here; leave out --epochs, or --network")
    console = cli.stderr_console()

    from fer_ray import trained
    from fer_ray.data import splits
    from fer_ray.data.store import open_dataset, open_like
    from fer_ray.diagnostics import features, gap_page, gap_study

    trial = trained.read_record(options.network) if options.network else None
    runtime = features.resolve(options.device, options.threads or "auto")
    console.print(f"reading {options.real} and {options.synthetic}")
    align = trial is not None and trial.config.data.align
    real = open_dataset(options.real, align=align)
    synthetic = open_like(options.synthetic, real, align=align)
    shared = labels.common_classes({"real": real.classes, "synthetic": synthetic.classes}, options.classes)
    left_out = labels.in_order({*real.classes, *synthetic.classes}.difference(shared))
    real, synthetic = real.select_classes(shared), synthetic.select_classes(shared)
    test_split = _test_split(options.test_split, trial, real)
    parts = splits.assign(real, test_split)
    groups = gap_study.draw(real, parts, synthetic, options.max_images, options.seed)
    notes = _notes(groups, left_out, trial, real, synthetic)
    for note in [*real.notes, *synthetic.notes, *notes]:
        console.print(note)

    cli.writable_folder(options.out)
    network = _network(options, trial, real, parts, runtime, console)
    tables = _features(network, groups, real, synthetic, runtime, console)
    comparisons = _compared(groups, tables, options.seed, console)
    made = {
        "real faces": f"{real.name}, digest {real.digest}: {parts.validation_name} and {parts.test_name}",
        "synthetic faces": f"{synthetic.name}, digest {synthetic.digest}",
        **network.facts,
        "features": f"input of its classifier, {tables[0].values.shape[1]} numbers of a face, unscaled",
        "seed": options.seed,
        "device": f"{runtime.device}, {runtime.threads} threads, {runtime.precision}",
    }
    picture = gap_page.points(groups[0], real, synthetic, tables, options.seed)
    title = f"Domain gap: {real.name} and {synthetic.name}"
    console.print("drawing the page")
    html = gap_page.render(title, comparisons, picture, made, notes, options.seed)
    _write(options.out, comparisons, made | {"test_split": test_split, "notes": notes}, html)
    _print(title, comparisons)
    print(f"written to {options.out}: gap.html, gap.json, gap.csv")
    return 0


def _test_split(asked: str | None, trial: "Record | None", real: "Dataset") -> Any:
    """The test split asked for, which has to be the network's own where it was trained on these data."""
    own = trial.config.data.test_split if trial else None
    if trial is None or trial.row.get("data_digest") != real.digest:
        return asked or KEYS["data.test_split"].default
    if asked not in (None, own):
        raise UserError(
            f"--test-split {asked}: the network of {trial.folder} was trained with {own}, so that it may have learned "
            f"from these faces; leave --test-split out, or name a network trained with --test-split {asked}"
        )
    return own


def _notes(
    groups: "Sequence[Group]",
    left_out: Sequence[str],
    trial: "Record | None",
    real: "Dataset",
    synthetic: "Dataset",
) -> list[str]:
    """What a reader should know before the numbers, a sentence each."""
    from fer_ray.diagnostics.gap import MIN_FACES

    count = len(groups[0].reference)
    notes = [
        f"{real.name}: {count:,} faces of validation and test against {count:,} of {synthetic.name} with the same "
        f"classes, and against {count:,} other real ones, which is the floor: what exceeds it is the gap"
    ]
    if few := [f"{group.name} ({len(group.reference)})" for group in groups if len(group.reference) < MIN_FACES]:
        notes.append(f"too few faces to be measured alone, of {MIN_FACES} in each set: {', '.join(few)}")
    if left_out:
        notes.append(f"classes of one side only are left out: {', '.join(left_out)}")
    if trial and trial.row.get("data_digest") != real.digest:
        notes.append(f"the network was trained on other data, {trial.row.get('data_name')}")
    if trial and trial.row.get("num_train_synthetic") and trial.row.get("synthetic_digest") == synthetic.digest:
        notes.append("the network learned from some of these synthetic faces, which may bring them nearer")
    return notes


def _network(
    options: Namespace,
    trial: "Record | None",
    real: "Dataset",
    parts: "Splits",
    runtime: "Runtime",
    console: "Console",
) -> "Network":
    from fer_ray.diagnostics import features

    if trial:
        console.print(f"loading the network of {trial.folder}")
        return features.load(trial, runtime)
    epochs = options.epochs or DEFAULT_EPOCHS

    def say(row: dict[str, Any]) -> None:
        console.print(
            f"epoch {row['epoch']}/{epochs}: validation macro F1 {row['validation_macro_f1']:.3f}, "
            f"{row['images_per_second']:.0f} images/s"
        )

    console.print(f"training {features.FRESH.model.name} on {len(parts.train):,} real training faces for features")
    return features.train(real, parts, epochs=epochs, seed=options.seed, runtime=runtime, report=say)


def _features(
    network: "Network",
    groups: "Sequence[Group]",
    real: "Dataset",
    synthetic: "Dataset",
    runtime: "Runtime",
    console: "Console",
) -> "tuple[Features, Features]":
    from rich.progress import Progress

    from fer_ray.diagnostics import features, gap_study

    of_real, of_synthetic = gap_study.faces_of(groups)
    total = len(of_real) + len(of_synthetic)
    console.print(f"features of {total:,} faces")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("features", total=total)

        def advance(count: int) -> None:
            progress.advance(bar, count)

        return (
            features.extract(network, real, of_real, runtime, advance),
            features.extract(network, synthetic, of_synthetic, runtime, advance),
        )


def _compared(
    groups: "Sequence[Group]", tables: "tuple[Features, Features]", seed: int, console: "Console"
) -> "list[Comparison]":
    from rich.progress import Progress

    from fer_ray.diagnostics import gap_study

    console.print(f"comparing {len(groups)} groups with synthetic and with other real faces")
    done = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("comparing", total=2 * len(groups))
        for comparison in gap_study.compare(groups, *tables, seed):
            done.append(comparison)
            progress.advance(bar)
    return done


def _write(folder: Path, comparisons: "Sequence[Comparison]", made: dict[str, Any], html: str) -> None:
    """Writes the three files. Raises UserError when the disk is full."""
    from fer_ray.diagnostics.gap_study import MEASURES
    from fer_ray.training import runtime

    rows = [comparison.row() for comparison in comparisons]
    record = {
        "made": made,
        "versions": runtime.provenance(),
        "definitions": {key: measure.definition for key, measure in MEASURES.items()},
        "comparisons": rows,
    }
    try:
        (folder / "gap.html").write_text(html, encoding="utf-8")
        (folder / "gap.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        with (folder / "gap.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(
            f"--out {folder}: cannot write there ({error.strerror}); free space or choose another"
        ) from error


def _print(title: str, comparisons: "Sequence[Comparison]") -> None:
    """The two tables of the page. Where the terminal is too narrow their lines run on, since no number may be cut."""
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from fer_ray.diagnostics import gap_page

    console = cli.stdout_console()
    narrow: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False, "title_justify": "left"}
    for heading, head, rows in (
        (title, gap_page.OVERALL_HEAD, gap_page.overall_rows(comparisons)),
        ("By class", gap_page.CLASS_HEAD, gap_page.class_rows(comparisons)),
    ):
        table = Table(title=Text(heading), box=box.SIMPLE_HEAD, **narrow)
        for name, column in zip(head, zip(*rows, strict=True), strict=True):
            table.add_column(Text(name), min_width=max(map(len, (name, *column))), no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        needed = Measurement.get(console, console.options.update(max_width=10_000), table).minimum
        console.print(table, width=max(needed, console.width), crop=False)
        console.print()
