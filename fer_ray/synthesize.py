"""Makes synthetic faces from the training faces of a data set and writes them as Parquet, ready for `--synthetic`."""

import argparse
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fer_ray import cli
from fer_ray.errors import UserError

if TYPE_CHECKING:
    import numpy as np

METHODS = {"ppca": "class-conditional probabilistic PCA: blurred faces with a visible class, in seconds, on the CPU"}


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.synthesize` up to the method's name."""
    parser = cli.Parser(
        "synthesize",
        "Make synthetic faces from the training faces of a data set. Each method has its own --help.",
        "python -m fer_ray.synthesize ppca --help",
    )
    described = "; ".join(f"{name}: {text}" for name, text in METHODS.items())
    parser.add_argument("method", metavar="METHOD", choices=list(METHODS), help=described)
    return parser


def ppca_parser() -> cli.Parser:
    """The command line of `python -m fer_ray.synthesize ppca`."""
    from fer_ray.config import KEYS

    test_split = KEYS["data.test_split"]
    parser = cli.Parser(
        "synthesize ppca",
        "Fit probabilistic PCA (Tipping and Bishop 1999) to the training faces of each class, mix the latent vectors "
        "of two of them, and decode. Validation and test faces are not looked at. The same data, seed and machine "
        "give the same faces.",
        "python -m fer_ray.synthesize ppca --data fer2013.csv --per-class 1500 --out faces.parquet",
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="real faces: a folder, .csv, .parquet or .zip, or demo (required)"
    )
    parser.add_argument(
        "--per-class",
        type=cli.number(int, least=1),
        required=True,
        metavar="N",
        help="faces to make of each class (required)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet file to write (required)")
    parser.add_argument("--seed", type=cli.number(int, least=0), default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--components",
        type=cli.number(int, least=1),
        default=64,
        metavar="N",
        help="principal components of a class, at most its training faces less 1 (default: 64)",
    )
    parser.add_argument(
        "--test-split",
        choices=get_args(test_split.annotation),
        default=test_split.default,
        metavar="VALUE",
        help="as the sweep will have it: public and all validate on a part of training, which is then left out "
        f"(default: {test_split.default})",
    )
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.synthesize`; returns the exit code."""
    parser().parse(arguments[:1])
    return ppca_command(ppca_parser().parse(arguments[1:]))


def ppca_command(options: argparse.Namespace) -> int:
    """Makes faces by probabilistic PCA and writes them; returns the exit code."""
    _check_out(options.out)
    console = cli.stderr_console()

    import numpy as np

    from fer_ray.data import splits
    from fer_ray.data.store import open_dataset
    from fer_ray.synthesis import ppca

    console.print(f"reading {options.data}")
    dataset = open_dataset(options.data)
    train = splits.assign(dataset, options.test_split).train
    console.print(f"{dataset.name}: {len(train):,} training faces of {len(dataset.classes)} classes")
    faces = []
    for label, name in enumerate(dataset.classes):
        of_class = train[dataset.labels[train] == label]
        if len(of_class) < ppca.MIN_FACES:
            raise UserError(
                f"{dataset.name}: {len(of_class)} training face of {name!r}, expected at least {ppca.MIN_FACES}; "
                "add some, or leave the class out"
            )
        model = ppca.fit(dataset.images[of_class], options.components)
        faces.append(ppca.sample(model, options.per_class, np.random.default_rng([options.seed, label])))
        console.print(
            f"{name}: {options.per_class:,} faces from {len(of_class):,}, "
            f"{len(model.loadings)} components with {model.explained:.0%} of the variance"
        )
    source = f"probabilistic PCA of {dataset.name} (digest {dataset.digest}), seed {options.seed}"
    write_faces(options.out, dict(zip(dataset.classes, faces, strict=True)), source)
    print(f"{options.per_class * len(faces):,} faces written to {options.out}")
    return 0


def write_faces(path: Path, faces: "dict[str, np.ndarray]", source: str) -> None:
    """Writes uint8 [n, H, W, C] faces by class name as the Parquet that `fer_ray.data.readers.fer_parquet` reads.

    Columns: `label` (int16, into the metadata's `label_names`), `path` (a name for messages), `image` (PNG: what is
    read is what was made). The file is whole or not there. Raises UserError when it cannot be written, or a class has
    a comma in its name.
    """
    if commas := [name for name in faces if "," in name]:
        raise UserError(f"class {commas[0]!r} has a comma in its name, which separates names in the file; rename it")
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = [
        {"label": label, "path": f"{name}_{number:05d}.png", "image": data}
        for label, (name, images) in enumerate(faces.items())
        for number, data in enumerate(_encoded(images))
    ]
    columns = [("label", pa.int16()), ("path", pa.string()), ("image", pa.binary())]
    schema = pa.schema(columns, {"label_names": ",".join(faces), "source": source})
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema), partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another --out") from error


def _encoded(images: "np.ndarray") -> Iterator[bytes]:
    from PIL import Image

    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
        yield file.getvalue()


def _check_out(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file in it, e.g. {path / 'faces.parquet'}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}; make it, or choose another")
    cli.writable_folder(path.parent)


if __name__ == "__main__":
    cli.main(command)
