"""Data sets decoded once into a content-addressed cache and mapped into memory by every run of a machine.

    $FER_RAY_CACHE, else the XDG cache folder's fer_ray/
      entries/<digest>-<H>x<W>x<C>/   a .npy per field of `Dataset`, meta.json; named by content, never changed
      sources/<key>.json              which entry a path had when its size and time were these

Samples are sorted by id, so the CSV, folder, zip and Parquet editions of a data set are one entry. Labels and ids are
arrays on disk like the images: reading them from Parquet costs each process 25 MB of its own, mapping them nothing.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock

from fer_ray import labels
from fer_ray.data import readers
from fer_ray.data.readers import SPLITS, Samples, class_folders, rendered
from fer_ray.data.readers.images import to_shape
from fer_ray.errors import UserError

Domain = Literal["real", "synthetic"]
Shape = tuple[int, int, int]

CACHE_VERSION = 1
"""Raised when readers or files change such that older entries would be wrong."""

IGNORED = -1
"""Label of samples whose class is not part of the experiment."""

PIXELS_HEX = 16
"""A sample id starts with this many hex digits of its pixels' hash."""

# The second: a folder edition whose file names no longer tell the halves of the test apart.
_FER2013_SIZES = ({"train": 28_709, "public": 3_589, "private": 3_589}, {"train": 28_709, "test": 7_178})


@dataclass(frozen=True)
class Dataset:
    """Decoded faces with their labels, sorted by id.

    Attributes:
        name: "FER2013" where the counts and classes say so, "demo faces", else the name of the folder or file.
        images: uint8 [n, H, W, C], C 1 or 3. Arrays are read-only memory maps of the cache.
        ids: bytes [n], `sha1(pixels)[:16]-split-class-k`, ascending; k counts equal faces of one split and class.
        labels: int16 [n], index into `classes`, or IGNORED.
        splits: int8 [n], index into readers.SPLITS.
        classes: canonical names in the order of `labels.in_order`.
        valence, arousal: float32 [n] in [-1, 1], or None.
        digest: 16 hex digits that stand for the content: every id, and valence and arousal where there are any.
        notes: what was changed or left out when reading, to be said aloud.
    """

    name: str
    images: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    valence: np.ndarray | None
    arousal: np.ndarray | None
    digest: str
    notes: tuple[str, ...] = ()

    def in_split(self, *names: str) -> np.ndarray:
        """int64 indices, ascending, of the samples in any of these splits, without ignored ones."""
        wanted = np.isin(self.splits, [SPLITS.index(name) for name in names])
        return np.flatnonzero(wanted & (self.labels != IGNORED))

    def select_classes(self, classes: tuple[str, ...]) -> "Dataset":
        """The same samples labelled by `classes`; those of other classes get the label IGNORED. Copies no image."""
        lookup = np.array([classes.index(c) if c in classes else IGNORED for c in self.classes] + [IGNORED], np.int16)
        return replace(self, labels=lookup[self.labels], classes=tuple(classes))


def open_dataset(source: str, *, domain: Domain = "real") -> Dataset:
    """Opens a data set; the first time it is decoded into the cache.

    Args:
        source: a folder, .zip, .csv or .parquet, or "demo" for rendered faces.
        domain: which of the demo's two sets is meant; nothing else depends on it.

    Raises:
        UserError: the path is missing, its layout unknown, a sample broken, or the cache cannot be written.
    """
    return _open(source, domain, None)


def open_synthetic(source: str, like: Dataset) -> Dataset:
    """Opens synthetic faces at the size and channels of the real ones, antialiased.

    Resampling alone is told apart by a classifier, so that faces of both domains must come at one native size.
    All are in the split "train" unless the source has its own. Raises UserError as `open_dataset`.
    """
    height, width, channels = like.images.shape[1:]
    return _open(source, "synthetic", (height, width, channels))


