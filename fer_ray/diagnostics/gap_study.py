"""Which faces are compared for the domain gap, and the comparisons: all classes together, then each class."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from fer_ray.data.splits import Splits
from fer_ray.data.store import PIXELS_HEX, Dataset
from fer_ray.diagnostics.features import Features
from fer_ray.diagnostics.gap import FOLDS, HISTOGRAM_BINS, MIN_FACES, NEIGHBOURS, SUBSETS, Gap, measure
from fer_ray.errors import UserError

ALL = "all classes"
SYNTHETIC, FLOOR = "synthetic", "real"
"""What a comparison sets against the real faces: synthetic ones, or as many other real ones, which is the floor."""


class Measure(NamedTuple):
    """How a figure is called, read in a few words, and defined."""

    title: str
    reading: str
    definition: str


MEASURES = {
    "frechet": Measure(
        "Frechet",
        "0 if equal, higher with few faces",
        "Frechet distance between Gaussians fitted to both sets (Heusel et al. 2017), in units of these features; its "
        "bias falls with the number of faces, so only figures of equal numbers and one network compare",
    ),
    "kid": Measure(
        "KID",
        "about 0 if equal; 95 % interval",
        "kernel distance: unbiased squared MMD with the kernel (x.y/d + 1)^3 (Binkowski et al. 2018), in units of "
        f"these features; mean and percentiles 2.5 and 97.5 over {SUBSETS} random halves of both sets",
    ),
    "jensen_shannon": Measure(
        "JS",
        "0 if equal, 1 if apart",
        "Jensen-Shannon distance, base 2, the root of the divergence: of the histograms of the classifier's held-out "
        f"probabilities, {HISTOGRAM_BINS} equal bins; raised by few faces",
    ),
    "precision": Measure(
        "precision",
        "share of them among real faces",
        f"share of the faces within the {NEIGHBOURS}-nearest-neighbour ball of any real one (Kynkaanniemi et al. 2019)",
    ),
    "recall": Measure(
        "recall",
        "share of real faces among them",
        f"share of the real faces within the {NEIGHBOURS}-nearest-neighbour ball of any of these (same paper)",
    ),
    "density": Measure(
        "density",
        "about 1 if equal",
        f"real {NEIGHBOURS}-nearest-neighbour balls around a face on average, over {NEIGHBOURS} (Naeem et al. 2020)",
    ),
    "coverage": Measure(
        "coverage",
        "share of real faces with one nearby",
        f"share of the real faces with any of these in their {NEIGHBOURS}-nearest-neighbour ball (same paper)",
    ),
    "accuracy": Measure(
        "classifier",
        ".5 (chance) if equal, 1 if apart",
        "balanced accuracy of a logistic regression on standardised features that tells the sets apart: mean and "
        f"standard deviation of {FOLDS} stratified folds; chance is .5",
    ),
}
"""Field of `gap.Gap` -> what it is, in the order of tables."""


@dataclass(frozen=True)
class Group:
    """Three sets of equally many faces of each class: int64 indices [n], in the same order of classes.

    `reference` and `floor` are disjoint real faces, `synthetic` synthetic ones.
    """

    name: str
    reference: np.ndarray
    floor: np.ndarray
    synthetic: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The real faces of a group set against SYNTHETIC or FLOOR; `gap` is None where they are less than MIN_FACES."""

    group: str
    against: str
    num_faces: int
    gap: Gap | None

    def row(self) -> dict[str, Any]:
        """Flat: group, against, and the fields of the gap, None where there is none."""
        values = asdict(self.gap) if self.gap else dict.fromkeys(Gap.__annotations__)
        return {"group": self.group, "against": self.against, **values, "num_faces": self.num_faces}


def draw(real: Dataset, splits: Splits, synthetic: Dataset, max_faces: int, seed: int) -> list[Group]:
    """Draws the groups: ALL first, then every class, `max_faces` in each set of a group at most.

    Real faces are those of validation and test whose pixels are not in training. No face is drawn twice, nor one with
    equal pixels. ALL has the class shares of these real faces, as far as there are as many of the others.

    Raises UserError when ALL would have less than MIN_FACES.
    """
    pool = np.concatenate([splits.validation, splits.test])
    pool = pool[~np.isin(_pixels(real, pool), _pixels(real, splits.train))]
    real_pool = _distinct(real, pool)
    synthetic_pool = _distinct(synthetic, np.flatnonzero(synthetic.labels >= 0))
    classes = []
    for label, name in enumerate(real.classes):
        rng = np.random.default_rng([seed, label])
        of_real = rng.permutation(real_pool[real.labels[real_pool] == label])
        of_synthetic = rng.permutation(synthetic_pool[synthetic.labels[synthetic_pool] == label])
        count = min(len(of_real) // 2, len(of_synthetic), max_faces)
        classes.append(Group(name, of_real[:count], of_real[count : 2 * count], of_synthetic[:count]))
    real_counts = np.bincount(real.labels[real_pool], minlength=len(real.classes))
    shares = min(1.0, max_faces / max(1, len(real_pool) // 2)) * (real_counts // 2)
    # Rounded down, so that the sum keeps to the limit.
    parts = [_first(group, int(share)) for group, share in zip(classes, shares, strict=True)]
    whole = Group(
        ALL,
        np.concatenate([part.reference for part in parts]),
        np.concatenate([part.floor for part in parts]),
        np.concatenate([part.synthetic for part in parts]),
    )
    if len(whole.reference) < MIN_FACES:
        raise UserError(
            f"{real.name} has {len(real_pool):,} different faces in validation and test, {synthetic.name} has "
            f"{len(synthetic_pool):,}: enough for {len(whole.reference)} in each set (synthetic ones, and two halves "
            f"of the real ones, with equal classes), expected at least {MIN_FACES}; give more faces"
        )
    return [whole, *classes]


def _first(group: Group, count: int) -> Group:
    return Group(group.name, group.reference[:count], group.floor[:count], group.synthetic[:count])


def _pixels(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """The part of the ids that stands for the pixels, bytes [len(index)]."""
    return dataset.ids[index].astype(f"S{PIXELS_HEX}")


def _distinct(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """`index`, ascending, with one of those that have equal pixels."""
    _, first = np.unique(_pixels(dataset, index), return_index=True)
    return np.sort(index[first])


def faces_of(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Every real and every synthetic face of the groups once: int64 indices, ascending."""
    real = np.unique(np.concatenate([part for group in groups for part in (group.reference, group.floor)]))
    return real, np.unique(np.concatenate([group.synthetic for group in groups]))


def compare(groups: Sequence[Group], real: Features, synthetic: Features, seed: int) -> Iterator[Comparison]:
    """Measures every group against SYNTHETIC, then FLOOR."""
    for group in groups:
        reference, count = real.of(group.reference), len(group.reference)
        for against, other in ((SYNTHETIC, synthetic.of(group.synthetic)), (FLOOR, real.of(group.floor))):
            gap = measure(reference, other, seed) if count >= MIN_FACES else None
            yield Comparison(group.name, against, count, gap)
