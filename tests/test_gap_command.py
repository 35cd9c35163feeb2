"""`python -m fer_ray.data gap`: fair sets, features of the right network, and files that say how they were made."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faces import encode

from fer_ray import run, trained
from fer_ray.config import ModelConfig, RunConfig
from fer_ray.data import splits
from fer_ray.data.batches import Batches
from fer_ray.data.store import open_dataset, open_like
from fer_ray.diagnostics import features, gap, gap_command, gap_page, gap_study
from fer_ray.errors import UserError
from fer_ray.models import zoo
from fer_ray.training.runtime import Runtime

CLASSES = ("happy", "sad", "<b>[red]shy")
ONE_THREAD = ("--threads", "1")
RUNTIME = Runtime(torch.device("cpu"), 1, "float32")


def write_faces(path: Path, counts: dict[str, int], usages: list[str], *, seed: int, contrast: int = 120) -> Path:
    """24x24 noise with a bright bar whose place tells the class; `counts` of each class for every usage."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list] = {"image": [], "label": [], "usage": []}
    for usage in usages:
        for place, (name, count) in enumerate(counts.items()):
            images = rng.integers(0, 120, (count, 24, 24, 1), dtype=np.uint8)
            images[:, 4 + 6 * place : 8 + 6 * place] += np.uint8(contrast)
            columns["image"] += [encode(image) for image in images]
            columns["label"] += [name] * count
            columns["usage"] += [usage] * count
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.parquet"
    return write_faces(path, dict.fromkeys(CLASSES, 30), ["Training", "PublicTest", "PrivateTest"], seed=0)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weak bars, and few faces of the last class."""
    path = tmp_path_factory.mktemp("synthetic") / "synthetic.parquet"
    return write_faces(path, dict(zip(CLASSES, (40, 40, 10), strict=True)), ["Training"], seed=1, contrast=30)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, real: Path) -> Path:
    """The folder of a finished run on the real faces."""
    out = tmp_path_factory.mktemp("results")
    values = {"model.name": "ShuffleNetV2-x1.0", "data.source": str(real), "training.epochs": 1, "runtime.threads": 1}
    return out / "trials" / run.execute(RunConfig.from_flat(values), out)["id"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, real: Path, synthetic: Path, trial: Path) -> Path:
    """What the command writes with the trial's network."""
    out = tmp_path_factory.mktemp("written") / "gap"
    assert (
        gap_command.command([*ONE_THREAD, str(real), str(synthetic), "--network", str(trial), "--out", str(out)]) == 0
    )
    return out


def drawn(real: Path, synthetic: Path, max_faces: int = 2000, seed: int = 0) -> tuple:
    real_data = open_dataset(str(real))
    synthetic_data = open_like(str(synthetic), real_data).select_classes(real_data.classes)
    parts = splits.assign(real_data)
    return real_data, synthetic_data, parts, gap_study.draw(real_data, parts, synthetic_data, max_faces, seed)


def test_the_sets_of_a_group_are_equally_large_with_equal_classes_and_never_overlap(
    real: Path, synthetic: Path
) -> None:
    real_data, synthetic_data, _, groups = drawn(real, synthetic)
    assert [group.name for group in groups] == [gap_study.ALL, *real_data.classes]
    for group in groups:
        assert not set(group.reference) & set(group.floor)
        labels = real_data.labels[group.reference]
        np.testing.assert_array_equal(labels, real_data.labels[group.floor])
        np.testing.assert_array_equal(labels, synthetic_data.labels[group.synthetic])
        for part in (group.reference, group.floor, group.synthetic):
            assert len(set(part)) == len(part)
    assert [len(group.reference) for group in groups[1:]] == [30, 30, 10]


def test_faces_that_the_network_learned_from_are_not_measured_nor_are_their_copies(tmp_path: Path) -> None:
    path = write_faces(tmp_path / "a.parquet", {"happy": 40, "sad": 40}, ["Training"], seed=0)
    table = pq.read_table(path)
    others = pq.read_table(
        write_faces(tmp_path / "b.parquet", {"happy": 70, "sad": 70}, ["PublicTest", "PrivateTest"], seed=1)
    )
    copies = table.slice(0, 10).set_column(2, "usage", pa.array(["PrivateTest"] * 10))
    pq.write_table(pa.concat_tables([table, others, copies]), path)
    real_data, _, parts, groups = drawn(path, path)
    pixels = {real_data.images[i].tobytes() for i in parts.train}
    measured = [i for group in groups for i in (*group.reference, *group.floor)]
    assert measured
    assert not any(real_data.images[i].tobytes() in pixels for i in measured)