def cache_folder() -> Path:
    """`$FER_RAY_CACHE`, else `fer_ray` in the XDG cache folder."""
    if chosen := os.environ.get("FER_RAY_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer_ray"


def _open(source: str, domain: Domain, shape: Shape | None) -> Dataset:
    read: Callable[[], Samples]
    if source == "demo":
        origin, name, stamp, read = f"demo {domain}", "demo faces", rendered.stamp(), partial(rendered.read, domain)
    else:
        path = readers.find(source)
        origin, name, stamp, read = str(path), path.name, _stamp(path), partial(readers.read, path, shape and shape[:2])
    cache = cache_folder()
    record = _Record(cache, origin, shape, f"{CACHE_VERSION} {stamp}")
    if dataset := record.dataset():
        return dataset
    lock = FileLock(cache / "lock")
    with _writing_to(cache):
        cache.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if dataset := record.dataset():  # another process made it meanwhile
            return dataset
        samples = read()
        if shape is not None:
            samples = replace(samples, images=to_shape(samples.images, shape))
        with _writing_to(cache):
            record.write(_write_entry(cache / "entries", samples), _known_name(samples) or name, samples.notes)
        dataset = record.dataset()
        assert dataset is not None, f"the cache entry of {origin} cannot be read right after it was written"
        return dataset
    finally:
        lock.release()


@contextmanager
def _writing_to(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the data cache at {cache}: {error.strerror or error}; "
            "make room there, or set FER_RAY_CACHE to a folder with space that you may write to"
        ) from error


class _Record:
    """What the cache remembers of a source at one shape: the entry it had, and the stamp of its files then."""

    def __init__(self, cache: Path, origin: str, shape: Shape | None, stamp: str) -> None:
        key = hashlib.sha256(json.dumps([origin, shape]).encode()).hexdigest()[:16]
        self.cache, self.origin, self.stamp = cache, origin, stamp
        self.path = cache / "sources" / f"{key}.json"

    def dataset(self) -> Dataset | None:
        """The data set, unless its source changed since, or its entry is gone or damaged."""
        try:
            record = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        if record["stamp"] != self.stamp:
            return None
        dataset = _read_entry(self.cache / "entries" / record["entry"])
        return dataset and replace(dataset, name=record["name"], notes=tuple(record["notes"]))

    def write(self, entry: str, name: str, notes: tuple[str, ...]) -> None:
        record = {"origin": self.origin, "stamp": self.stamp, "entry": entry, "name": name, "notes": notes}
        self.path.parent.mkdir(exist_ok=True)
        partial_path = self.path.with_suffix(".partial")
        partial_path.write_text(json.dumps(record), encoding="utf-8")
        os.replace(partial_path, self.path)


def _read_entry(folder: Path) -> Dataset | None:
    """The data set of an entry, without name and notes; None unless all its files are there and whole."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        if any((folder / f"{name}.npy").stat().st_size != size for name, size in meta["fields"].items()):
            return None
        fields = {name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in meta["fields"]}
    except (OSError, ValueError, KeyError):
        return None
    return Dataset(
        name="",
        images=fields["images"],
        ids=fields["ids"],
        labels=fields["labels"],
        splits=fields["splits"],
        classes=tuple(meta["classes"]),
        valence=fields.get("valence"),
        arousal=fields.get("arousal"),
        digest=meta["digest"],
    )


def _write_entry(entries: Path, samples: Samples) -> str:
    """Writes samples sorted by id as an entry, unless it is there already; returns its name."""
    classes = labels.in_order(samples.classes)
    numbers = np.array([classes.index(name) for name in samples.classes], np.int16)[samples.labels]
    ids = np.array(_sample_ids(samples), dtype="S")
    order = np.argsort(ids, kind="stable")
    fields = {"ids": ids[order], "labels": numbers[order], "splits": samples.splits[order]}
    digest = hashlib.sha256(b"\n".join(fields["ids"].tolist()))
    for name in ("valence", "arousal"):
        if (values := getattr(samples, name)) is not None:
            fields[name] = values[order]
            digest.update(fields[name].tobytes())
    height, width, channels = samples.images.shape[1:]
    folder = entries / f"{digest.hexdigest()[:16]}-{height}x{width}x{channels}"
    if _read_entry(folder):
        return folder.name
    shutil.rmtree(folder, ignore_errors=True)
    staging = entries / f".{uuid.uuid4().hex[:8]}"
    try:
        staging.mkdir(parents=True)
        _save_in_order(staging / "images.npy", samples.images, order)
        for name, values in fields.items():
            np.save(staging / f"{name}.npy", values)
        # Pages not yet on the disk would count as private memory of the process that maps them.
        for file in staging.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        sizes = {file.stem: file.stat().st_size for file in staging.iterdir()}
        meta = {"digest": digest.hexdigest()[:16], "classes": classes, "fields": sizes}
        (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        os.rename(staging, folder)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return folder.name


def _save_in_order(path: Path, images: np.ndarray, order: np.ndarray) -> None:
    """np.save(path, images[order]) without a second copy of all images in memory."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(order), 1024):
            file.write(images[order[start : start + 1024]].data)


def _sample_ids(samples: Samples) -> list[bytes]:
    counts: Counter[str] = Counter()
    ids = []
    for image, label, split in zip(samples.images, samples.labels.tolist(), samples.splits.tolist(), strict=True):
        stem = f"{hashlib.sha1(image).hexdigest()[:PIXELS_HEX]}-{SPLITS[split]}-{samples.classes[label]}"
        ids.append(f"{stem}-{counts[stem]}".encode())
        counts[stem] += 1
    return ids


def _stamp(path: Path) -> str:
    """Changes when the file, or any file of the folder, is another in name, size or time of change."""
    if path.is_dir():
        return class_folders.stamp(path)
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _known_name(samples: Samples) -> str | None:
    """The name of a data set that classes and split sizes give away."""
    sizes = {name: int(np.count_nonzero(samples.splits == i)) for i, name in enumerate(SPLITS)}
    sizes = {name: size for name, size in sizes.items() if size}
    return "FER2013" if set(samples.classes) == set(labels.FER2013) and sizes in _FER2013_SIZES else None
