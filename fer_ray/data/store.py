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
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from fer_ray import labels
from fer_ray.data import cache, readers, votes
from fer_ray.data.readers import SPLITS, UNLABELLED, Form, Samples, rendered
from fer_ray.data.readers.images import to_form
from fer_ray.errors import printable

Domain = Literal["real", "synthetic"]

CACHE_VERSION = 2
"""Raised when readers or files change such that older entries would be wrong."""

IGNORED = UNLABELLED
"""Label of samples whose class is not part of the experiment, or that have none."""

NO_CLASS = "none"

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
        valence, arousal: float32 [n] in [-1, 1], NaN where a sample has none; or None.
        votes: uint8 [n, C + 2], annotators for each class, for "unknown" and for "no face"; or None.
        people: int32 [n], equal for faces of one person; or None.
        targets: float32 [n, C], the distribution over classes that a sample is trained towards; None: its label.
        train_only: bool [n], samples that may train but, without a majority, cannot judge; None: no such samples.
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
    votes: np.ndarray | None = None
    people: np.ndarray | None = None
    targets: np.ndarray | None = None
    train_only: np.ndarray | None = None

    def in_split(self, *names: str) -> np.ndarray:
        """int64 indices, ascending, of the samples in any of these splits, without ignored ones."""
        wanted = np.isin(self.splits, [SPLITS.index(name) for name in names])
        return np.flatnonzero(wanted & (self.labels != IGNORED))

    def towards(self, mode: Literal["probability", "multi_target"]) -> "Dataset":
        """The same samples, to be trained towards the votes of their annotators (see `votes.targets`).

        Samples without a majority take part in training, under the class with the most votes.
        """
        assert self.votes is not None
        targets = votes.targets(self.votes, mode)
        is_uncertain = self.labels == IGNORED
        numbers = np.where(is_uncertain & targets.any(axis=1), targets.argmax(axis=1), self.labels).astype(np.int16)
        # A majority that this mode drops is left out of training, but still judges.
        return replace(self, labels=numbers, targets=targets, train_only=is_uncertain)

    def select_classes(self, classes: tuple[str, ...], merged: Mapping[str, str] | None = None) -> "Dataset":
        """The same samples labelled by `classes`; those of other classes get the label IGNORED. Copies no image.

        `merged` says which class takes in another one, e.g. `{"disgust": "angry"}`.
        """
        names = [(merged or {}).get(name, name) for name in self.classes]
        lookup = np.array([classes.index(name) if name in classes else IGNORED for name in names], np.int16)
        targets = None
        if self.targets is not None:
            targets = np.zeros((len(self.targets), len(classes)), np.float32)
            for column, number in enumerate(lookup):
                if number != IGNORED:
                    targets[:, number] += self.targets[:, column]
            targets /= np.maximum(targets.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        numbers = np.append(lookup, np.int16(IGNORED))[self.labels]
        return replace(self, labels=numbers, classes=tuple(classes), targets=targets, votes=None)


def open_dataset(source: str, *, domain: Domain = "real", align: bool = False) -> Dataset:
    """Opens a data set; the first time it is decoded into the cache.

    Args:
        source: a folder, .zip, .csv or .parquet, or "demo" for rendered faces.
        domain: which of the demo's two sets is meant; nothing else depends on it.
        align: find faces and bring their eyes to fixed places.

    Raises:
        UserError: the path is missing, its layout unknown, a sample broken, or the cache cannot be written.
    """
    return _open(source, domain, Form(align=align))


def open_like(source: str, like: Dataset, *, domain: Domain = "synthetic", align: bool = False) -> Dataset:
    """Opens other faces, synthetic ones or another data set, at the size and channels of `like`, antialiased.

    Resampling alone is told apart by a classifier, so that faces of both domains must come at one native size.
    Raises UserError as `open_dataset`.
    """
    height, width, channels = like.images.shape[1:]
    return _open(source, domain, Form((height, width, channels), align))


def _open(source: str, domain: Domain, form: Form) -> Dataset:
    read: Callable[[], Samples]
    if source == "demo":
        origin, name, stamp, read = f"demo {domain}", "demo faces", rendered.stamp(), partial(rendered.read, domain)
    else:
        path = readers.find(source)
        origin, name, stamp, read = (
            str(path),
            printable(path.name),
            readers.stamp(path),
            partial(readers.read, path, form),
        )
    record = _Record(cache.cache_folder(), origin, form, f"{CACHE_VERSION} {stamp}")
    if dataset := record.dataset():
        return dataset
    with cache.lock() as folder:
        if dataset := record.dataset():  # another process made it meanwhile
            return dataset
        samples = read()
        if form.shape is not None and samples.images.shape[1:] != form.shape:
            samples = replace(samples, images=to_form(samples.images, form)[0])
        with cache.writing():
            record.write(_write_entry(folder / "entries", samples), _known_name(samples) or name, samples.notes)
        dataset = record.dataset()
        assert dataset is not None, f"the cache entry of {origin} cannot be read right after it was written"
        return dataset


class _Record:
    """What the cache remembers of a source at one shape: the entry it had, and the stamp of its files then."""

    def __init__(self, folder: Path, origin: str, form: Form, stamp: str) -> None:
        key = hashlib.sha256(json.dumps([origin, form.shape, form.align]).encode()).hexdigest()[:16]
        self.folder, self.origin, self.stamp = folder, origin, stamp
        self.path = folder / "sources" / f"{key}.json"

    def dataset(self) -> Dataset | None:
        """The data set, unless its source changed since, or its entry is gone or damaged."""
        try:
            record = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        if record["stamp"] != self.stamp:
            return None
        dataset = _read_entry(self.folder / "entries" / record["entry"])
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
        votes=fields.get("votes"),
        people=fields.get("people"),
        digest=meta["digest"],
    )


