"""FER+: `fer2013new.csv`, the votes of ten annotators per face of FER2013, whose pixels are in fer2013.csv beside it.

`Usage,Image name,neutral,...,contempt,unknown,NF`: rows in the order of fer2013.csv. The name says which face was kept:
it is blank where the authors removed one, and is no row number (Barsoum et al. 2016, github.com/microsoft/FERPlus).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_ray.data import votes
from fer_ray.data.readers import fer_csv
from fer_ray.data.readers.images import Form, to_form
from fer_ray.data.readers.samples import SPLITS, UNLABELLED, Samples, split_index
from fer_ray.errors import UserError
from fer_ray.labels import canonical

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""The eight classes in the order of the file."""

_VOTED = (*EMOTIONS, "unknown", "nf")
_COLUMNS = ("usage", "image name", *_VOTED)


def has_header(start: bytes) -> bool:
    """Whether a file that starts with these bytes is fer2013new.csv."""
    line = start.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    return set(_COLUMNS) <= {name.strip().casefold() for name in line.split(",")}


def read(path: Path, form: Form) -> Samples:
    """Reads the votes at `path` and the pixels beside them.

    A label is the class with more than half of the votes, single votes aside; faces without one are kept UNLABELLED,
    as `votes.targets` finds them a distribution. Faces without a name, or with most votes for unknown or no face, are
    dropped and counted in the notes.

    Raises UserError naming file and row (the header is row 1), or both files where they do not belong together.
    """
    has_name, splits, counts = _read_votes(path)
    pixels_path = pixels_beside(path)
    faces = fer_csv.read(pixels_path, Form())
    _check_pair(path, splits, pixels_path, faces.splits)

    top = votes.top(counts)
    is_unknown = has_name & (top == len(EMOTIONS))
    is_no_face = has_name & (top == len(EMOTIONS) + 1)
    kept = np.flatnonzero(has_name & ~is_unknown & ~is_no_face)
    if not len(kept):
        raise UserError(f"{path}: no row has an image name and votes for an expression; download it again")
    majority = votes.targets(counts[kept], "majority")
    labels = np.where(majority.any(axis=1), majority.argmax(axis=1), UNLABELLED).astype(np.int16)
    images, notes = to_form(faces.images[kept], form)
    dropped = (
        f"{len(top) - len(kept):,} of {len(top):,} faces dropped: "
        f"{np.count_nonzero(~has_name):,} without an image name, "
        f"{is_unknown.sum():,} with most votes for unknown, {is_no_face.sum():,} with most for no face"
    )
    undecided = (
        f"{np.count_nonzero(labels == UNLABELLED):,} faces without a majority judge nothing, and train only with "
        "data.votes=probability or multi_target"
    )
    return Samples(
        images=images,
        labels=labels,
        classes=tuple(canonical(name) for name in EMOTIONS),
        splits=splits[kept],
        votes=counts[kept],
        notes=(f"pixels from {pixels_path.name}", dropped, undecided, *notes),
    )


def _read_votes(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: has it an image name (bool), split (int8), votes (uint8 [10])."""
    names, splits, counts = [], [], []
    for row, fields in _rows(path):
        if (split := split_index(fields["usage"])) is None:
            raise UserError(
                f"{path}, row {row}: unknown Usage {fields['usage'][:40]!r}; "
                "expected Training, PublicTest or PrivateTest"
            )
        for name in _VOTED:
            if not (fields[name].isascii() and fields[name].isdigit() and len(fields[name]) < 3):
                raise UserError(
                    f"{path}, row {row}: {name} has {fields[name][:40]!r} votes, expected a whole number from 0 to 99"
                )
        names.append(bool(fields["image name"]))
        splits.append(split)
        counts.append([int(fields[name]) for name in _VOTED])
    if not names:
        raise UserError(f"{path} has a header but no rows")
    return np.array(names), np.array(splits, np.int8), np.array(counts, np.uint8)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number and stripped fields by column name; blank lines are passed over."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        try:
            header = [name.strip().casefold() for name in next(rows, [])]
            if missing := [name for name in _COLUMNS if name not in header]:
                raise UserError(f"{path}: no column {missing[0]!r}; the header has {', '.join(header)}")
            for row, fields in enumerate(rows, 2):
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise UserError(
                        f"{path}, row {row}: {len(fields)} columns, expected {len(header)} as in the header"
                    )
                yield row, dict(zip(header, map(str.strip, fields), strict=True))
        except csv.Error as error:
            raise UserError(f"{path}, row {rows.line_num}: not a row of a CSV file ({error})") from error


def pixels_beside(path: Path) -> Path:
    """fer2013.csv beside the votes, else the only CSV with its header."""
    if (usual := path.with_name("fer2013.csv")).is_file() and usual != path:
        return usual
    found = [other for other in sorted(path.parent.glob("*.csv")) if other != path and _holds_pixels(other)]
    if len(found) == 1:
        return found[0]
    several = f"; several could be it: {', '.join(other.name for other in found)}" if found else ""
    raise UserError(
        f"{path} holds the votes of FER+ but no pixels, and there is no {usual} with them{several}; put FER2013's CSV "
        "(emotion,pixels,Usage) there under that name"
    )


def _holds_pixels(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return fer_csv.has_header(file.read(4096))
    except OSError:
        return False


def _check_pair(path: Path, splits: np.ndarray, pixels_path: Path, pixel_splits: np.ndarray) -> None:
    """Raises UserError unless both files have the same rows, as far as can be told."""
    if len(splits) != len(pixel_splits):
        raise UserError(
            f"{path} has {len(splits):,} rows and {pixels_path} {len(pixel_splits):,}; they must be of the same faces: "
            "pass the two official files, unchanged"
        )
    if len(others := np.flatnonzero(splits != pixel_splits)):
        first = others[0]
        raise UserError(
            f"{path}, row {first + 2}: Usage is {SPLITS[splits[first]]!r} but {SPLITS[pixel_splits[first]]!r} in "
            f"{pixels_path}, and {len(others):,} rows differ; rows must be in the same order in both: pass the two "
            "official files, unchanged"
        )
