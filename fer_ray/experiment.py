"""The data of a run or a sweep: opened, brought to one list of classes, divided, and drawn from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from fer_ray import labels as label_names
from fer_ray.config import DATA_PATHS, NAMED_WEIGHTS, RunConfig
from fer_ray.data import leakage, mixing, splits
from fer_ray.data.store import Dataset, open_dataset, open_like
from fer_ray.errors import UserError

DEMO, DEMO_NAME = "demo", "demo faces"

_SYNTHETIC_SALT = b"fer_ray synthetic test 1"
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class TestPart:
    """Images that a run is tested on: int64 `index` into `dataset`, and a name for captions."""

    __test__ = False  # for pytest, which takes the name for a test

    dataset: Dataset
    index: np.ndarray
    name: str


@dataclass(frozen=True)
class Parts:
    """Which images of an experiment train, choose and test.

    Attributes:
        train, validation: int64 indices into the real faces, ascending.
        synthetic_train: the same into the synthetic ones; empty where there are none.
        tests: `test`, and where there are such images `synthetic_test` and `cross_test`.
        validation_name: what validation is, for captions.
    """

    train: np.ndarray
    validation: np.ndarray
    synthetic_train: np.ndarray
    tests: dict[str, TestPart]
    validation_name: str


@dataclass(frozen=True)
class Experiment:
    """Real faces, and where there are any synthetic ones and those of another data set, with one list of classes.

    Attributes:
        real, synthetic, cross: the data sets; `cross` is tested on only.
        left_out: classes that only one of them has, which `--classes common` goes on without.
        notes: what the label set changed, a line each.
        max_evaluated: at most so many images are in validation and each test; None: all.
    """

    real: Dataset
    synthetic: Dataset | None = None
    cross: Dataset | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    max_evaluated: int | None = None
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.real.classes

    def signature(self, config: RunConfig) -> str:
        """The config's signature on this data; synthetic faces that give it neither images nor classes are left out."""
        is_used = (
            uses_synthetic(config) or config.data.classes == "common" or "synthetic_test" in self.parts(config).tests
        )
        if config.model.weights not in NAMED_WEIGHTS:
            # What a file holds is part of the run, not where it lies.
            config = config.replace({"model.weights": f"file {file_digest(config.model.weights)}"})
        digests = [data.digest if data is not None else None for data in (self.real, self.synthetic, self.cross)]
        return config.signature(digests[0] or "", digests[1] if is_used else None, digests[2])

    def parts(self, config: RunConfig) -> Parts:
        """Divides the data as the config says, training images that leak left out if it says so."""
        data = config.data
        key = (data.test_split, data.fold, data.synthetic_test_fraction)
        parts = self._once(("parts", key), lambda: self._divide(config))
        if not data.drop_leaks:
            return parts
        return self._once(("clean", key), lambda: _without_leaks(self, parts, self.leaks(config)))

    def leaks(self, config: RunConfig) -> leakage.Leaks:
        """Near-duplicates between the parts, before any is dropped. Rendered faces, all alike, are not compared."""
        if config.data.source == DEMO:
            return leakage.find({})
        data = config.data
        key = (data.test_split, data.fold, data.synthetic_test_fraction)
        return self._once(("leaks", key), lambda: leakage.find(self._named_parts(self._divide(config))))

    def _once(self, key: Any, make: Callable[[], _Made]) -> _Made:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _divide(self, config: RunConfig) -> Parts:
        data = config.data
        real = splits.assign(self.real, data.test_split, data.fold)
        few = slice(self.max_evaluated)
        tests = {"test": TestPart(self.real, real.test[few], real.test_name)}
        synthetic_train = np.zeros(0, np.int64)
        if self.synthetic is not None:
            synthetic_train, kept = _synthetic_parts(self.synthetic, data.synthetic_test_fraction)
            if len(kept):
                name = f"{self.synthetic.name} test ({len(kept):,})"
                tests["synthetic_test"] = TestPart(self.synthetic, kept[few], name)
        if self.cross is not None:
            index, name = splits.own_test(self.cross, data.test_split)
            tests["cross_test"] = TestPart(self.cross, index[few], f"{self.cross.name} {name}")
        return Parts(
            _trainable(self.real, real.train), real.validation[few], synthetic_train, tests, real.validation_name
        )

    def _named_parts(self, parts: Parts) -> dict[str, tuple[Dataset, np.ndarray]]:
        named = {"train": (self.real, parts.train), "validation": (self.real, parts.validation)}
        named |= {name: (test.dataset, test.index) for name, test in parts.tests.items()}
        if self.synthetic is not None:
            named["synthetic"] = (self.synthetic, parts.synthetic_train)
        return named


