"""AffectNet-style folders: `annotations/<prefix>_{exp,val,aro,lnd}.npy` beside `images/<prefix>.jpg`.

Both folders lie in the data set itself, or in its `train_set/` and `val_set/` (Mollahosseini et al. 2017; the release
of 2021). The key of a sample is the set and the prefix, as prefixes repeat. An annotation is a .npy file of one value,
stored as a number or as text. Landmarks (`_lnd`) are not opened: the images are cropped faces already.
"""

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

import numpy as np

from fer_ray.data.readers.images import SUFFIXES, Form, decode_all, read_file
from fer_ray.data.readers.samples import SPLITS, Samples
from fer_ray.errors import UserError

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
"""The eight classes by the number in `_exp`."""

NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}
"""What other numbers of the first release say; such samples are dropped."""

NO_VALUE = -2.0
"""Valence or arousal of faces whose annotators were not sure."""

SETS = {"train_set": "train", "val_set": "test"}

MAX_NPY_BYTES = 4096
"""One number or short text, with a header of 128 bytes, has a tenth of it."""

# Version 1.0 of the format, as `np.save` writes it (numpy.lib.format): a number or text, alone or in an array of one.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|=][iufSU]\d{1,4})', 'fortran_order': (?:False|True), "
    rb"'shape': \((?:1,? ?)*\), \} *\n?",
    re.DOTALL,
)

_ANNOTATION = re.compile(r"(.+)_(exp|val|aro)\.npy")


def is_layout(folder: Path) -> bool:
    """Whether an existing folder is laid out like this."""
    return bool(_set_folders(folder))


def read(path: Path, form: Form) -> Samples:
    """Reads and decodes a folder. Its `train_set/` is the training split and its `val_set/` the test split, since the
    public release has no test set and results are reported on val_set; the folders of one set alone are all training.

    Samples without an image, without `_exp`, or without an expression are left out, with their numbers in the notes.
    Raises UserError naming the file that is damaged or has a value out of range.
    """
    samples, notes = _samples(path)
    expressions, valence, arousal = zip(*map(_annotations, samples), strict=True)
    kept = [i for i, expression in enumerate(expressions) if expression < len(CLASSES)]
    dropped = Counter(NO_EXPRESSION[expression] for expression in expressions if expression >= len(CLASSES))
    notes += [f"{count:,} samples left out whose expression is {name!r}" for name, count in sorted(dropped.items())]
    present = sorted({expressions[i] for i in kept})
    if len(present) < 2:
        named = ", ".join(CLASSES[number] for number in present) or "none"
        raise UserError(f"{path}: samples of {len(present)} expressions ({named}), expected at least 2")
    files = [samples[i].image for i in kept]
    images, image_notes = decode_all(len(files), lambda i: read_file(files[i]), lambda i: files[i], form)
    if any(sample.split == SPLITS.index("test") for sample in samples):
        notes.append("val_set is the test split: the public release has no other, and results are reported on it")
    return Samples(
        images=images,
        labels=np.array([present.index(expressions[i]) for i in kept], np.int16),
        classes=tuple(CLASSES[number] for number in present),
        splits=np.array([samples[i].split for i in kept], np.int8),
        valence=_affect([valence[i] for i in kept]),
        arousal=_affect([arousal[i] for i in kept]),
        notes=(*notes, *image_notes),
    )


def problems(path: Path) -> list[str]:
    """What is wrong with annotation files, a message each; `read` stops at the first one."""
    found = []
    for sample in _samples(path)[0]:
        try:
            _annotations(sample)
        except UserError as error:
            found.append(str(error))
    return found


@dataclass(frozen=True)
class _Sample:
    """Paths of an image and of its annotations by kind (exp, and val and aro where there are any)."""

    image: str
    annotations: dict[str, str]
    split: int


def _samples(path: Path) -> tuple[list[_Sample], list[str]]:
    """The samples of all sets, and notes on what was left out. Raises UserError when there are none."""
    samples: list[_Sample] = []
    notes: list[str] = []
    for folder, split in _set_folders(path).items():
        found, lacking = _pairs(folder, SPLITS.index(split))
        samples += found
        notes += [f"{folder.name}: {count:,} {what}" for what, count in lacking.items() if count]
    if not samples:
        raise UserError(
            f"{path}: no image has an expression; expected images/<prefix>.jpg and annotations/<prefix>_exp.npy"
        )
    return samples, notes


