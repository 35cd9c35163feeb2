from dataclasses import replace

import numpy as np
import pytest

from fer_ray.data.readers import SPLITS
from fer_ray.data.splits import assign, carve, hash_keys
from fer_ray.data.store import Dataset
from fer_ray.errors import UserError

CLASSES = ("angry", "happy", "sad")


def dataset(counts, copies=1, seed=0):
    """A data set of `counts[split]` images per class; every `copies` neighbours have equal pixels."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, per_class in counts.items():
        for label, count in enumerate(per_class):
            pixels = [f"{value:016x}" for value in rng.integers(0, 2**63, count // copies + 1)]
            rows += [
                (f"{pixels[i // copies]}-{split}-{CLASSES[label]}-{i % copies}", SPLITS.index(split), label)
                for i in range(count)
            ]
    rows.sort()
    ids, splits, labels = zip(*rows, strict=True)
    images = np.zeros((len(rows), 1, 1, 1), np.uint8)
    return Dataset(
        "test faces",
        images,
        np.array(ids, "S"),
        np.array(labels, np.int16),
        np.array(splits, np.int8),
        CLASSES,
        None,
        None,
        "0",
    )


FER = dataset({"train": (400, 900, 60), "public": (50, 60, 70), "private": (40, 50, 60)})


def names(data, indices):
    return [SPLITS[split] for split in sorted(set(data.splits[indices].tolist()))]


def pixels(data, indices):
    return {sample_id[:16] for sample_id in data.ids[indices]}


def test_private_test_is_validated_on_public():
    parts = assign(FER)
    assert (names(FER, parts.train), names(FER, parts.validation), names(FER, parts.test)) == (
        ["train"],
        ["public"],
        ["private"],
    )
    assert (parts.validation_name, parts.test_name) == ("PublicTest (180)", "PrivateTest (150)")


@pytest.mark.parametrize(
    ("test_split", "tested", "name"),
    [
        ("public", ["public"], "PublicTest (180)"),
        ("all", ["public", "private"], "PublicTest + PrivateTest (330)"),
    ],
)
def test_other_test_splits_are_validated_on_a_part_of_training(test_split, tested, name):
    parts = assign(FER, test_split)
    assert names(FER, parts.test) == tested
    assert names(FER, parts.validation) == ["train"]
    assert parts.test_name == name
    assert parts.validation_name == "15 % of training (204)"
    assert len(parts.train) + len(parts.validation) == 1360


def test_carved_validation_is_stratified():
    parts = assign(FER, "all")
    assert np.bincount(FER.labels[parts.validation]).tolist() == [60, 135, 9]


def test_own_validation_folder_is_used():
    data = dataset({"train": (50, 50, 50), "validation": (9, 9, 9), "test": (10, 10, 10)})
    parts = assign(data)
    assert (parts.validation_name, parts.test_name) == ("validation (27)", "test (30)")
    assert len(parts.train) == 150


def test_train_and_test_folders_carve_validation_from_training():
    data = dataset({"train": (100, 100, 100), "test": (10, 10, 10)})
    parts = assign(data)
    assert (parts.validation_name, parts.test_name) == ("15 % of training (45)", "test (30)")
    assert names(data, parts.validation) == ["train"]


def test_data_without_splits_is_parted_70_15_15():
    parts = assign(dataset({"train": (100, 200, 40)}))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (238, 51, 51)
    assert (parts.validation_name, parts.test_name) == ("15 % of all images (51)", "15 % of all images (51)")


@pytest.mark.parametrize("test_split", ["private", "public", "all"])
def test_parts_are_disjoint_and_ascending(test_split):
    parts = assign(FER, test_split)
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert len(np.unique(together)) == len(together)
    for part in (parts.train, parts.validation, parts.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_equal_faces_stay_on_one_side():
    data = dataset({"train": (300, 300, 300)}, copies=3)
    parts = assign(data)
    sides = [pixels(data, part) for part in (parts.train, parts.validation, parts.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert len(parts.test) == 135


def test_equal_faces_with_two_labels_stay_on_one_side():
    ids = [f"{i:016x}-train-{name}-0".encode() for i in range(100) for name in ("angry", "sad")]
    labels = np.array([0, 2] * 100, np.int16)
    base = dataset({"train": (100, 0, 100)})
    data = Dataset("x", base.images, np.array(ids), labels, base.splits, CLASSES, None, None, "0")
    rest, part = carve(data, np.arange(200), 1)
    assert not pixels(data, rest) & pixels(data, part)
    assert np.bincount(labels[part]).tolist() == [15, 0, 15]


def test_part_of_a_face_depends_on_its_id_alone():
    """Faces keep their side when the pool comes in another order, and almost all do when others join."""
    data = dataset({"train": (200, 200, 200)})
    order = np.random.default_rng(1).permutation(600)
    first = carve(data, np.arange(600), 1)[1]
    shuffled = carve(data, order, 1)[1]
    assert set(first) == set(shuffled)
    fewer = carve(data, np.arange(570), 1)[1]
    assert len(set(fewer) - set(first)) <= 6


def test_keys_are_the_same_on_every_machine():
    # blake2b-64 of salt, a zero byte and the id, by the reference implementation (b2sum -l 64).
    assert hash_keys([b"abc"], b"salt")[0] == int.from_bytes(bytes.fromhex("58281e3f1e1ac97e"), "little")


def test_ignored_classes_are_in_no_part():
    data = FER.select_classes(("angry", "sad"))
    parts = assign(data, "all")
    for part in (parts.train, parts.validation, parts.test):
        assert (data.labels[part] >= 0).all()


def test_class_without_training_images_is_named():
    data = dataset({"train": (50, 0, 50), "test": (5, 5, 5)})
    with pytest.raises(UserError, match="test faces: no training image of 'happy'"):
        assign(data)


def test_class_without_test_images_is_allowed():
    parts = assign(dataset({"train": (50, 50, 50), "test": (5, 0, 5)}))
    assert len(parts.test) == 10


def test_test_split_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no PublicTest images"):
        assign(dataset({"train": (50, 50, 50), "test": (5, 5, 5)}), "public")
    with pytest.raises(UserError, match="no PrivateTest images; choose another test split"):
        assign(dataset({"train": (50, 50, 50), "public": (5, 5, 5)}), "private")


def test_one_person_stays_on_one_side():
    data = dataset({"train": (200, 200, 200)})
    people = np.random.default_rng(3).integers(0, 60, 600).astype(np.int32)
    data = replace(data, people=people)
    parts = assign(data)
    sides = [set(people[part]) for part in (parts.train, parts.validation, parts.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert 60 <= len(parts.test) <= 120


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_folds_are_stratified_and_cover_training_once(count):
    folds = [assign(FER, fold=f"{number}/{count}") for number in range(1, count + 1)]
    whole = assign(FER)
    together = np.concatenate([fold.validation for fold in folds])
    assert sorted(together) == whole.train.tolist()
    for fold in folds:
        assert sorted([*fold.train, *fold.validation]) == whole.train.tolist()
        assert fold.test.tolist() == whole.test.tolist()
        assert np.abs(np.bincount(FER.labels[fold.validation]) - np.array([400, 900, 60]) / count).max() <= 1


def test_equal_faces_stay_in_one_fold():
    data = dataset({"train": (300, 300, 300)}, copies=3)
    for number in range(1, 4):
        fold = assign(data, fold=f"{number}/3")
        assert not pixels(data, fold.train) & pixels(data, fold.validation)


def test_faces_without_a_majority_train_and_do_not_judge():
    data = dataset({"train": (300, 300, 300)})
    uncertain = np.random.default_rng(0).random(900) < 0.3
    parts = assign(replace(data, train_only=uncertain))
    assert uncertain[parts.train].any()
    assert not uncertain[parts.validation].any()
    assert not uncertain[parts.test].any()