def open_experiment(config: RunConfig) -> Experiment:
    """Opens the data of a config from the cache, filling it on first use.

    Raises UserError when a file cannot be read or the classes of the data differ (see `labels.common_classes`).
    """
    data = config.data
    real = _open_real(config)
    synthetic_source = data.synthetic or (DEMO if data.source == DEMO else None)
    synthetic = open_like(synthetic_source, real, align=data.align) if synthetic_source else None
    if data.synthetic_test_fraction and synthetic is None:
        raise UserError(
            f"data.synthetic_test_fraction: got {data.synthetic_test_fraction:g}, but there are no synthetic faces; "
            "give some with --synthetic, or leave it at 0"
        )
    cross = open_like(data.test_source, real, domain="real", align=data.align) if data.test_source else None
    found = {"real": real, "synthetic": synthetic, "other test": cross}
    datasets = {part: dataset for part, dataset in found.items() if dataset is not None}
    notes: list[str] = []
    if data.label_set != "native":
        for part, dataset in datasets.items():
            label_map = label_names.map_to(dataset.classes, data.label_set)
            datasets[part] = dataset.select_classes(label_map.classes, label_map.merged)
            notes += [f"{dataset.name} as {data.label_set}: {line}" for line in label_map.notes()]
    classes = {part: dataset.classes for part, dataset in datasets.items()}
    shared = label_names.common_classes(classes, data.classes)
    left_out = label_names.in_order({name for names in classes.values() for name in names}.difference(shared))
    datasets = {part: dataset.select_classes(shared) for part, dataset in datasets.items()}
    return Experiment(
        datasets["real"], datasets.get("synthetic"), datasets.get("other test"), left_out, tuple(dict.fromkeys(notes))
    )


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The config with its data named from the root, so that it can be repeated from any working directory."""
    flat = config.flat()
    paths = {key: flat[key] for key in DATA_PATHS if flat[key] not in (None, DEMO)}
    if config.model.weights not in NAMED_WEIGHTS:
        paths["model.weights"] = config.model.weights
    return config.replace({key: str(Path(path).expanduser().absolute()) for key, path in paths.items()})


def file_digest(path: str) -> str:
    """16 hex digits of a file's SHA-256. Raises UserError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(
            f"model.weights: cannot read {path} ({error.strerror}); expected none, imagenet or a file"
        ) from error


def uses_synthetic(config: RunConfig) -> bool:
    """Whether the run draws any synthetic face."""
    return config.data.mixing != "real_only" and config.data.real_fraction < 1


def data_notes(experiment: Experiment, config: RunConfig) -> list[str]:
    """What a user should know about the data before a number is trained on it, a line each."""
    real, synthetic, parts = experiment.real, experiment.synthetic, experiment.parts(config)
    lines = []
    if real.name == DEMO_NAME:
        lines.append("rendered demo faces, no --data given: the figures say nothing about real ones")
    height, width, channels = real.images.shape[1:]
    tests = " and ".join(test.name for test in parts.tests.values())
    lines.append(
        f"{real.name}: {len(parts.train):,} training images, {height}x{width}x{channels}, "
        f"{len(real.classes)} classes; chosen on {parts.validation_name}, tested on {tests}"
    )
    if synthetic is not None:
        lines.append(f"synthetic: {synthetic.name}, {len(parts.synthetic_train):,} training images")
    if experiment.left_out:
        lines.append(f"classes that not all of the data have are left out: {', '.join(experiment.left_out)}")
    own = [f"{data.name}: {note}" for data in (real, synthetic, experiment.cross) if data for note in data.notes]
    return [*lines, *experiment.notes, *own]


def check_leaks(experiment: Experiment, config: RunConfig, is_strict: bool) -> list[str]:
    """What is in two parts that must not share faces, a line each, and what becomes of it.

    Raises UserError where `is_strict` and images would be trained on that are copies of judged ones.
    """
    leaks = experiment.leaks(config)
    judged = [name for name in leaks.sizes if name not in leakage.TRAINED_ON]
    count = sum(len(leaks.images(part, judged)) for part in leakage.TRAINED_ON)
    lines = leakage.report_lines(leaks)
    if not count:
        return lines
    if config.data.drop_leaks:
        return [*lines, f"--drop-leaks: {count:,} training images are left out"]
    if is_strict:
        raise UserError(
            f"--strict: {count:,} training images are copies of validation or test images; leave them out with "
            f"--drop-leaks, or start without --strict. {'; '.join(lines)}"
        )
    advice = f"--drop-leaks leaves these {count:,} out of training, --strict refuses to start"
    return [*lines, f"scores on images with a copy in training may be too good; {advice}"]


