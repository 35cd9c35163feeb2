"""`python -m fer_ray.evaluate`: a trained network scores on any data what it scored when it was trained."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TinyFaces

from fer_ray import evaluate, results, run
from fer_ray.analysis import report
from fer_ray.config import RunConfig
from fer_ray.errors import UserError

SMALL = {"model.name": "ShuffleNetV2-x1.0", "data.image_size": 32, "training.epochs": 1, "runtime.threads": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_faces: TinyFaces) -> Path:
    """A results folder with two trials that differ in their seed."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        config = {**SMALL, "data.source": str(tiny_faces.real), "training.seed": seed}
        run.execute(RunConfig.from_flat(config), folder, with_artifacts=seed == 0)
    return folder


@pytest.fixture
def trials(root: Path) -> list[Path]:
    return sorted((root / "trials").iterdir(), key=lambda path: results.read_json(path / "row.json")["training.seed"])


def score(arguments: list[object], out: Path) -> tuple[dict, pd.DataFrame]:
    assert evaluate.command([*map(str, arguments), "--threads=1", f"--out={out}"]) == 0
    (folder,) = (out / "trials").iterdir()
    return results.read_json(folder / "row.json"), pd.read_parquet(folder / "predictions.parquet")


def test_the_test_split_scores_as_in_training(trials: list[Path], tiny_faces: TinyFaces, tmp_path: Path) -> None:
    before = results.read_json(trials[0] / "row.json")
    row, predictions = score([trials[0], "--data", tiny_faces.real], tmp_path)
    for name, value in before.items():
        if name.startswith("test_") and isinstance(value, float):
            assert row[name] == pytest.approx(value, abs=1e-6), name
    own = pd.read_parquet(trials[0] / "predictions.parquet").query("split == 'test'")
    assert set(predictions["id"]) == set(own["id"])


def test_a_weights_file_scores_like_its_trial(trials: list[Path], tiny_faces: TinyFaces, tmp_path: Path) -> None:
    before = results.read_json(trials[0] / "row.json")
    file = trials[0] / "artifacts" / "best.pth"
    names = ",".join(before["classes"])
    flags = ["--names", names, "--model", SMALL["model.name"], "--image-size", 32, "--normalization", "image"]
    row, _ = score([file, *flags, "--data", tiny_faces.real], tmp_path)
    assert row["test_accuracy"] == before["test_accuracy"]


def test_an_ensemble_is_the_mean_of_its_members(trials: list[Path], tiny_faces: TinyFaces, tmp_path: Path) -> None:
    row, together = score([*trials, "--data", tiny_faces.real], tmp_path / "both")
    alone = [score([trial, "--data", tiny_faces.real], tmp_path / trial.name)[1] for trial in trials]
    columns = [name for name in together if name.startswith("p_")]
    expected = np.mean([frame[columns].to_numpy() for frame in alone], axis=0)
    np.testing.assert_allclose(together[columns].to_numpy(), expected, atol=1e-6)
    assert len(row["members"]) == 2


def test_the_best_of_a_sweep_are_those_with_the_best_validation(
    root: Path, tiny_faces: TinyFaces, tmp_path: Path
) -> None:
    row, _ = score([root, "--best", 2, "--data", tiny_faces.real], tmp_path)
    rows = results.read_rows(root)
    assert set(row["members"]) == {one["id"] for one in rows}
    with pytest.raises(UserError, match="2 trials have their weights, 3 were asked for"):
        evaluate.command([str(root), "--best", "3", "--data", str(tiny_faces.real)])


def test_the_row_is_one_that_the_tables_take(trials: list[Path], tiny_faces: TinyFaces, tmp_path: Path) -> None:
    from rich.console import Console

    score([trials[0], "--data", tiny_faces.real, "--split", "all"], tmp_path)
    assert report.write_report(tmp_path, console=Console(quiet=True))


def test_other_classes_are_named_with_the_way_out(trials: list[Path], tiny_faces: TinyFaces) -> None:
    with pytest.raises(UserError, match=r"classes that the network does not know: .*data\.classes=common"):
        evaluate.command([str(trials[0]), "--data", str(tiny_faces.synthetic_other_classes), "--split", "all"])


def test_what_a_weights_file_does_not_say_is_asked_for(trials: list[Path], tiny_faces: TinyFaces) -> None:
    file = str(trials[0] / "artifacts" / "best.pth")
    with pytest.raises(UserError, match="does not say its classes; give them in order"):
        evaluate.command([file, "--data", str(tiny_faces.real)])
    with pytest.raises(UserError, match="does not say the size of its images"):
        evaluate.command([file, "--names", "a,b,c", "--data", str(tiny_faces.real)])
    with pytest.raises(UserError, match="name the data set with --data"):
        evaluate.command([file])
