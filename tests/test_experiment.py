"""The data of a run: label sets, other test sets, folds, copies, and what of it is part of a run's identity."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TinyFaces
from faces import random_faces, write_folders

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.experiment import check_leaks, data_notes, draw, max_train_images, open_experiment
from fer_ray.labels import FER2013


def folder(path: Path, counts: dict[str, int], seed: int = 0) -> str:
    """Random faces: `{"train/happy": 10, ...}`."""
    faces = iter(random_faces(sum(counts.values()), seed=seed))
    files = {f"{place}/{i:03d}.png": next(faces) for place, count in counts.items() for i in range(count)}
    return str(write_folders(path, files))


def config(source: str, **values: object) -> RunConfig:
    flat = {"data.source": source, "model.name": "ShuffleNetV2-x1.0", "training.epochs": 1, "runtime.threads": 1}
    return RunConfig.from_flat({**flat, **{key.replace("__", "."): value for key, value in values.items()}})


def test_seven_classes_merge_to_four_with_the_published_shares_of_images(tmp_path: Path) -> None:
    counts = {f"train/{name}": 10 + i for i, name in enumerate(FER2013)} | {f"test/{name}": 2 for name in FER2013}
    experiment = open_experiment(config(folder(tmp_path / "fer", counts), data__label_set="fer4"))
    assert experiment.classes == ("angry", "happy", "sad", "neutral")
    found = np.bincount(experiment.real.labels, minlength=4)
    per_class = {name: counts[f"train/{name}"] + 2 for name in FER2013}
    assert found.tolist() == [
        per_class["angry"] + per_class["disgust"],
        per_class["happy"],
        per_class["sad"] + per_class["fear"],
        per_class["neutral"] + per_class["surprise"],
    ]
    assert "disgust counts as angry, fear counts as sad, surprise counts as neutral" in experiment.notes[0]


def test_another_data_set_is_tested_on_over_the_shared_classes(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", {f"{split}/{name}": 8 for split in ("train", "test") for name in ("happy", "sad")})
    eight = {f"{split}/{name}": 6 for split in ("train", "test") for name in ("happy", "sad", "contempt")}
    other = folder(tmp_path / "other", eight, seed=1)
    with pytest.raises(UserError, match=r"real and other test faces have different classes: .*contempt.*--classes"):
        open_experiment(config(one, data__test_source=other))
    both = config(one, data__test_source=other, data__classes="common")
    row = run.execute(both, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "trials" / row["id"] / "predictions.parquet")
    assert frame["split"].value_counts().to_dict() == {"test": 16, "cross_test": 12, "validation": 4}
    assert row["cross_test_name"] == "other test (12)"
    assert 0 <= row["cross_test_accuracy"] <= 1
    assert row["test_reads"] == 1


def test_data_without_a_test_split_are_tested_on_whole(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", {"happy": 20, "sad": 20})
    other = folder(tmp_path / "other", {"happy": 5, "sad": 4}, seed=1)
    parts = open_experiment(config(one, data__test_source=other)).parts(config(one, data__test_source=other))
    assert parts.tests["cross_test"].name == "other all (9)"


def test_a_synthetic_test_is_kept_from_training(tiny_faces: TinyFaces) -> None:
    synthetic = str(tiny_faces.synthetic)
    mixed = config(str(tiny_faces.real), data__synthetic=synthetic, data__synthetic_test_fraction=0.25)
    experiment = open_experiment(mixed)
    parts = experiment.parts(mixed)
    kept, drawn_from = parts.tests["synthetic_test"].index, parts.synthetic_train
    total = len(experiment.synthetic.images)
    assert len(kept) + len(drawn_from) == total
    assert not set(kept) & set(drawn_from)
    assert abs(len(kept) - total / 4) <= len(experiment.classes)
    half = mixed.replace({"data.real_fraction": 0.5})
    mixture, _ = draw(half, experiment)
    assert not set(mixture.synthetic) & set(kept)


def test_a_synthetic_test_makes_the_synthetic_faces_part_of_the_signature(tiny_faces: TinyFaces) -> None:
    real_only = config(str(tiny_faces.real), data__synthetic=str(tiny_faces.synthetic))
    tested = real_only.replace({"data.synthetic_test_fraction": 0.25})
    experiment = open_experiment(tested)
    other = replace(experiment, synthetic=replace(experiment.synthetic, digest="0" * 16))
    assert experiment.signature(real_only) == other.signature(real_only)
    assert experiment.signature(tested) != other.signature(tested)


def test_a_synthetic_test_needs_synthetic_faces(tiny_faces: TinyFaces) -> None:
    with pytest.raises(UserError, match=r"data.synthetic_test_fraction: got 0.2, but there are no synthetic faces"):
        open_experiment(config(str(tiny_faces.real), data__synthetic_test_fraction=0.2))


def test_a_synthetic_test_split_of_its_own_cannot_be_doubled(tmp_path: Path, tiny_faces: TinyFaces) -> None:
    classes = open_experiment(config(str(tiny_faces.real))).classes
    own = folder(tmp_path / "gan", {f"{split}/{name}": 9 for split in ("train", "test") for name in classes})
    mixed = config(str(tiny_faces.real), data__synthetic=own)
    assert "synthetic_test" in open_experiment(mixed).parts(mixed).tests
    twice = mixed.replace({"data.synthetic_test_fraction": 0.2})
    with pytest.raises(UserError, match="has a test split of its own"):
        open_experiment(twice).parts(twice)


def test_folds_divide_the_training_images_and_keep_the_test(tmp_path: Path) -> None:
    source = folder(tmp_path / "faces", {"happy": 40, "sad": 20})
    validated: list[int] = []
    tests = set()
    for number in range(1, 6):
        fold = config(source, data__fold=f"{number}/5")
        parts = open_experiment(fold).parts(fold)
        assert not set(parts.train) & set(parts.validation)
        validated += parts.validation.tolist()
        tests.add(tuple(parts.tests["test"].index))
        assert 9 <= len(parts.validation) <= 11
        assert parts.validation_name.startswith(f"fold {number} of 5")
    assert len(tests) == 1
    assert len(validated) == len(set(validated)) == 60 - len(*tests)


@pytest.fixture
def leaky(tmp_path: Path) -> str:
    """Ten training faces of each class, two of which are in the test split too."""
    faces = random_faces(30)
    files = {f"train/{name}/{i}.png": faces[i + 10 * j] for j, name in enumerate(("happy", "sad")) for i in range(10)}
    files |= {
        f"test/{name}/{i}.png": faces[20 + i + 5 * j] for j, name in enumerate(("happy", "sad")) for i in range(5)
    }
    files |= {"test/happy/copy.png": faces[0], "test/sad/copy.png": faces[10]}
    return str(write_folders(tmp_path / "leaky", files))


def test_copies_are_told_dropped_or_refused(leaky: str) -> None:
    plain, clean = config(leaky), config(leaky, data__drop_leaks=True)
    experiment = open_experiment(plain)
    assert any("2 of 12 test images" in line for line in check_leaks(experiment, plain, is_strict=False))
    with pytest.raises(UserError, match=r"--strict: \d+ training images are copies .*--drop-leaks"):
        check_leaks(experiment, plain, is_strict=True)
    assert "left out" in check_leaks(experiment, clean, is_strict=True)[-1]
    before, after = experiment.parts(plain), experiment.parts(clean)
    dropped = set(before.train) - set(after.train)
    shown = {bytes(experiment.real.ids[i])[:16] for i in before.tests["test"].index}
    assert {bytes(experiment.real.ids[i])[:16] for i in dropped} <= shown
    assert not {bytes(experiment.real.ids[i])[:16] for i in after.train} & shown
    assert max_train_images(clean, experiment, [1.0], "replace") < max_train_images(plain, experiment, [1.0], "replace")


def test_results_tell_scores_without_the_copies(leaky: str, tmp_path: Path) -> None:
    from fer_ray.experiment import leak_columns

    plain = config(leaky)
    out = tmp_path / "out"
    run.execute(plain, out)
    results.write_leakage(out, leak_columns(open_experiment(plain), plain))
    assert len(results.load(out).leaked("test")) == 2


def test_notes_name_every_test(tmp_path: Path, tiny_faces: TinyFaces) -> None:
    mixed = config(str(tiny_faces.real), data__synthetic=str(tiny_faces.synthetic), data__synthetic_test_fraction=0.25)
    text = " ".join(data_notes(open_experiment(mixed), mixed))
    assert "tested on" in text
    assert f"{tiny_faces.synthetic.name} test (" in text
