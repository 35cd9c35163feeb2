"""Readers: one module per layout on disk, all returning `Samples`. The layout is recognised by content."""

import zipfile
from collections.abc import Callable
from pathlib import Path

from fer_ray.data.readers import affectnet, class_folders, fer_csv, fer_parquet, fer_plus
from fer_ray.data.readers.images import Form
from fer_ray.data.readers.samples import SPLITS, UNLABELLED, Samples
from fer_ray.errors import UserError, nearest

__all__ = ["SPLITS", "UNLABELLED", "Form", "Reader", "Samples", "find", "read", "recognise", "stamp"]

Reader = Callable[[Path, Form], Samples]

MAX_CLASS_NAME = 64
"""In characters."""

LAYOUTS = (
    "a folder or .zip with one folder of images per class (also inside train/, test/ and val/), "
    "a folder with annotations/ and images/ as AffectNet has them, a CSV with the columns emotion, pixels and Usage, "
    "fer2013new.csv of FER+ beside it, or a Parquet file with the columns image and label"
)


def find(source: str) -> Path:
    """The absolute path of a data set. Raises UserError with the nearest name beside it when it does not exist."""
    path = Path(source).expanduser()
    if path.exists():
        return path.resolve()
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, beside) if beside else ""
    hint = hint if hint.startswith("; did you mean") else ""
    raise UserError(f"no data at {source}{hint}; expected {LAYOUTS}, or the word demo for rendered faces")


def recognise(path: Path) -> Reader:
    """The reader for an existing path, chosen by its content. Raises UserError for anything not understood."""
    if path.is_dir():
        return affectnet.read if affectnet.is_layout(path) else class_folders.read
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if zipfile.is_zipfile(path):
        return class_folders.read
    if start.startswith(b"PAR1"):
        return fer_parquet.read
    if fer_csv.has_header(start):
        return fer_csv.read
    if fer_plus.has_header(start):
        return fer_plus.read
    if start[:1] == b"\x80" or path.suffix in (".pkl", ".yaml", ".yml"):
        raise UserError(
            f"{path} is no data set; if it is a StyleGAN2-ADA generator, make faces with it first: "
            "python -m fer_ray.synthesize stylegan2 --help"
        )
    what = "is empty" if not start else "is none of the layouts understood"
    raise UserError(f"{path} {what}; expected {LAYOUTS}")


def stamp(path: Path) -> str:
    """Changes when the file, or any file that belongs to it, is another in name, size or time of change."""
    if path.is_dir():
        return class_folders.stamp(path)
    status = path.stat()
    own = f"{status.st_size} {status.st_mtime_ns}"
    if path.suffix == ".csv" and recognise(path) is fer_plus.read:
        return f"{own} {stamp(fer_plus.pixels_beside(path))}"
    return own


def read(path: Path, form: Form | None = None) -> Samples:
    """Reads and decodes a data set of any layout; `form` is what faces are brought to, by default their own.

    Raises UserError naming the file that is damaged, or the class whose name would not fit on a line of a terminal.
    """
    samples = recognise(path)(path, form or Form())
    for name in samples.classes:
        if not (name.isprintable() and 0 < len(name) <= MAX_CLASS_NAME):
            raise UserError(
                f"{path}: {name[:MAX_CLASS_NAME]!r} is no name of a class; expected 1 to {MAX_CLASS_NAME} printable "
                "characters: rename it"
            )
    return samples
