"""Training sets of real and synthetic faces as index arrays: fixed totals, matched classes, nested shares.

Real faces come in one order per seed: class c, with R_c real training images, puts its j-th face at (j + 1/2) / R_c.
Sorted by that key (Webster's method), every prefix has the class shares of the real split, to rounding. The first k of
the order are "k real faces"; how often each class occurs among the first N is its quota in a training set of N. So
shares are nested (the 10 % are among the 30 %), and cells of one seed are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_ray.data.splits import hash_keys
from fer_ray.data.store import Dataset
from fer_ray.errors import UserError

MixingName = Literal["replace", "add", "real_only"]


@dataclass(frozen=True)
class Mixture:
    """Indices of one training set, int64 and ascending: `real` into the real data set, `synthetic` into the other."""

    real: np.ndarray
    synthetic: np.ndarray


def draw(
    real: Dataset,
    real_train: np.ndarray,
    synthetic: Dataset | None,
    synthetic_train: np.ndarray,
    *,
    num_train_images: int,
    real_fraction: float,
    mixing: MixingName,
    seed: int,
) -> Mixture:
    """Draws the training set of one run; nothing twice, and the same for every model of a seed.

    Args:
        real: real faces; `real_train` holds the int64 indices of its training split.
        synthetic: synthetic faces with the same `classes`, None where no cell needs any; `synthetic_train` holds the
            int64 indices of those that may be drawn.
        num_train_images: N, at least 1.
        real_fraction: r in [0, 1].
        mixing: `replace`: round(rN) real, the rest of N synthetic. `add`: N real, and (1-r)/r N synthetic on top,
            so that r of all are real. `real_only`: round(rN) real.
        seed: the trial's; only the order of faces within their class depends on it.

    Raises:
        UserError: more faces of a class are needed than there are, naming both numbers; or the cell is empty.
    """
    real_counts = class_counts(real, real_train)
    no_faces = np.zeros(0, np.int64)
    pool_counts = np.zeros_like(real_counts) if synthetic is None else class_counts(synthetic, synthetic_train)
    num_real, num_total = _totals(num_train_images, real_fraction, mixing)
    if not num_total:
        raise UserError(f"a real share of {real_fraction:g} of {num_train_images:,} images ({mixing}) is no image")
    quota = _Quota(real_counts)
    need_real, need_synthetic = _needs(quota, num_real, num_total, mixing)
    for need, counts, domain in ((need_real, real_counts, "real"), (need_synthetic, pool_counts, "synthetic")):
        for label in np.flatnonzero(need > counts):
            raise UserError(
                f"{num_train_images:,} training images at a real share of {real_fraction:g} ({mixing}) need "
                f"{need[label]:,} {domain} faces of {real.classes[label]!r}, but there are {counts[label]:,}; "
                "lower num_train_images (auto takes the most that every share can fill)"
            )
    if synthetic is not None:
        assert synthetic.classes == real.classes, "select_classes() first"
    return Mixture(
        _first_of_each_class(real, real_train, need_real, f"real {seed}"),
        no_faces
        if synthetic is None
        else _first_of_each_class(synthetic, synthetic_train, need_synthetic, f"synthetic {seed}"),
    )


def max_train_images(
    real_counts: np.ndarray,
    synthetic_counts: np.ndarray | None,
    real_fractions: Sequence[float],
    mixing: MixingName,
) -> int:
    """The largest N for which `draw` can fill the cell of every real fraction.

    `real_counts` and `synthetic_counts` are images per class (see `class_counts`). Raises UserError when no N will do.
    """
    if synthetic_counts is None:
        synthetic_counts = np.zeros_like(real_counts)
    if mixing != "real_only" and min(real_fractions) < 1 and not synthetic_counts.sum():
        raise UserError(
            f"a real share of {min(real_fractions):g} ({mixing}) needs synthetic faces, and there are none; "
            "pass --synthetic, or mixing=real_only"
        )
    quota = _Quota(real_counts)
    limit = int(real_counts.sum() + synthetic_counts.sum())
    if mixing == "real_only":
        limit = int(real_counts.sum() / max(*real_fractions, 1e-9)) + 1
    candidates = np.arange(1, limit + 1)
    fits = np.ones(len(candidates), bool)
    for fraction in real_fractions:
        num_real, num_total = _totals(candidates, fraction, mixing)
        need_real, need_synthetic = _needs(quota, num_real, num_total, mixing)
        fits &= (need_real <= real_counts).all(axis=1) & (need_synthetic <= synthetic_counts).all(axis=1)
    if not fits.any():
        raise UserError(
            f"no number of training images fills every real share of {', '.join(f'{f:g}' for f in real_fractions)} "
            f"({mixing}): there are {real_counts.sum():,} real and {synthetic_counts.sum():,} synthetic faces"
        )
    return int(candidates[fits][-1])


def class_counts(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """int64 [classes]: images of each class among `indices`."""
    return np.bincount(dataset.labels[indices], minlength=len(dataset.classes))


class _Quota:
    """Images per class among the first k of the order, for scalar or array k. Shape [..., classes]."""

    def __init__(self, counts: np.ndarray) -> None:
        classes = np.repeat(np.arange(len(counts)), counts)
        position = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.argsort((position + 0.5) / counts[classes], kind="stable")
        one_hot = np.zeros((len(classes) + 1, len(counts)), np.int32)
        one_hot[np.arange(len(classes)) + 1, classes[order]] = 1
        self.counts = counts
        self.first = one_hot.cumsum(axis=0, dtype=np.int64)

    def __call__(self, k: int | np.ndarray) -> np.ndarray:
        # Beyond all real images (synthetic ones fill up) the order starts again, one period further.
        periods, rest = np.divmod(k, self.counts.sum())
        return np.multiply.outer(periods, self.counts) + self.first[rest]


def _totals(n, fraction: float, mixing: MixingName):
    """Real images, and real plus synthetic ones, of a cell; `n` is an int or an array."""
    if fraction == 0 and mixing != "replace":
        raise UserError(
            f"a real share of 0 is an empty cell with mixing={mixing}; leave 0 out of data.real_fraction, "
            "or use mixing=replace"
        )
    if mixing == "add":
        return n, _round(n / fraction)
    num_real = _round(n * fraction)
    return num_real, (n if mixing == "replace" else num_real)


def _needs(quota: _Quota, num_real, num_total, mixing: MixingName):
    need_real = quota(num_real)
    if mixing == "add":
        return need_real, quota(num_total - num_real)
    return need_real, quota(num_total) - need_real


def _round(values):
    """Halves go up, so that neighbouring totals do not depend on parity; int64."""
    return np.floor(np.asarray(values) + 0.5).astype(np.int64)


def _first_of_each_class(dataset: Dataset, pool: np.ndarray, need: np.ndarray, salt: str) -> np.ndarray:
    """The first `need[c]` faces of each class in the order of `salt`, which depends on ids alone."""
    keys = hash_keys(dataset.ids[pool], salt.encode())
    labels = dataset.labels[pool]
    chosen = []
    for label, count in enumerate(need.tolist()):
        members = np.flatnonzero(labels == label)
        chosen.append(pool[members[np.argsort(keys[members], kind="stable")[:count]]])
    return np.sort(np.concatenate(chosen))
