"""What a data set holds: its files one by one, counts, copies, and valence and arousal; numbers only."""

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from fer_ray.data import readers
from fer_ray.data.readers import SPLITS, affectnet, class_folders, fer_csv, fer_parquet, fer_plus, images
from fer_ray.data.store import IGNORED, PIXELS_HEX, Dataset, in_memory, open_dataset
from fer_ray.errors import UserError

LAYOUTS: dict[readers.Reader, str] = {
    class_folders.read: "a folder of images per class",
    affectnet.read: "AffectNet-style: images and annotations",
    fer_csv.read: "FER2013's CSV",
    fer_plus.read: "FER+: votes beside FER2013's CSV",
    fer_parquet.read: "Parquet, a row per face",
}
"""Reader -> what people call the layout."""

_THREADS = 2
_CHUNK = 64
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Files:
    """The image files of a data set, each decoded on its own.

    Attributes:
        num_files: how many there are.
        sizes: (height, width) in pixels, as displayed -> number of readable files.
        num_colour: readable files with three channels; the others are grey.
        unreadable: a message per file that cannot be decoded; it names the file.
    """

    num_files: int
    sizes: Counter[tuple[int, int]]
    num_colour: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All that `inspect` tells.

    Attributes:
        source: as the user wrote it.
        layout: a value of LAYOUTS, or "rendered faces".
        files: None where faces are no image files: CSV, demo.
        dataset: None where it cannot be read.
        problems: unreadable files and whatever else keeps the data set from being read, a message each.
    """

    source: str
    layout: str
    files: Files | None
    dataset: Dataset | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Copies:
    """Faces with equal pixels.

    Attributes:
        num_images: all.
        num_distinct: different ones among them.
        num_conflicts: different images that carry two labels or more.
        across: (split, other) -> images of `split` whose pixels are in `other` too; within one split, the copies
            beyond the first.
    """

    num_images: int
    num_distinct: int
    num_conflicts: int
    across: dict[tuple[str, str], int]


def inspect(source: str, advance: Callable[[int, int], None]) -> Inspection:
    """Reads all of a data set, and goes on after broken files.

    `advance` hears how many image files of how many are done. Raises UserError when there is nothing at `source`, or
    its layout is not understood.
    """
    layout, files, reader = "rendered faces", None, None
    problems: list[str] = []
    if source != "demo":
        path = readers.find(source)
        reader = readers.recognise(path)
        layout = LAYOUTS[reader]
        files = check_files(path, advance)
        problems += files.unreadable if files else ()
    dataset = None
    try:
        if reader is class_folders.read and files and files.unreadable:
            # What is left of it; the message of an unreadable file starts with its name.
            broken = {message.partition(": ")[0] for message in files.unreadable}
            dataset = in_memory(path.name, class_folders.read(path, readers.Form(), broken))
            return Inspection(source, layout, files, dataset, tuple(problems))
        if reader is affectnet.read:
            problems += affectnet.problems(path)
        dataset = open_dataset(source)
    except UserError as error:
        if str(error) not in problems:
            problems.append(str(error))
    return Inspection(source, layout, files, dataset, tuple(problems))


def check_files(path: Path, advance: Callable[[int, int], None]) -> Files | None:
    """Decodes every image file of a folder, .zip or Parquet file on its own; None where there are none."""
    sizes: Counter[tuple[int, int]] = Counter()
    num_colour = 0
    unreadable = []
    with _encoded(path) as found, ThreadPoolExecutor(_THREADS) as pool:
        if not found:
            return None

        def decode(chunk: range) -> list[tuple[int, ...] | str]:
            return [_shape(*found[i]) for i in chunk]

        chunks = [range(start, min(start + _CHUNK, len(found))) for start in range(0, len(found), _CHUNK)]
        for chunk, shapes in zip(chunks, pool.map(decode, chunks), strict=True):
            for shape in shapes:
                if isinstance(shape, str):
                    unreadable.append(shape)
                else:
                    sizes[shape[0], shape[1]] += 1
                    num_colour += shape[2] == 3
            advance(chunk.stop, len(found))
        return Files(len(found), sizes, num_colour, tuple(unreadable))


def counts(dataset: Dataset) -> dict[str, np.ndarray]:
    """Split -> int64 [C + 1], images of each class, and of none at the end; for the splits that have any."""
    bins = len(dataset.classes) + 1
    found = {}
    for number, name in enumerate(SPLITS):
        labels = dataset.labels[dataset.splits == number].astype(np.int64)
        if len(labels):
            found[name] = np.bincount(np.where(labels == IGNORED, bins - 1, labels), minlength=bins)
    return found


def copies(dataset: Dataset) -> Copies:
    """Counts faces with equal pixels, by their ids."""
    _, group = np.unique(dataset.ids.astype(f"S{PIXELS_HEX}"), return_inverse=True)
    num_groups = int(group.max()) + 1
    per_split = {
        name: np.bincount(group[dataset.splits == number], minlength=num_groups)
        for number, name in enumerate(SPLITS)
        if (dataset.splits == number).any()
    }
    across = {}
    for name, here in per_split.items():
        for other, there in per_split.items():
            across[name, other] = int(np.maximum(here - 1, 0).sum() if name == other else here[there > 0].sum())
    pairs = np.stack([group, dataset.labels])[:, dataset.labels != IGNORED]
    labelled = np.unique(pairs, axis=1)[0]
    num_conflicts = int(np.count_nonzero(np.bincount(labelled) > 1))
    return Copies(len(group), num_groups, num_conflicts, across)


Encoded = tuple[str, Callable[[], bytes]]
"""Name of an image file for messages, and how to read it."""


def _shape(name: str, read: Callable[[], bytes]) -> tuple[int, ...] | str:
    """(height, width, channels) of an image file, or what is wrong with it."""
    try:
        return images.decode_one(read(), name).shape
    except UserError as error:
        return str(error)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        return f"{name}: cannot be read ({error})"


@contextmanager
def _encoded(path: Path) -> Iterator[list[Encoded]]:
    """The encoded image files of a data set."""
    if path.is_dir():
        yield [(file, Path(file).read_bytes) for file in sorted(_walk(str(path)))]
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError):
            yield []  # the reader says what is wrong
            return
        with archive:
            members = [member for member in archive.infolist() if not member.is_dir() and _is_image(member.filename)]
            yield [(f"{path}/{member.filename}", partial(_unpacked, path, archive, member)) for member in members]
    elif readers.recognise(path) is fer_parquet.read:
        yield _in_parquet(path)
    else:
        yield []


def _in_parquet(path: Path) -> list[Encoded]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            table = file.read(columns=[name for name in ("image", "path") if name in file.schema_arrow.names])
        encoded = table["image"]
    except (pa.ArrowException, OSError, KeyError):
        return []  # the reader says what is wrong
    files = table["path"] if "path" in table.column_names else None

    def found(row: int) -> Encoded:
        name = f"{path}, row {row + 1}" + (f" ({files[row]})" if files is not None else "")
        return name, lambda: encoded[row].as_py() or b""

    return [found(row) for row in range(len(encoded))]


def _walk(folder: str, depth: int = 0) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir() and depth < _MAX_DEPTH and not entry.name.startswith((".", "__")):
            yield from _walk(entry.path, depth + 1)
        elif entry.is_file() and _is_image(entry.name):
            yield entry.path


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    is_hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.suffix.casefold() in images.SUFFIXES and not is_hidden


def _unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > class_folders.MAX_FILE_BYTES:
        raise UserError(f"{path}/{member.filename} declares {member.file_size:,} bytes, too many for an image")
    return archive.read(member)