def test_max_images_bounds_every_set_and_keeps_the_class_shares(real: Path, tmp_path: Path) -> None:
    other = write_faces(tmp_path / "s.parquet", dict.fromkeys(CLASSES, 50), ["Training"], seed=4)
    real_data, _, _, groups = drawn(real, other, max_faces=60)
    assert np.bincount(real_data.labels[groups[0].reference]).tolist() == [20, 20, 20]
    assert all(len(group.reference) <= 60 for group in groups)


def test_the_draw_depends_on_the_seed_alone(real: Path, synthetic: Path) -> None:
    first, again, other = (drawn(real, synthetic, seed=seed)[-1][0].reference for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_too_few_faces_for_any_figure_are_refused_with_their_numbers(real: Path, tmp_path: Path) -> None:
    few = write_faces(tmp_path / "few.parquet", dict.fromkeys(CLASSES, 5), ["Training"], seed=3)
    with pytest.raises(UserError, match=r"few\.parquet has 15: enough for 15 in each set.*at least 25"):
        drawn(real, few)


@pytest.mark.parametrize("name", ["ResNet18", "MobileNetV3-Large", "ConvNeXt-Tiny"])
def test_features_are_what_timm_gives_its_classifier(real: Path, name: str) -> None:
    data = open_dataset(str(real))
    torch.manual_seed(0)
    model = zoo.build(ModelConfig(name=name, dropout=0.5), 3)
    index = np.arange(2, 14)
    given = features.extract(features.Network(model, 32, "image", 3, {}), data, index, RUNTIME, lambda count: None)
    model.eval()
    with torch.inference_mode():
        images = Batches([data], size=32, normalization="image", device=torch.device("cpu"))(index)
        backbone = model.backbone
        expected = backbone.forward_head(backbone.forward_features(images), pre_logits=True)
    np.testing.assert_allclose(given.values, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(given.of(np.array([5, 2])), given.values[[3, 0]])


def test_the_loaded_network_predicts_what_the_trial_recorded(real: Path, trial: Path) -> None:
    network = features.load(trained.read_record(trial), RUNTIME)
    data = open_dataset(str(real))
    test = splits.assign(data).test
    batches = Batches([data], size=network.image_size, normalization=network.normalization, device=RUNTIME.device)
    network.model.eval()
    with torch.inference_mode():
        probabilities = network.model(batches(test)).softmax(1).numpy()
    frame = pq.read_table(trial / "predictions.parquet").to_pandas()
    recorded = frame[frame["split"] == "test"].set_index("id").loc[[i.decode() for i in data.ids[test]]]
    np.testing.assert_allclose(probabilities, recorded[[f"p_{name}" for name in data.classes]], atol=1e-5)


def test_json_csv_and_the_table_hold_the_same_figures(
    written: Path, real: Path, synthetic: Path, trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((written / "gap.json").read_text())
    rows = list(csv.DictReader((written / "gap.csv").open()))
    assert [(row["group"], row["against"]) for row in rows] == [
        (group, against)
        for group in (gap_study.ALL, "happy", "sad", "<b>[red]shy")
        for against in ("synthetic", "real")
    ]
    for row, other in zip(rows, record["comparisons"], strict=True):
        assert {key: "" if value is None else str(value) for key, value in other.items()} == row
    out = written.parent / "again"
    gap_command.command([*ONE_THREAD, str(real), str(synthetic), "--network", str(trial), "--out", str(out)])
    assert json.loads((out / "gap.json").read_text())["comparisons"] == record["comparisons"]
    printed = capsys.readouterr().out
    for key in gap_study.MEASURES:
        assert gap_page.number(record["comparisons"][0][key]) in printed


@pytest.mark.parametrize(
    ("value", "text"), [(12.345, "12.3"), (-0.00000066, "0"), (0.03094, "0.0309"), (1234.5, "1.23e+03"), (1, "1")]
)
def test_figures_are_shown_with_the_digits_they_have(value: float, text: str) -> None:
    assert gap_page.number(value) == text


def test_what_was_measured_can_be_told_from_the_record(written: Path, real: Path, trial: Path) -> None:
    record = json.loads((written / "gap.json").read_text())
    assert open_dataset(str(real)).digest in record["made"]["real faces"]
    assert trial.name in record["made"]["network"]
    assert record["made"]["seed"] == 0
    assert record["versions"]["version_torch"]
    assert record["definitions"].keys() == gap_study.MEASURES.keys()


def test_a_class_with_too_few_faces_is_named_and_has_no_figures(written: Path) -> None:
    record = json.loads((written / "gap.json").read_text())
    few = [row for row in record["comparisons"] if row["group"] == "<b>[red]shy"]
    assert [(row["num_faces"], row["frechet"], row["accuracy"]) for row in few] == [(10, None, None)] * 2
    assert any("<b>[red]shy (10)" in note for note in record["made"]["notes"])


def test_names_from_outside_are_text_on_the_page(written: Path) -> None:
    page = (written / "gap.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;[red]shy" in page
    assert "<b>[red]shy" not in page
    assert "\\u003cb>[red]shy" not in page  # plotly reads tags in the texts of figures


def test_weaker_faces_are_farther_than_the_floor_and_equal_ones_are_not(
    written: Path, real: Path, trial: Path, tmp_path: Path
) -> None:
    weak = json.loads((written / "gap.json").read_text())["comparisons"][:2]
    assert weak[0]["frechet"] > 2 * weak[1]["frechet"]
    assert weak[0]["kid_low"] > weak[1]["kid_high"]
    assert weak[0]["accuracy"] > 0.8
    same = write_faces(tmp_path / "same.parquet", dict.fromkeys(CLASSES, 40), ["Training"], seed=7)
    gap_command.command([*ONE_THREAD, str(real), str(same), "--network", str(trial), "--out", str(tmp_path / "gap")])
    alike = json.loads((tmp_path / "gap" / "gap.json").read_text())["comparisons"][:2]
    assert alike[0]["frechet"] < 2 * alike[1]["frechet"]
    assert alike[0]["kid_low"] < 0 < alike[0]["kid_high"] or abs(alike[0]["kid"]) < weak[0]["kid"] / 10
    assert alike[0]["accuracy"] == pytest.approx(0.5, abs=0.15)


def test_without_a_network_one_is_trained_on_the_training_split(
    real: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gap"
    assert gap_command.command([*ONE_THREAD, str(real), str(synthetic), "--epochs", "1", "--out", str(out)]) == 0
    assert "epoch 1/1" in capsys.readouterr().err
    made = json.loads((out / "gap.json").read_text())["made"]
    assert made["network"].startswith("ResNet18, trained for this page")
    assert "from 90 real training ones" in made["trained on"]


def test_the_networks_own_test_split_is_kept(real: Path, synthetic: Path, trial: Path, tmp_path: Path) -> None:
    arguments = [str(real), str(synthetic), "--network", str(trial), "--out", str(tmp_path), "--test-split", "public"]
    with pytest.raises(UserError, match="was trained with private"):
        gap_command.command(arguments)


def test_epochs_and_network_exclude_each_other(real: Path, synthetic: Path, trial: Path, tmp_path: Path) -> None:
    arguments = [str(real), str(synthetic), "--network", str(trial), "--out", str(tmp_path), "--epochs", "2"]
    with pytest.raises(UserError, match="--epochs"):
        gap_command.command(arguments)


def test_a_folder_that_is_no_trial_or_has_no_weights_is_refused(trial: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the folder of a trial"):
        trained.read_record(tmp_path)
    for name in ("row.json", "config.json"):
        shutil.copy(trial / name, tmp_path)
    with pytest.raises(UserError, match=r"no best\.safetensors"):
        trained.read_record(tmp_path)
    for damaged in ('{"id": "x"', "[]", "{}", '{"id": 0}', "\0"):
        (tmp_path / "row.json").write_text(damaged)
        with pytest.raises(UserError, match="its record is damaged"):
            trained.read_record(tmp_path)
    shutil.copy(trial / "row.json", tmp_path)
    (tmp_path / "config.json").write_text('{"model": {"name": 3}}')
    with pytest.raises(UserError, match="its record is damaged"):
        trained.read_record(tmp_path)


def test_damaged_weights_and_those_of_another_network_are_refused(trial: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(trial, folder)
    weights = (trial / "best.safetensors").read_bytes()
    for damaged in (b"", weights[:100], weights[:-100], b"\xff" * 64):
        (folder / "best.safetensors").write_bytes(damaged)
        with pytest.raises(UserError, match=r"best\.safetensors"):
            features.load(trained.read_record(folder), RUNTIME)
    (folder / "best.safetensors").write_bytes(weights)
    row = json.loads((folder / "row.json").read_text())
    (folder / "row.json").write_text(json.dumps(row | {"classes": ["happy", "sad"]}))
    with pytest.raises(UserError, match=r"not the weights of .* with 2 classes"):
        features.load(trained.read_record(folder), RUNTIME)


def test_features_that_are_not_finite_are_refused(real: Path) -> None:
    model = zoo.build(ModelConfig(name="ShuffleNetV2-x1.0"), 3)
    next(model.parameters()).data.fill_(float("nan"))
    network = features.Network(model, 32, "image", 3, {"network": "broken"})
    with pytest.raises(UserError, match="broken: its features are not finite"):
        features.extract(network, open_dataset(str(real)), np.arange(4), RUNTIME, lambda count: None)


def test_fewer_faces_than_five_folds_need_are_not_measured() -> None:
    assert gap.MIN_FACES >= gap.FOLDS * gap.NEIGHBOURS
