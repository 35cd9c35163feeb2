"""Train, validation and test as index arrays: a function of sample ids and a constant, never of a trial's seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_ray.data.store import PIXELS_HEX, Dataset
from fer_ray.errors import UserError

TestSplit = Literal["private", "public", "all"]

CARVED_PERCENT = 15
"""Share of the training images that becomes validation, or test, where the data has none; stratified by class."""

_SALT = b"fer_ray split 1"


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of a data set.

    Attributes:
        train, validation, test: int64 indices into the data set, ascending.
        test_name: what the test part is, for captions, e.g. "PrivateTest (3,589)".
        validation_name: the same of validation, e.g. "PublicTest (3,589)" or "15 % of training (4,306)".
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_name: str
    validation_name: str


def assign(dataset: Dataset, test_split: TestSplit = "private") -> Splits:
    """Decides which samples train, choose and test.

    FER2013's halves: `private` tests on PrivateTest and validates on PublicTest; `public` and `all` validate on a
    part of training. Other data keeps the splits it has; a missing one is carved from training, with equal faces on
    one side.

    Raises UserError when the data has no such test split, or a class has no training image.
    """
    train = dataset.in_split("train")
    validation = dataset.in_split("validation")
    test, test_name = _given_test(dataset, test_split)
    missing = [name for name, part in (("test", test), ("validation", validation)) if not len(part)]
    validation_name = f"validation ({len(validation):,})"
    if "validation" in missing and test_split == "private" and len(public := dataset.in_split("public")):
        missing.remove("validation")
        validation, validation_name = public, f"PublicTest ({len(public):,})"
    source = "all images" if len(missing) == 2 else "training"
    train, *carved = carve(dataset, train, len(missing))
    for name, part in zip(missing, carved, strict=True):
        described = f"{CARVED_PERCENT} % of {source} ({len(part):,})"
        if name == "test":
            test, test_name = part, described
        else:
            validation, validation_name = part, described
    counts = np.bincount(dataset.labels[train], minlength=len(dataset.classes))
    if empty := [name for name, count in zip(dataset.classes, counts, strict=True) if not count]:
        raise UserError(f"{dataset.name}: no training image of {', '.join(map(repr, empty))}; add some or leave it out")
    return Splits(train, validation, test, test_name, validation_name)


def carve(dataset: Dataset, pool: np.ndarray, num_parts: int) -> list[np.ndarray]:
    """Takes `num_parts` stratified parts of CARVED_PERCENT each out of `pool`, the same ones always.

    Faces with equal pixels go to one side, and are stratified by the first of their labels. Returns the rest, then
    the parts: int64 indices, ascending. Which part a face goes to depends on ids only, not on order or seed.
    """
    if not num_parts:
        return [pool]
    pixels, first, group_of, group_sizes = np.unique(
        dataset.ids[pool].astype(f"S{PIXELS_HEX}"), return_index=True, return_inverse=True, return_counts=True
    )
    labels = dataset.labels[pool][first]
    keys = hash_keys(pixels, _SALT)
    part_of_group = np.zeros(len(pixels), np.int64)
    for label in np.unique(labels):
        groups = np.flatnonzero(labels == label)
        groups = groups[np.argsort(keys[groups], kind="stable")]
        sizes = group_sizes[groups]
        starts = np.cumsum(sizes) - sizes
        # 1 for the first 15 %, 2 for the second, ...; what lies beyond the last part stays in the rest, 0.
        parts = 1 + starts * 100 // (CARVED_PERCENT * sizes.sum())
        part_of_group[groups] = np.where(parts <= num_parts, parts, 0)
    part_of = part_of_group[group_of]
    return [pool[part_of == part] for part in range(num_parts + 1)]


def hash_keys(ids: Sequence[bytes] | np.ndarray, salt: bytes) -> np.ndarray:
    """uint64 [n]: sorting by them is a random order that depends on each id and the salt alone, on any machine."""
    keyed = hashlib.blake2b(salt, digest_size=8)
    keys = bytearray()
    for sample_id in ids:
        hasher = keyed.copy()
        hasher.update(b"\0" + bytes(sample_id))
        keys += hasher.digest()
    return np.frombuffer(bytes(keys), "<u8")


def _given_test(dataset: Dataset, test_split: TestSplit) -> tuple[np.ndarray, str]:
    """The test images that the data marks as such, possibly none, and their name."""
    halves = {"public": dataset.in_split("public"), "private": dataset.in_split("private")}
    other = dataset.in_split("test")
    names = {"public": "PublicTest", "private": "PrivateTest"}
    has_halves = any(len(half) for half in halves.values())
    if test_split != "all" and has_halves:
        test = halves[test_split]
        if not len(test):
            raise UserError(
                f"{dataset.name} has no {names[test_split]} images; choose another test split with --test-split"
            )
        return test, f"{names[test_split]} ({len(test):,})"
    if test_split == "public":
        raise UserError(f"{dataset.name} has no PublicTest images; --test-split public is for FER2013's halves")
    if has_halves:
        test = dataset.in_split("public", "private", "test")
        present = [names[half] for half, indices in halves.items() if len(indices)] + ["test"] * bool(len(other))
        return test, f"{' + '.join(present)} ({len(test):,})"
    return other, f"test ({len(other):,})"