def _set_folders(path: Path) -> dict[Path, str]:
    """The folders that hold `annotations/` and `images/`, and the split of each."""
    sets = {path: "train"} | {path / name: split for name, split in SETS.items()}
    return {
        folder: split
        for folder, split in sets.items()
        if (folder / "annotations").is_dir() and (folder / "images").is_dir()
    }


def _pairs(folder: Path, split: int) -> tuple[list[_Sample], dict[str, int]]:
    """The samples of a set that have an image and an expression, by prefix, and what others lack, with counts."""
    annotations: dict[str, dict[str, str]] = {}
    for name in _names(folder / "annotations"):
        if match := _ANNOTATION.fullmatch(name):
            annotations.setdefault(match[1], {})[match[2]] = f"{folder}/annotations/{name}"
    images: dict[str, str] = {}
    for name in _names(folder / "images"):
        prefix, suffix = os.path.splitext(name)
        if suffix.casefold() not in SUFFIXES:
            continue
        if prefix in images:
            raise UserError(f"{folder}/images has {PurePath(images[prefix]).name} and {name}; remove one of them")
        images[prefix] = f"{folder}/images/{name}"
    labelled = {prefix for prefix, kinds in annotations.items() if "exp" in kinds}
    both = sorted(labelled & images.keys())
    lacking = {
        "images left out that have no _exp annotation": len(images.keys() - labelled),
        "_exp annotations left out that have no image": len(labelled - images.keys()),
        "samples without a _val or _aro annotation": sum(len(annotations[prefix]) < 3 for prefix in both),
    }
    if lacking["samples without a _val or _aro annotation"] == len(both):
        del lacking["samples without a _val or _aro annotation"]  # a data set of expressions alone
    return [_Sample(images[prefix], annotations[prefix], split) for prefix in both], lacking


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:  # a named pipe or a link to a device would be read for ever
            return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def _annotations(sample: _Sample) -> tuple[int, float, float]:
    """Expression number, valence and arousal; NaN where there is none."""
    path = sample.annotations["exp"]
    expression = read_number(path)
    if expression not in range(len(CLASSES) + len(NO_EXPRESSION)):
        raise UserError(f"{path}: expression {expression:g}, expected a whole number from 0 to 10")
    valence, arousal = (_affect_value(sample.annotations.get(kind)) for kind in ("val", "aro"))
    return int(expression), valence, arousal


def _affect_value(path: str | None) -> float:
    if path is None:
        return math.nan
    value = read_number(path)
    if math.isnan(value) or value == NO_VALUE:
        return math.nan
    if not -1 <= value <= 1:
        raise UserError(f"{path}: {value:g} is outside [-1, 1], and not -2 for an uncertain face; correct or remove it")
    return value


def _affect(values: list[float]) -> np.ndarray | None:
    array = np.array(values, np.float32)
    return None if np.isnan(array).all() else array


def read_number(path: str) -> float:
    """The one value of a .npy file, a number or text of one. Nothing is unpickled.

    Several times faster than `np.load`, which evaluates each header: AffectNet has a million of these files. Threads
    only slow it down. Raises UserError naming the file.
    """
    data = read_file(path, MAX_NPY_BYTES)
    try:
        start = 10 + int.from_bytes(data[8:10], "little")
        dtype = _dtype(data[:start])
        if len(data) != start + dtype.itemsize:
            raise ValueError(f"{len(data) - start} bytes after its header, expected {dtype.itemsize}")
        if dtype.kind == "U":  # NumPy crashes on code points that Unicode does not have
            return float(data[start:].decode("utf-32-be" if dtype.str[0] == ">" else "utf-32-le").rstrip("\0"))
        return float(np.frombuffer(data, dtype, 1, start)[0])
    except ValueError as error:
        reason = "it is empty" if not data else str(error)
        raise UserError(f"{path}: not a .npy file of one number ({reason}); replace or remove it") from error


@lru_cache(maxsize=1024)
def _dtype(header: bytes) -> np.dtype:
    """The type of the one value that a .npy file with this header holds. Raises ValueError for any other file."""
    match = _HEADER.fullmatch(header)
    if match is None:
        raise ValueError("its header is not that of one number or text")
    try:
        return np.dtype(match[1].decode())
    except TypeError as error:  # a number of 3 bytes
        raise ValueError(str(error)) from error
