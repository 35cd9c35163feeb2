"""Makes synthetic faces from the training faces of a data set by probabilistic PCA."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from fer_ray import cli
from fer_ray.errors import UserError


def parser() -> cli.Parser:
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
    """Runs `python -m fer_ray.synthesize ppca`; returns the exit code."""
    options = parser().parse(arguments)
    cli.writable_file(options.out)
    console = cli.stderr_console()

    import numpy as np

    from fer_ray.data import splits
    from fer_ray.data.faces_file import write_faces
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
