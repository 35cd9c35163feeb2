import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, TinyFaces
from safetensors import safe_open
from safetensors.numpy import load_file
from sklearn import metrics as sklearn_metrics

from fer_ray import results, run
from fer_ray.config import KEYS, RunConfig
from fer_ray.errors import UserError
from fer_ray.experiment import draw, open_experiment
from fer_ray.models import zoo
from fer_ray.training import loop

SMALL = {
    "model.name": "ShuffleNetV2-x1.0",
    "data.image_size": 32,
    "data.num_train_images": 32,
    "training.epochs": 2,
    "training.batch_size": 16,
    "training.seed": 3,
    "runtime.threads": 1,
    "runtime.device": "cpu",
}


@pytest.fixture(scope="module")
def config(tiny_faces: TinyFaces) -> RunConfig:
    sources = {"data.source": str(tiny_faces.real), "data.synthetic": str(tiny_faces.synthetic)}
    return RunConfig.from_flat({**SMALL, **sources, "data.real_fraction": 0.5})


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The row of one run and the folder of its trial."""
    out = tmp_path_factory.mktemp("out")
    row = run.execute(config, out)
    return row, out / "trials" / row["id"]


def test_a_row_says_what_was_run_on_what_and_what_it_cost(finished: tuple[dict, Path], config: RunConfig) -> None:
    row, folder = finished
    assert row.keys() >= set(KEYS)
    assert (row["status"], row["error"]) == (results.FINISHED, None)
    assert row["id"] == config.run_id(row["signature"])
    assert row["classes"] == list(CLASSES)
    assert (row["data_name"], row["synthetic_name"]) == ("real.parquet", "synthetic.parquet")
    assert (row["test_name"], row["validation_name"]) == ("PrivateTest (18)", "PublicTest (18)")
    assert (row["num_train_real"], row["num_train_synthetic"]) == (16, 16)
    assert (row["data.num_train_images"], row["data.image_size"]) == (32, 32)
    assert (row["data.normalization"], row["runtime.precision"]) == ("image", "float32")
    assert (row["epochs_run"], row["images_seen"], row["test_reads"]) == (2, 64, 1)
    assert row["chosen_epoch"] in (1, 2)
    epochs = results.read_parquet(folder / "epochs.parquet").set_index("epoch")
    assert row["validation_loss"] == epochs.at[row["chosen_epoch"], "validation_loss"]
    assert 1.2e6 < row["parameters"] < 1.3e6
    assert all(len(row[name]) == 16 for name in ("data_digest", "synthetic_digest", "signature"))
    assert all(row[name] for name in ("device", "processor", "version_torch", "version_fer_ray", "started_at", "host"))
    assert row["threads"] == 1
    assert row.keys() >= set(results.COST_COLUMNS) - {"seconds"}  # that one is of epochs
    assert all(row[name] > 0 for name in ("train_seconds", "wall_seconds", "images_per_second", "peak_memory_mb"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_predictions_on_disk_agree_with_the_row(finished: tuple[dict, Path], split: str) -> None:
    row, folder = finished
    frame = pd.read_parquet(folder / "predictions.parquet")
    part = frame[frame["split"] == split]
    probabilities = part[[f"p_{name}" for name in CLASSES]].to_numpy(np.float64)
    labels = part["label"].map(CLASSES.index).to_numpy()
    guess = probabilities.argmax(1)
    assert len(part) == part["id"].nunique() == 18
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    golden = {
        "accuracy": sklearn_metrics.accuracy_score(labels, guess),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, guess),
        "macro_f1": sklearn_metrics.f1_score(labels, guess, average="macro", zero_division=0),
        "auroc": sklearn_metrics.roc_auc_score(np.eye(3)[labels], probabilities, average="macro", multi_class="ovr"),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities / probabilities.sum(1, keepdims=True)),
    }
    assert {name: row[f"{split}_{name}"] for name in golden} == pytest.approx(golden, abs=1e-6)


def test_ids_of_predictions_tell_split_and_label(finished: tuple[dict, Path]) -> None:
    frame = pd.read_parquet(finished[1] / "predictions.parquet")
    of_split = {"validation": "public", "test": "private"}
    for sample_id, split, label in zip(frame["id"], frame["split"], frame["label"], strict=True):
        assert sample_id.split("-")[1:3] == [of_split[split], label]


def test_the_chosen_epoch_is_the_best_of_the_epochs_on_disk(finished: tuple[dict, Path]) -> None:
    row, folder = finished
    epochs = pd.read_parquet(folder / "epochs.parquet")
    assert tuple(epochs.columns) == results.EPOCH_COLUMNS
    assert epochs["epoch"].tolist() == [1, 2]
    best = epochs.loc[epochs["validation_macro_f1"].idxmax()]
    assert (best["epoch"], best["validation_accuracy"]) == (row["chosen_epoch"], row["validation_accuracy"])


def test_the_folder_holds_the_weights_and_what_they_mean(finished: tuple[dict, Path]) -> None:
    row, folder = finished
    assert results.read_json(folder / "row.json") == json.loads(json.dumps(row))
    with safe_open(folder / "best.safetensors", "numpy") as weights:
        assert weights.metadata() == {"classes": ",".join(CLASSES), "model": "ShuffleNetV2-x1.0", "id": row["id"]}
        assert weights.get_slice("head.1.weight").get_shape() == [3, 1024]


def test_repeating_a_trial_from_its_config_gives_the_same_bits(finished: tuple[dict, Path], tmp_path: Path) -> None:
    row, folder = finished
    repeated = run.execute(RunConfig.model_validate_json((folder / "config.json").read_bytes()), tmp_path)

    def without_cost(values: dict) -> dict:
        return {name: value for name, value in values.items() if name not in results.COST_COLUMNS}

    assert without_cost(repeated) == without_cost(row)
    again = tmp_path / "trials" / row["id"]
    for name in ("predictions.parquet", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    # Not the bytes: safetensors writes its metadata in no fixed order.
    before, after = (load_file(path / "best.safetensors") for path in (folder, again))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_every_share_of_one_budget_takes_the_same_steps(config: RunConfig, tmp_path: Path) -> None:
    cells = [
        {"data.real_fraction": 0.25, "data.mixing": "real_only"},
        {"data.real_fraction": 0.25},
        {"data.real_fraction": 1.0},
    ]
    rows = [run.execute(config.replace({**cell, "training.epochs": 1}), tmp_path) for cell in cells]
    assert [row["images_seen"] for row in rows] == [32, 32, 32]
    assert [(row["num_train_real"], row["num_train_synthetic"]) for row in rows] == [(8, 0), (8, 24), (32, 0)]
    assert [row["synthetic_digest"] is None for row in rows] == [True, False, True]


def test_models_and_shares_of_one_seed_draw_the_same_faces(config: RunConfig) -> None:
    experiment = open_experiment(config)
    few, _ = draw(config.replace({"data.real_fraction": 0.25}), experiment)
    many, _ = draw(config.replace({"data.real_fraction": 0.75, "model.name": "ResNet18"}), experiment)
    other, _ = draw(config.replace({"data.real_fraction": 0.25, "training.seed": 4}), experiment)
    assert set(few.real) < set(many.real)
    assert set(many.synthetic) < set(few.synthetic)
    assert set(few.real) != set(other.real)


def test_a_loss_that_is_not_finite_becomes_a_failed_row(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = loop.predict
    read = []

    def broken(model, batches, index, *more):
        read.append(index)
        answers = predict(model, batches, index, *more)
        return replace(answers, probabilities=answers.probabilities * (np.nan if len(read) == 2 else 1))

    monkeypatch.setattr(loop, "predict", broken)
    row = run.execute(config, tmp_path)
    assert row["status"] == results.FAILED
    assert "not finite after step 4 (epoch 2)" in row["error"]
    folder = tmp_path / "trials" / row["id"]
    on_disk = results.read_json(folder / "row.json")
    assert on_disk.get("test_accuracy") is None
    assert on_disk["test_reads"] == 0
    assert len(pd.read_parquet(folder / "epochs.parquet")) == 1
    assert pd.read_parquet(folder / "predictions.parquet").empty
    assert not (folder / "best.safetensors").exists()
    assert len(results.load(tmp_path).trials) == 1


def test_a_full_disk_is_a_message_and_leaves_nothing_half_written(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(UserError, match=rf"cannot write .*{tmp_path.name}.*: No space left on device"):
        run.execute(config.replace({"training.epochs": 1}), tmp_path)
    assert list((tmp_path / "trials").iterdir()) == []


def test_the_row_of_a_lost_worker_survives_a_full_disk(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    row = run.write_failure(config, "lost", tmp_path, "its process died", "")
    assert (row["status"], row["error"]) == (results.FAILED, "its process died")


def test_different_classes_are_refused_unless_the_common_ones_are_asked_for(
    config: RunConfig, tiny_faces: TinyFaces, tmp_path: Path
) -> None:
    other = config.replace({"data.synthetic": str(tiny_faces.synthetic_other_classes), "training.epochs": 1})
    with pytest.raises(UserError, match=r"only real: neutral; only synthetic: fear.*--classes common"):
        run.execute(other, tmp_path)
    row = run.execute(other.replace({"data.classes": "common"}), tmp_path)
    assert row["classes"] == ["happy", "sad"]
    assert row["test_support_happy"] + row["test_support_sad"] == 12
    labels = pd.read_parquet(tmp_path / "trials" / row["id"] / "predictions.parquet")["label"]
    assert set(labels) == {"happy", "sad"}


def test_common_classes_are_part_of_the_signature_even_where_no_synthetic_face_is_drawn(
    config: RunConfig, tiny_faces: TinyFaces
) -> None:
    real_alone = config.replace({"data.real_fraction": 1.0, "data.classes": "common"})
    three = open_experiment(real_alone)
    two_values = {"data.synthetic": str(tiny_faces.synthetic_other_classes)}
    two = open_experiment(real_alone.replace(two_values))
    assert (len(three.classes), len(two.classes)) == (3, 2)
    assert three.signature(real_alone) != two.signature(real_alone)


def test_synthetic_faces_that_a_run_does_not_use_leave_its_signature(config: RunConfig) -> None:
    experiment = open_experiment(config)
    without = replace(experiment, synthetic=None)
    real_alone = config.replace({"data.real_fraction": 1.0})
    assert experiment.signature(real_alone) == without.signature(real_alone)
    assert experiment.signature(config) != without.signature(config)


def test_missing_synthetic_faces_are_named(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.real_fraction: 0\.5 needs synthetic faces; .*--synthetic"):
        run.execute(config.replace({"data.synthetic": None}), tmp_path)


def test_the_number_of_images_left_open_is_the_largest_that_fits(config: RunConfig) -> None:
    experiment = open_experiment(config)
    for fraction, count in ((1.0, 60), (0.5, 120), (0.75, 80)):
        chosen = config.replace({"data.num_train_images": "auto", "data.real_fraction": fraction})
        mixture, num_train_images = draw(chosen, experiment)
        assert num_train_images == len(mixture.real) + len(mixture.synthetic) == count


def test_metrics_are_finite_or_null(finished: tuple[dict, Path]) -> None:
    numbers = [value for value in finished[0].values() if isinstance(value, float)]
    assert len(numbers) > 30
    assert all(math.isfinite(value) for value in numbers)


def small_memory(monkeypatch: pytest.MonkeyPatch, num_images: int) -> list[int]:
    """Makes networks fail as on a GPU whose memory holds so many images of a training step; returns what was tried."""
    build, tried = zoo.build, []

    def built(*arguments: Any) -> Any:
        network = build(*arguments)

        def full(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if module.training:
                tried.append(len(inputs[0]))
                if len(inputs[0]) > num_images:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB\nmore")

        network.register_forward_pre_hook(full)
        return network

    monkeypatch.setattr(zoo, "build", built)
    return tried


def test_a_batch_that_memory_does_not_hold_is_trained_in_parts_and_the_row_says_so(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts = run.execute(config.replace({"optimizer.accumulation_steps": 4}), tmp_path)
    tried, said = small_memory(monkeypatch, 4), []
    row = run.execute(config, tmp_path, say=said.append)
    assert (row["status"], row["out_of_memory_retries"]) == (results.FINISHED, 2)
    assert tried[:3] == [16, 8, 4]
    assert set(tried[3:]) == {4}
    # The same batches and steps, so the same numbers as when it is asked for; and the run that was asked for.
    assert (row["training.batch_size"], row["images_seen"]) == (16, in_parts["images_seen"])
    scores = [name for name in row if name.startswith(("validation_", "test_"))]
    assert {name: row[name] for name in scores} == {name: in_parts[name] for name in scores}
    assert row["optimizer.accumulation_steps"] == 1
    assert in_parts["out_of_memory_retries"] == 0
    assert f"{row['id']}: the GPU's memory was full; each batch was trained in 4 parts" in said


def test_memory_that_does_not_hold_two_images_fails_the_run_with_that_reason(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = small_memory(monkeypatch, 1)
    row = run.execute(config, tmp_path)
    assert row["status"] == results.FAILED
    assert row["error"] == (
        "the GPU's memory does not hold two images of a batch: CUDA out of memory. Tried to allocate 20 MiB"
    )
    assert tried == [16, 8, 4, 2]


def test_a_run_that_is_ended_from_outside_is_stopped_and_its_test_unread(config: RunConfig, tmp_path: Path) -> None:
    row = run.execute(config, tmp_path, report=lambda row: row["epoch"] == 1, tags={"proposal": 3})
    assert (row["status"], row["error"], row["epochs_run"], row["test_reads"]) == (results.STOPPED, None, 1, 0)
    assert row["proposal"] == 3
    assert row["validation_macro_f1"] is not None
    assert row.get("test_macro_f1") is None
    folder = tmp_path / "trials" / row["id"]
    assert not (folder / "best.safetensors").exists()
    assert len(pd.read_parquet(folder / "epochs.parquet")) == 1
    # At its last epoch too: whoever ended it does not wait for the test.
    assert run.execute(config, tmp_path, report=lambda row: row["epoch"] == 2)["test_reads"] == 0
    assert run.execute(config, tmp_path)["status"] == results.FINISHED
