"""Copies of one picture in parts of the data that must not share faces: training, validation, test, synthetic.

An exact copy has equal pixels, which its id tells. A near-duplicate was compressed, resized, lit, mirrored, moved by
some pixels, cropped or turned a little: `perceptual_hash` finds it. Of two parts every image of either that has a copy
in the other is listed once, with its nearest copy, so that a list is never longer than both parts together, even if all
images are the same. Flat images have no details to compare: only exact copies of them count.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np

from fer_ray.data.cache import cache_folder, release
from fer_ray.data.hamming import neighbours
from fer_ray.data.perceptual_hash import SIDE, VIEWS, phash, similarity, thumbnail
from fer_ray.data.store import PIXELS_HEX, Dataset

RADIUS = 10
"""Hamming distance in bits of 64 up to which two hashes make a candidate."""

SIMILAR = 0.85
"""Similarity from which a candidate is a near-duplicate."""

FLAT = 4.0
"""Standard deviation in grey levels below which a thumbnail is flat."""

TRAINED_ON = ("train", "synthetic")
"""Parts that training sees; all others are held out."""

_VERSION = 1  # raised when the same images would give other leaks
_EXAMPLES = 100
_RELEASED_IMAGES = 256  # read from the memory map before its pages are given back
_BLOCK = 4096


@dataclass(frozen=True)
class Leaks:
    """Near-duplicate pairs between parts that must not share faces.

    Every image that has a copy in another part is in at least one pair with that part: the one with its nearest copy.

    Attributes:
        first, second: bytes [n], ids; the part of `first` comes before that of `second` in `sizes`.
        first_part, second_part: str [n], names of parts.
        distance: int64 [n], Hamming distance of the hashes in bits, of the view that matched best.
        similarity: float32 [n] in [0, 1], see `perceptual_hash.similarity`; 1 for exact copies.
        exact: bool [n], whether the pixels are equal.
        sizes: part -> number of its images, of all parts that were compared, in their order.
        duplicates_within: part -> number of images that are exact copies of another one of the part; no leak.
    """

    first: np.ndarray
    second: np.ndarray
    first_part: np.ndarray
    second_part: np.ndarray
    distance: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray
    sizes: Mapping[str, int] = field(default_factory=dict)
    duplicates_within: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.first)

    def counts(self) -> dict[tuple[str, str], dict[str, int]]:
        """For every two parts, the earlier one first: pairs, and images of either part that have a copy in the other.

        The keys are pairs, first_images, second_images, and of these with equal pixels: exact_first_images,
        exact_second_images.
        """
        table = {}
        for names in combinations(self.sizes, 2):
            here = self._between(*names)
            exact = here & self.exact
            table[names] = {
                "pairs": int(np.count_nonzero(here)),
                "first_images": len(np.unique(self.first[here])),
                "second_images": len(np.unique(self.second[here])),
                "exact_first_images": len(np.unique(self.first[exact])),
                "exact_second_images": len(np.unique(self.second[exact])),
            }
        return table

    def images(self, part: str, against: Iterable[str]) -> np.ndarray:
        """bytes, ascending ids of the images of `part` that have a copy in any of the parts `against`."""
        others = list(against)
        as_first = (self.first_part == part) & np.isin(self.second_part, others)
        as_second = (self.second_part == part) & np.isin(self.first_part, others)
        return np.unique(np.concatenate([self.first[as_first], self.second[as_second]]))

    def _between(self, first_part: str, second_part: str) -> np.ndarray:
        return (self.first_part == first_part) & (self.second_part == second_part)


def find(parts: Mapping[str, tuple[Dataset, np.ndarray]]) -> Leaks:
    """Compares every two parts; what was found is remembered in the cache, by two parts.

    Args:
        parts: name -> data set and int64 indices of the part's images in it. Data sets may differ in size and channels.
    """
    opened = [_Part(name, dataset, indices) for name, (dataset, indices) in parts.items()]
    found = [(one, other, _remembered(one, other)) for one, other in combinations(opened, 2)]
    table = np.concatenate([np.empty(0, _PAIR), *(pairs for _, _, pairs in found)])
    return Leaks(
        first=_joined([one.ids[pairs["first"]] for one, _, pairs in found], "S1"),
        second=_joined([other.ids[pairs["second"]] for _, other, pairs in found], "S1"),
        first_part=_joined([np.full(len(pairs), one.name) for one, _, pairs in found], "U1"),
        second_part=_joined([np.full(len(pairs), other.name) for _, other, pairs in found], "U1"),
        distance=table["distance"].astype(np.int64),
        similarity=table["similarity"].copy(),
        exact=table["exact"].copy(),
        sizes={part.name: len(part.ids) for part in opened},
        duplicates_within={part.name: len(part.ids) - len(part.unique) for part in opened},
    )


def report_lines(leaks: Leaks) -> list[str]:
    """For the terminal: a line per two parts that share pictures, with the pair that is least alike."""
    lines = []
    for (first, second), count in leaks.counts().items():
        if not count["pairs"]:
            continue
        exact, near = count["exact_second_images"], count["second_images"] - count["exact_second_images"]
        rows = np.flatnonzero(leaks._between(first, second))
        pair = rows[np.argmin(leaks.similarity[rows])]
        lines.append(
            f"{first} / {second}: {count['second_images']:,} of {leaks.sizes[second]:,} {second} images are copies of "
            f"{count['first_images']:,} {first} images ({exact:,} exact, {near:,} near-duplicates), "
            f"e.g. {leaks.second[pair].decode()} of {leaks.first[pair].decode()}"
        )
    if not lines and leaks.sizes:
        return [f"no picture is in two of {', '.join(leaks.sizes)}"]
    return lines


def to_json(leaks: Leaks) -> dict[str, object]:
    """For sweep.json: sizes, counts, and of every two parts up to 100 pairs, the least similar ones first."""
    between = []
    for (first, second), count in leaks.counts().items():
        rows = np.flatnonzero(leaks._between(first, second))
        rows = rows[np.lexsort((leaks.similarity[rows], leaks.exact[rows]))][:_EXAMPLES]
        examples = [
            {
                "first": leaks.first[i].decode(),
                "second": leaks.second[i].decode(),
                "distance": int(leaks.distance[i]),
                "similarity": round(float(leaks.similarity[i]), 3),
                "exact": bool(leaks.exact[i]),
            }
            for i in rows
        ]
        between.append({"first_part": first, "second_part": second, **count, "examples": examples})
    return {
        "sizes": dict(leaks.sizes),
        "duplicates_within": dict(leaks.duplicates_within),
        "between": between,
    }


_PAIR = np.dtype([("first", "<i8"), ("second", "<i8"), ("distance", "u1"), ("similarity", "<f4"), ("exact", "?")])
"""A pair of two parts: numbers of the images in them, and how alike they are."""


class _Part:
    """The images of a part. Equal ones are compared once; `unique` are the numbers of the first of each."""

    def __init__(self, name: str, dataset: Dataset, indices: np.ndarray) -> None:
        self.name, self._images, self._indices = name, dataset.images, indices
        self.ids = dataset.ids[indices]
        self._hashes: dict[int, np.ndarray] = {}
        self.keys, self.unique, self.group = np.unique(
            self.ids.astype(f"S{PIXELS_HEX}"), return_index=True, return_inverse=True
        )

    def fingerprint(self) -> bytes:
        return hashlib.sha256(f"{self._images.shape[1:]} {self.ids.dtype}".encode() + self.ids.tobytes()).digest()

    @cached_property
    def thumbnails(self) -> np.ndarray:
        thumbnails = np.empty((len(self.unique), SIDE, SIDE), np.uint8)
        for i, index in enumerate(self._indices[self.unique]):
            thumbnails[i] = thumbnail(self._images[index])
            if i % _RELEASED_IMAGES == 0:
                release(self._images)
        release(self._images)
        return thumbnails

    @cached_property
    def detailed(self) -> np.ndarray:
        """Numbers, in `unique`, of images that are not flat."""
        blocks = (self.thumbnails[start : start + _BLOCK] for start in range(0, len(self.unique), _BLOCK))
        return np.flatnonzero(_joined([block.std(axis=(1, 2), dtype=np.float32) for block in blocks], "f4") >= FLAT)

    def hashes(self, view_number: int) -> np.ndarray:
        """uint64 pHashes of a view of the `detailed` images."""
        if view_number not in self._hashes:
            self._hashes[view_number] = phash(self.thumbnails[self.detailed], VIEWS[view_number])
        return self._hashes[view_number]


def _remembered(one: _Part, other: _Part) -> np.ndarray:
    """_PAIR [n], from the cache if the same two parts were compared before."""
    key = hashlib.sha256(f"{_VERSION}".encode() + one.fingerprint() + other.fingerprint()).hexdigest()[:16]
    path = cache_folder() / "leakage" / f"{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        pairs = np.load(path, allow_pickle=False)
        if pairs.dtype == _PAIR and pairs.ndim == 1 and _within(pairs, one, other):
            return pairs
    pairs = _compare(one, other)
    # A cache that cannot be written costs seconds at the next start, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex[:8]}.npy")
        np.save(partial, pairs)
        os.replace(partial, path)
    return pairs


def _within(pairs: np.ndarray, one: _Part, other: _Part) -> bool:
    return all(
        len(pairs) == 0 or (pairs[side].min() >= 0 and pairs[side].max() < len(part.ids))
        for side, part in (("first", one), ("second", other))
    )


def _compare(one: _Part, other: _Part) -> np.ndarray:
    """_PAIR [n], sorted: each image of either part that has a copy in the other, with the nearest one."""
    _, first, second = np.intersect1d(one.keys, other.keys, assume_unique=True, return_indices=True)
    alike = np.zeros(len(first), _PAIR)
    alike["first"], alike["second"], alike["similarity"], alike["exact"] = first, second, 1, True
    alike = np.concatenate([alike, _near_duplicates(one, other)])
    # From numbers in `unique` to numbers of images, from either side.
    sides = []
    for side, part, across, partner in (("first", one, "second", other), ("second", other, "first", one)):
        best = alike[np.lexsort((alike[across], alike["distance"], -alike["similarity"], ~alike["exact"], alike[side]))]
        best = best[np.r_[True, best[side][1:] != best[side][:-1]][: len(best)]]
        copies = np.flatnonzero(np.isin(part.group, best[side]))
        pairs = best[np.searchsorted(best[side], part.group[copies])]
        pairs[side], pairs[across] = copies, partner.unique[pairs[across]]
        sides.append(pairs)
    return np.unique(np.concatenate(sides))


def _near_duplicates(one: _Part, other: _Part) -> np.ndarray:
    """_PAIR [n] of numbers in `unique`: what some view of the second image shows like the first image."""
    found = [np.empty(0, _PAIR)]
    for number, view in enumerate(VIEWS):
        first, second, distance = neighbours(one.hashes(0), other.hashes(number), RADIUS)
        first, second = one.detailed[first], other.detailed[second]
        for start in range(0, len(first), _BLOCK):
            block = slice(start, start + _BLOCK)
            scores = similarity(one.thumbnails[first[block]], other.thumbnails[second[block]], view)
            alike = np.flatnonzero((scores >= SIMILAR) & (one.keys[first[block]] != other.keys[second[block]]))
            pairs = np.zeros(len(alike), _PAIR)
            pairs["first"], pairs["second"] = first[block][alike], second[block][alike]
            pairs["distance"], pairs["similarity"] = distance[block][alike], scores[alike]
            found.append(pairs)
    return np.concatenate(found)


def _joined(arrays: Sequence[np.ndarray], empty: str) -> np.ndarray:
    return np.concatenate([np.empty(0, empty), *arrays])