def in_memory(name: str, samples: Samples) -> Dataset:
    """A data set that is not in the cache, for a look at it."""
    classes, order, fields = _sorted_by_id(samples)
    return Dataset(
        name=name,
        images=samples.images[order],
        ids=fields["ids"],
        labels=fields["labels"],
        splits=fields["splits"],
        classes=classes,
        valence=fields.get("valence"),
        arousal=fields.get("arousal"),
        digest=content_digest(fields),
        notes=samples.notes,
        votes=fields.get("votes"),
        people=fields.get("people"),
    )


def _sorted_by_id(samples: Samples) -> tuple[tuple[str, ...], np.ndarray, dict[str, np.ndarray]]:
    """Classes in their order, the order of the samples by id, and all fields but the images in it."""
    classes = labels.in_order(samples.classes)
    column_of = [samples.classes.index(name) for name in classes]
    numbers = np.append(np.argsort(column_of), UNLABELLED).astype(np.int16)[samples.labels]
    ids = np.array(_sample_ids(samples), dtype="S")
    order = np.argsort(ids, kind="stable")
    fields = {"ids": ids[order], "labels": numbers[order], "splits": samples.splits[order]}
    more = {"valence": samples.valence, "arousal": samples.arousal, "votes": samples.votes, "people": samples.people}
    if samples.votes is not None:
        more["votes"] = samples.votes[:, [*column_of, -2, -1]]
    fields |= {name: values[order] for name, values in more.items() if values is not None}
    return classes, order, fields


def _write_entry(entries: Path, samples: Samples) -> str:
    """Writes samples sorted by id as an entry, unless it is there already; returns its name."""
    classes, order, fields = _sorted_by_id(samples)
    digest = content_digest(fields)
    height, width, channels = samples.images.shape[1:]
    folder = entries / f"{digest}-{height}x{width}x{channels}"
    if _read_entry(folder):
        return folder.name
    with cache.new_folder(folder) as staging:
        _save_in_order(staging / "images.npy", samples.images, order)
        for name, values in fields.items():
            np.save(staging / f"{name}.npy", values)
        sizes = {file.stem: file.stat().st_size for file in staging.iterdir()}
        meta = {"digest": digest, "classes": classes, "fields": sizes}
        (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder.name


def content_digest(fields: Mapping[str, np.ndarray]) -> str:
    """16 hex digits over the ids of an entry, in their order, and what else it holds about each sample."""
    digest = hashlib.sha256(b"\n".join(fields["ids"].tolist()))
    for name in ("valence", "arousal", "votes", "people"):
        if name in fields:
            digest.update(fields[name].tobytes())
    return digest.hexdigest()[:16]


def id_stem(image: np.ndarray, split: int, class_name: str) -> str:
    """A sample's id without its last part, which counts equal ones. `class_name` is NO_CLASS for samples without."""
    return f"{hashlib.sha1(image.data).hexdigest()[:PIXELS_HEX]}-{SPLITS[split]}-{class_name}"


def _save_in_order(path: Path, images: np.ndarray, order: np.ndarray) -> None:
    """np.save(path, images[order]) without a second copy of all images in memory."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in cache.blocks(images):
            file.write(images[order[part]].data)


def _sample_ids(samples: Samples) -> list[bytes]:
    counts: Counter[str] = Counter()
    names = [*samples.classes, NO_CLASS]  # the last one is at UNLABELLED
    ids = []
    for part in cache.blocks(samples.images):
        parts = zip(samples.images[part], samples.labels[part].tolist(), samples.splits[part].tolist(), strict=True)
        for image, label, split in parts:
            stem = id_stem(image, split, names[label])
            ids.append(f"{stem}-{counts[stem]}".encode())
            counts[stem] += 1
    return ids


def _known_name(samples: Samples) -> str | None:
    """The name of a data set that classes and split sizes give away."""
    sizes = {name: int(np.count_nonzero(samples.splits == i)) for i, name in enumerate(SPLITS)}
    sizes = {name: size for name, size in sizes.items() if size}
    return "FER2013" if set(samples.classes) == set(labels.FER2013) and sizes in _FER2013_SIZES else None