def leak_columns(experiment: Experiment, config: RunConfig) -> dict[str, Any]:
    """The pairs of `leakage.Leaks` as columns, for `results.write_leakage`."""
    leaks = experiment.leaks(config)
    return {
        "first": [sample.decode() for sample in leaks.first],
        "second": [sample.decode() for sample in leaks.second],
        "first_part": leaks.first_part,
        "second_part": leaks.second_part,
        "distance": leaks.distance,
        "similarity": leaks.similarity,
        "exact": leaks.exact,
    }


def draw(config: RunConfig, experiment: Experiment) -> tuple[mixing.Mixture, int]:
    """The training images of a run and its N, the largest that this cell can fill where the config leaves it open."""
    synthetic = experiment.synthetic if uses_synthetic(config) else None
    if synthetic is None and uses_synthetic(config):
        raise UserError(
            f"data.real_fraction: {config.data.real_fraction:g} needs synthetic faces; give some with --synthetic, "
            "or make some with python -m fer_ray.synthesize ppca"
        )
    count = config.data.num_train_images
    if count == "auto":
        count = max_train_images(config, experiment, [config.data.real_fraction], config.data.mixing)
    parts = experiment.parts(config)
    mixture = mixing.draw(
        experiment.real,
        parts.train,
        synthetic,
        parts.synthetic_train,
        num_train_images=count,
        real_fraction=config.data.real_fraction,
        mixing=config.data.mixing,
        seed=config.training.seed,
    )
    return mixture, count


def max_train_images(
    config: RunConfig,
    experiment: Experiment,
    real_fractions: Sequence[float],
    mixing_name: Literal["replace", "add", "real_only"],
) -> int:
    """The largest N that the cells of all these real fractions can fill without drawing a face twice."""
    parts, synthetic = experiment.parts(config), experiment.synthetic
    real_counts = mixing.class_counts(experiment.real, parts.train)
    synthetic_counts = mixing.class_counts(synthetic, parts.synthetic_train) if synthetic else None
    return mixing.max_train_images(real_counts, synthetic_counts, real_fractions, mixing_name)


def _open_real(config: RunConfig) -> Dataset:
    real = open_dataset(config.data.source, align=config.data.align)
    if config.data.votes == "majority":
        return real
    if real.votes is None:
        raise UserError(
            f"data.votes: {config.data.votes} needs the votes of annotators, and {real.name} has none; "
            "pass fer2013new.csv of FER+ (beside fer2013.csv) as --data, or leave it at majority"
        )
    return real.towards(config.data.votes)


def _synthetic_parts(synthetic: Dataset, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of synthetic faces, int64 each: their own test split, else a share by id."""
    train, test = synthetic.in_split("train"), synthetic.in_split("test")
    if not fraction:
        return train, test
    if len(test):
        raise UserError(
            f"{synthetic.name} has a test split of its own ({len(test):,} images); "
            f"leave data.synthetic_test_fraction at 0, it was {fraction:g}"
        )
    percents = [100 * fraction, 100 - 100 * fraction]
    test, train = splits.stratified_parts(synthetic, train, percents, _SYNTHETIC_SALT)
    return train, test


def _trainable(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """Without samples whose votes agree on nothing to train towards."""
    return index if dataset.targets is None else index[dataset.targets[index].any(axis=1)]


def _without_leaks(experiment: Experiment, parts: Parts, leaks: leakage.Leaks) -> Parts:
    judged = ("validation", *parts.tests)
    real, synthetic = experiment.real, experiment.synthetic
    train = parts.train[~np.isin(real.ids[parts.train], leaks.images("train", judged))]
    synthetic_train = parts.synthetic_train
    if synthetic is not None:
        found = np.isin(synthetic.ids[synthetic_train], leaks.images("synthetic", judged))
        synthetic_train = synthetic_train[~found]
    return Parts(train, parts.validation, synthetic_train, parts.tests, parts.validation_name)
