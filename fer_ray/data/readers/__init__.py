"""Readers: one module per layout on disk, all returning `Samples`. The layout is recognised by content."""

import zipfile
from collections.abc import Callable
from pathlib import Path

from fer_ray.data.readers import class_folders, fer_csv, fer_parquet
from fer_ray.data.readers.images import Size
from fer_ray.data.readers.samples import SPLITS, Samples
from fer_ray.errors import UserError, nearest

__all__ = ["SPLITS", "Reader", "Samples", "find", "read", "recognise"]

Reader = Callable[[Path, Size | None], Samples]

LAYOUTS = (
    "a folder or .zip with one folder of images per class (also inside train/, test/ and val/), "
    "a CSV with the columns emotion, pixels and Usage, or a Parquet file with the columns image and label"
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
        return class_folders.read
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
    what = "is empty" if not start else "is none of the layouts understood"
    raise UserError(f"{path} {what}; expected {LAYOUTS}")


def read(path: Path, size: Size | None = None) -> Samples:
    """Reads and decodes a data set of any layout; `size` (height, width) is brought to, None is the native one."""
    return recognise(path)(path, size)
