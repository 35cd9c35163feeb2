"""What every reader returns, whatever the layout on disk: decoded faces with class, split and affect."""

from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "validation", "public", "private", "test")
"""Names of splits; arrays hold indices into this tuple. Public and private are the two test halves of FER2013."""

UNLABELLED = -1
"""Label of a sample without a class."""

_SPLIT_ALIASES = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "testing": "test",
    "publictest": "public",
    "privatetest": "private",
}


def split_index(name: str) -> int | None:
    """Index into SPLITS of a folder's or column's word for a split, e.g. `PublicTest`; None if it names none.

    >>> SPLITS[split_index("PublicTest")]
    'public'
    """
    folded = name.strip().casefold()
    folded = _SPLIT_ALIASES.get(folded, folded)
    return SPLITS.index(folded) if folded in SPLITS else None


@dataclass(frozen=True)
class Samples:
    """A data set as read, in the order of its source.

    Attributes:
        images: uint8 [n, H, W, C], C 1 (grey) or 3 (RGB), all of one size.
        labels: int16 [n], index into `classes`, or UNLABELLED where annotators found no majority.
        classes: canonical names, in any order.
        splits: int8 [n], index into SPLITS.
        valence, arousal: float32 [n] in [-1, 1], NaN where a sample has none, or None where the source has none.
        votes: uint8 [n, len(classes) + 2], annotators for each class, for "unknown" and for "no face"; or None.
        people: int32 [n], equal for faces of one person, or None where nothing tells.
        notes: what was changed or left out on the way, to be said aloud.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    splits: np.ndarray
    valence: np.ndarray | None = None
    arousal: np.ndarray | None = None
    votes: np.ndarray | None = None
    people: np.ndarray | None = None
    notes: tuple[str, ...] = ()
