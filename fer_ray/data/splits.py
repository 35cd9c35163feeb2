"""Train, validation and test as index arrays: a function of sample ids and a constant, never of a trial's seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_ray.data.store import IGNORED, PIXELS_HEX, Dataset
from fer_ray.errors import UserError

TestSplit = Literal["private", "public", "all"]

CARVED_PERCENT = 15
"""Share of the training images that becomes validation, or test, where the data has none; stratified by class."""

_SALT = b"fer_ray split 1"
_FOLD_SALT = b"fer_ray fold 1"


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


def assign(
    dataset: Dataset, test_split: TestSplit = "private", fold: str | None = None, *, needs_all_classes: bool = True
) -> Splits:
    """Decides which samples train, choose and test.

    FER2013's halves: `private` tests on PrivateTest and validates on PublicTest; `public` and `all` validate on a
    part of training. Other data keeps the splits it has; a missing one is carved from training, with equal faces on
    one side. With `fold` "i/k", part i of k of the training images validates and the rest trains; the validation
    images the data has of its own are left out, so that all folds of a table are chosen alike.

    Raises UserError when the data has no such test split, or a class has no training image and `needs_all_classes`.
    """
    if fold is not None:
        return _folded(dataset, test_split, *map(int, fold.split("/")))
    train = dataset.in_split("train")
    validation = _certain(dataset, dataset.in_split("validation"))
    test, test_name = _given_test(dataset, test_split)
    missing = [name for name, part in (("test", test), ("validation", validation)) if not len(part)]
    validation_name = f"validation ({len(validation):,})"
    if (
        "validation" in missing
        and test_split == "private"
        and len(public := _certain(dataset, dataset.in_split("public")))
    ):
        missing.remove("validation")
        validation, validation_name = public, f"PublicTest ({len(public):,})"
    source = "all images" if len(missing) == 2 else "training"
    train, *carved = carve(dataset, train, len(missing))
    for name, uncertain_too in zip(missing, carved, strict=True):
        part = _certain(dataset, uncertain_too)
        described = f"{CARVED_PERCENT} % of {source} ({len(part):,})"
        if name == "test":
            test, test_name = part, described
        else:
            validation, validation_name = part, described
    if needs_all_classes:
        _check_classes(dataset, train)
    return Splits(train, validation, test, test_name, validation_name)


def _folded(dataset: Dataset, test_split: TestSplit, number: int, count: int) -> Splits:
    whole = assign(dataset, test_split)
    pool = whole.train
    if whole.validation_name.startswith(f"{CARVED_PERCENT} %"):
        # Carved from the training images; the folds take its place.
        pool = np.sort(np.concatenate([pool, whole.validation]))
    folds = stratified_parts(dataset, pool, [100 / count] * count, _FOLD_SALT)
    train = np.sort(np.concatenate([part for i, part in enumerate(folds) if i != number - 1]))
    validation = _certain(dataset, folds[number - 1])
    _check_classes(dataset, train)
    return Splits(
        train,
        validation,
        whole.test,
        whole.test_name,
        f"fold {number} of {count} of training ({len(validation):,})",
    )


def carve(dataset: Dataset, pool: np.ndarray, num_parts: int) -> list[np.ndarray]:
    """Takes `num_parts` stratified parts of CARVED_PERCENT each out of `pool`, the same ones always.

    Returns the rest, then the parts: int64 indices, ascending.
    """
    if not num_parts:
        return [pool]
    *parts, rest = stratified_parts(
        dataset, pool, [CARVED_PERCENT] * num_parts + [100 - CARVED_PERCENT * num_parts], _SALT
    )
    return [rest, *parts]


def stratified_parts(
    dataset: Dataset, pool: np.ndarray, percents: Sequence[float], salt: bytes = _SALT
) -> list[np.ndarray]:
    """Divides `pool` into parts of these percents, stratified by class: int64 indices, ascending, each.

    Which part a face goes to depends on ids and `salt` only, not on order or seed. Faces with equal pixels go to one
    part, and are stratified by the first of their labels. Where the data knows persons, all faces of one go together;
    as each has most of the classes, they are not stratified.
    """
    if dataset.people is None:
        names: np.ndarray = dataset.ids[pool].astype(f"S{PIXELS_HEX}")
    else:
        names = np.char.add(b"person ", dataset.people[pool].astype("S"))
    groups, first, group_of, group_sizes = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    strata = dataset.labels[pool][first] if dataset.people is None else np.zeros(len(groups), np.int16)
    keys = hash_keys(groups, salt)
    bounds = np.cumsum(percents)[:-1]
    part_of_group = np.zeros(len(groups), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        members = members[np.argsort(keys[members], kind="stable")]
        sizes = group_sizes[members]
        starts = np.cumsum(sizes) - sizes
        part_of_group[members] = np.searchsorted(bounds * sizes.sum(), starts * 100, side="right")
    part_of = part_of_group[group_of]
    return [pool[part_of == part] for part in range(len(percents))]


def hash_keys(ids: Sequence[bytes] | np.ndarray, salt: bytes) -> np.ndarray:
    """uint64 [n]: sorting by them is a random order that depends on each id and the salt alone, on any machine."""
    keyed = hashlib.blake2b(salt, digest_size=8)
    keys = bytearray()
    for sample_id in ids:
        hasher = keyed.copy()
        hasher.update(b"\0" + bytes(sample_id))
        keys += hasher.digest()
    return np.frombuffer(bytes(keys), "<u8")


def own_test(dataset: Dataset, test_split: TestSplit) -> tuple[np.ndarray, str]:
    """The images that another system is tested on: the data's own test images, all of them if it marks none.

    Returns int64 indices and what they are. Raises UserError as `assign`.
    """
    test, name = _given_test(dataset, test_split if len(dataset.in_split("public", "private")) else "private")
    if len(test):
        return test, name
    whole = _certain(dataset, np.flatnonzero(dataset.labels != IGNORED))
    return whole, f"all ({len(whole):,})"


def _certain(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """Without samples that are good for training only."""
    return index if dataset.train_only is None else index[~dataset.train_only[index]]


def _check_classes(dataset: Dataset, train: np.ndarray) -> None:
    counts = np.bincount(dataset.labels[train], minlength=len(dataset.classes))
    if empty := [name for name, count in zip(dataset.classes, counts, strict=True) if not count]:
        raise UserError(f"{dataset.name}: no training image of {', '.join(map(repr, empty))}; add some or leave it out")


def _given_test(dataset: Dataset, test_split: TestSplit) -> tuple[np.ndarray, str]:
    """The test images that the data marks as such, possibly none, and their name."""
    halves = {half: _certain(dataset, dataset.in_split(half)) for half in ("public", "private")}
    other = _certain(dataset, dataset.in_split("test"))
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
        test = _certain(dataset, dataset.in_split("public", "private", "test"))
        present = [names[half] for half, indices in halves.items() if len(indices)] + ["test"] * bool(len(other))
        return test, f"{' + '.join(present)} ({len(test):,})"
    return other, f"test ({len(other):,})"
