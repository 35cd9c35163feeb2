"""The files beside a trial that users of other systems expect, and their numbers."""

import hashlib
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import classification_report, roc_auc_score

from fer_ray import artifacts, metrics, results
from fer_ray.artifacts import checkpoints, event_files, pictures, report
from fer_ray.artifacts.judged import Judged, parts
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.models import weights
from fer_ray.training.loop import Outcome

PNG = b"\x89PNG\r\n\x1a\n"
CLASSES = ("angry", "happy", "sad", "neutral")
HOSTILE = ("$x^2$", "_hidden", "<b>bold</b>", "a\nb\x00", "very " * 12 + "long", r"\frac{1}", "$", "=1+1")


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of few pixels, which are drawn in half the time."""
    monkeypatch.setattr(pictures, "DPI", 40)


def config(**values: Any) -> RunConfig:
    return RunConfig.from_flat({key.replace("__", "."): value for key, value in values.items()})


def answers(classes: tuple[str, ...], n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] labels and float32 [n, C] probabilities that lean towards them; the last class is never right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n)
    raw = rng.dirichlet(np.ones(len(classes)), n)
    raw[np.arange(n), labels] += rng.random(n) * (labels < len(classes) - 1)
    return labels, (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def part(classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Judged:
    labels, probabilities = answers(classes, seed=seed)
    return Judged("test", "ResNet18, epoch 3, on PrivateTest", classes, labels, probabilities, None)


def predictions(classes: tuple[str, ...], split: str = "test", with_affect: bool = False) -> pd.DataFrame:
    labels, probabilities = answers(classes)
    frame = pd.DataFrame({"id": [f"i{k}" for k in range(len(labels))], "split": split})
    frame["label"] = pd.Categorical.from_codes(labels, list(classes))
    for i, name in enumerate(classes):
        frame[f"p_{name}"] = probabilities[:, i]
    if with_affect:
        rng = np.random.default_rng(1)
        for name in ("valence", "arousal"):
            frame[name] = rng.uniform(-1, 1, len(frame)).astype(np.float32)
            frame[f"predicted_{name}"] = np.tanh(frame[name] + rng.normal(0, 0.2, len(frame))).astype(np.float32)
    return frame


def epochs(phases: tuple[int, ...] = (1, 1, 1), **columns: list[float]) -> pd.DataFrame:
    count = len(phases)
    falling = np.linspace(2, 1, count)
    known = {
        "id": ["t"] * count,
        "epoch": list(range(1, count + 1)),
        "phase": list(phases),
        "learning_rate": [1e-3] * count,
        "train_loss": falling,
        "validation_loss": falling + 0.1,
        "train_accuracy": 1 - falling / 3,
        "validation_accuracy": 1 - falling / 2.5,
        "validation_macro_f1": 1 - falling / 2.4,
        "peak_memory_mb": [900.0] * count,
    }
    return pd.DataFrame(known | columns, columns=list(results.EPOCH_COLUMNS))


def trial_row(trial_id: str, settings: RunConfig, classes: tuple[str, ...], **values: Any) -> dict[str, Any]:
    return {
        "id": trial_id,
        "signature": "0123456789abcdef",
        "status": results.FINISHED,
        "error": None,
        **settings.flat(),
        "data.image_size": 48,
        "data.normalization": "image",
        "data_name": "fer2013.csv",
        "data_digest": "75e5c7c31834fedf",
        "test_name": "PrivateTest (200)",
        "test_reads": 1,
        "classes": list(classes),
        "chosen_epoch": 3,
        "validation_macro_f1": 0.5,
        "test_accuracy": 0.6,
        "test_macro_f1": 0.55,
        "version_torch": torch.__version__,
        **values,
    }


def write(
    root: Path,
    settings: RunConfig,
    frame: pd.DataFrame,
    classes: tuple[str, ...] = CLASSES,
    history: pd.DataFrame | None = None,
    **values: Any,
) -> tuple[Path, artifacts.Written]:
    """A trial with small weights, written with its artifacts."""
    history = epochs() if history is None else history
    row = trial_row("ResNet18-r1-s0-01234567", settings, classes, **values)
    folder = root / "trials" / row["id"]
    results.write_trial(folder, results.Trial(row, history, frame), {})
    outcome = Outcome(weights={"head.weight": torch.ones(4, 8)}, chosen_epoch=3)
    return folder / "artifacts", artifacts.write(folder, row, history, frame, outcome, settings, classes)


@pytest.mark.parametrize("seed", range(3))
def test_the_report_is_the_text_of_scikit_learn(seed: int) -> None:
    judged = part(seed=seed)
    expected = classification_report(
        judged.labels, judged.probabilities.argmax(axis=1), target_names=CLASSES, digits=4, zero_division=0
    )
    assert report.classification_report(judged).startswith(expected)


def test_undefined_values_of_the_report_are_dashes_that_count_as_zero_and_absent_classes_are_in_no_average() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    guesses = np.array([0, 0, 0, 1, 1])  # sad is never predicted, neutral has no image and is never predicted
    judged = Judged("test", "title", CLASSES, labels, np.eye(4)[guesses], None)
    text = report.classification_report(judged)
    lines = {line.split("  ")[0].strip() or line: line.split() for line in (x.strip() for x in text.splitlines())}
    assert lines["sad"][1:] == ["–", "0.0000", "0.0000", "1"]
    assert lines["neutral"][1:] == ["–", "–", "–", "0"]
    expected = classification_report(labels, guesses, labels=[0, 1, 2], output_dict=True, zero_division=0)
    for name in ("macro avg", "weighted avg"):
        values = [expected[name][key] for key in ("precision", "recall", "f1-score")]
        assert lines[name][2:] == [*(f"{value:.4f}" for value in values), "5"]
    assert lines["accuracy"][1:] == ["0.6000", "5"]
    assert text.endswith("Without images here, so in no average: neutral\n")


def saved(folder: Path, settings: RunConfig, history: pd.DataFrame, num_phases: int = 1) -> dict[str, dict[str, Any]]:
    """The contents of the .pth files that `checkpoints.write` leaves, of phases whose weights are all 0, 1, ..."""
    phase_weights = [{"head.weight": torch.full((4, 8), float(i))} for i in range(num_phases)]
    outcome = Outcome(weights=phase_weights[-1], phase_weights=phase_weights, chosen_epoch=3)
    checkpoints.write(folder, trial_row("t", settings, CLASSES), history, outcome, settings, CLASSES)
    return {path.name: torch.load(path, weights_only=True) for path in folder.iterdir()}


def test_best_pth_is_read_without_running_code_and_says_how_to_use_the_weights(tmp_path: Path) -> None:
    settings = config(model__name="ResNet18", model__channels=1)
    files = saved(tmp_path, settings, epochs())
    assert set(files) == {"best.pth"}
    content = files["best.pth"]
    assert content["model_state_dict"]["head.weight"].tolist() == torch.zeros(4, 8).tolist()
    assert content["epoch"] == 3
    assert content["validation_accuracy"] == pytest.approx(0.6)
    assert content["class_names"] == list(CLASSES)
    about = [content[key] for key in ("model", "image_size", "normalization", "channels")]
    assert about == ["ResNet18", 48, "image", 1]
    assert RunConfig.from_flat(content["config"]) == settings


def test_our_own_reader_takes_best_pth(tmp_path: Path) -> None:
    saved(tmp_path, config(), epochs())
    assert weights.read(tmp_path / "best.pth").keys() == {"head.weight"}


def test_each_phase_leaves_its_best_weights_with_the_epoch_that_the_loop_chose(tmp_path: Path) -> None:
    settings = config(training__phases="head 3, all 2", model__weights="imagenet", training__selection_metric="loss")
    # The lowest loss of phase 1 is in epochs 2 and 3: the earlier one counts.
    files = saved(tmp_path, settings, epochs((1, 1, 1, 2, 2), validation_loss=[3, 1, 1, 0.5, 0.7]), num_phases=2)
    found = [files[f"best_phase{k}.pth"] for k in (1, 2)]
    assert [content["epoch"] for content in found] == [2, 4]
    assert [content["model_state_dict"]["head.weight"][0, 0].item() for content in found] == [0, 1]


def test_without_classes_the_best_epoch_is_that_of_the_highest_ccc() -> None:
    history = epochs(
        (1, 1, 1), validation_ccc=[0.1, 0.6, 0.5], validation_macro_f1=[np.nan] * 3, validation_accuracy=[np.nan] * 3
    )
    assert checkpoints.best_epoch(history, config(task__name="affect"), CLASSES) == 2


def test_a_trial_of_both_tasks_leaves_every_file_and_a_list_of_them_that_is_true(tmp_path: Path) -> None:
    settings = config(task__name="multitask")
    history = epochs(validation_ccc=[0.1, 0.2, 0.3], validation_mae=[0.4, 0.3, 0.2])
    frame = pd.concat(
        [
            predictions(CLASSES, "validation"),
            predictions(CLASSES, with_affect=True),
            predictions(CLASSES, "cross_test"),
        ],
        ignore_index=True,
    )
    folder, written = write(tmp_path, settings, frame, history=history, cross_test_name="$m$\n other")
    judged = ("confusion_matrix.png", "roc_curves.png", "classification_report.txt")
    crossed = {f"{name.partition('.')[0]}_cross_test.{name.partition('.')[2]}" for name in judged}
    expected = {"best.pth", "training_history.png", "affect_scatter.png", "metadata.json", *judged, *crossed}
    assert {path.name for path in folder.iterdir()} - {"tensorboard"} == expected
    assert [path.name for path in written.files[-2:]] == ["comparison.csv", "comparison.png"]
    assert all(path.read_bytes().startswith(PNG) for path in written.files if path.suffix == ".png")

    about = json.loads((folder / "metadata.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert RunConfig.from_flat(about["config"]) == settings
    assert about["data"]["data_digest"] == "75e5c7c31834fedf"
    assert about["metrics"] == {"validation_macro_f1": 0.5, "test_accuracy": 0.6, "test_macro_f1": 0.55}
    assert about["versions"] == {"version_torch": torch.__version__}
    listed = {entry["name"]: entry for entry in about["files"]}
    assert {folder / name for name in listed} | {folder / "metadata.json"} == set(written.files[:-2])
    for name, entry in listed.items():
        content = (folder / name).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_valence_and_arousal_alone_leave_no_picture_of_classes(tmp_path: Path) -> None:
    frame = predictions(CLASSES, with_affect=True).drop(columns=[f"p_{name}" for name in CLASSES])
    nothing = [np.nan] * 3
    history = epochs(validation_accuracy=nothing, train_accuracy=nothing, validation_macro_f1=nothing)
    folder, _ = write(tmp_path, config(task__name="affect"), frame, history=history)
    assert {path.name for path in folder.glob("*.png")} == {"training_history.png", "affect_scatter.png"}
    assert torch.load(folder / "best.pth", weights_only=True)["validation_accuracy"] is None


def test_a_failed_run_leaves_its_history_and_metadata(tmp_path: Path) -> None:
    settings = config()
    row = trial_row("ResNet18-r1-s0-01234567", settings, CLASSES, status=results.FAILED, chosen_epoch=None)
    frame = predictions(CLASSES).head(0)
    folder = tmp_path / "trials" / row["id"]
    results.write_trial(folder, results.Trial(row, epochs(), frame), {})
    written = artifacts.write(folder, row, epochs(), frame, Outcome(), settings, CLASSES)
    names = {path.name for path in written.files if path.parent == folder / "artifacts"}
    assert names == {"training_history.png", "metadata.json"}
    assert not (tmp_path / "comparison.csv").exists()


@pytest.mark.filterwarnings("error")
def test_hostile_names_are_shown_as_they_are_and_break_nothing(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, config(), predictions(HOSTILE), HOSTILE, test_name="$\n{" * 100)
    text = (folder / "classification_report.txt").read_text(encoding="utf-8")
    assert "\x00" not in text
    assert "a�b�" in text
    assert torch.load(folder / "best.pth", weights_only=True)["class_names"] == list(HOSTILE)
    with pictures.style():
        legend = pictures.roc_curves(part(HOSTILE)).axes[0].get_legend()
        assert [text.get_text()[7:] for text in legend.get_texts()][:3] == ["$x^2$", "_hidden", "<b>bold</b>"]


def test_the_confusion_picture_shows_counts_and_shares_with_rows_as_true_classes() -> None:
    labels, guesses = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 0])
    with pictures.style():
        figure = pictures.confusion_matrix(Judged("test", "title", CLASSES, labels, np.eye(4)[guesses], None))
    counts, shares = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert counts[:8] == ["2", "1", "0", "0", "0", "1", "0", "0"]
    assert shares[:4] == ["66.7", "33.3", "0.0", "0.0"]
    assert shares[12:] == ["–"] * 4
    assert [figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()] == ["true class", "predicted class"]


def test_roc_curves_carry_the_areas_of_scikit_learn_and_a_dash_where_undefined() -> None:
    judged = part(("a", "b", "c"))
    assert judged.labels is not None
    assert judged.probabilities is not None
    absent = np.column_stack([judged.probabilities, np.zeros(len(judged.labels))])
    with pictures.style():
        axes = pictures.roc_curves(Judged("test", "t", ("a", "b", "c", "d"), judged.labels, absent, None)).axes[0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    areas = [roc_auc_score(judged.labels == i, judged.probabilities[:, i]) for i in range(3)]
    assert legend == [
        *(f"{area:.3f}  {name}" for area, name in zip(areas, "abc", strict=True)),
        "–  d",
        "0.500  chance",
    ]
    x, y = axes.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(areas[0])


def test_the_history_marks_phases_and_the_chosen_epoch_and_leaves_out_what_was_not_followed() -> None:
    with pictures.style():
        figure = pictures.training_history({"model.name": "ResNet18", "chosen_epoch": 3}, epochs((1, 1, 2)))
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "Accuracy"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training", "validation", "phase 2 begins", "chosen epoch: 3"]


def test_images_whose_class_is_not_known_are_not_judged() -> None:
    frame = predictions(CLASSES)
    frame.loc[:49, "label"] = np.nan
    (found,) = parts({"model.name": "ResNet18"}, frame, CLASSES)
    assert found.labels is not None
    assert len(found.labels) == 150


def test_the_same_trial_gives_the_same_bytes_whatever_the_users_style(tmp_path: Path) -> None:
    import matplotlib as mpl

    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, size in zip(paths, (10, 20), strict=True):
        with mpl.rc_context({"axes.facecolor": "red", "font.size": size}):
            with pictures.style():
                pictures.save(pictures.confusion_matrix(part()), path)
            assert mpl.rcParams["font.size"] == size
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_comparison_has_a_row_for_each_finished_trial_the_best_on_validation_first(tmp_path: Path) -> None:
    settings = config()
    rows = [
        trial_row("a", settings, CLASSES, validation_macro_f1=0.4, test_mae=0.21, test_valence_mae=0.2),
        trial_row("b", settings, CLASSES, validation_macro_f1=0.6, test_accuracy=None),
        trial_row("c", settings, CLASSES, status=results.FAILED),
    ]
    for row in rows:
        results.write_trial(tmp_path / "trials" / row["id"], results.Trial(row, epochs(), predictions(CLASSES)), {})
    paths = artifacts.compare(tmp_path)
    table = pd.read_csv(paths[0])
    assert table["id"].tolist() == ["b", "a"]
    assert table["macro_f1"].tolist() == [0.55, 0.55]
    assert table["accuracy"].isna().tolist() == [True, False]
    assert table.loc[1, ["mae", "valence_mae"]].tolist() == [0.21, 0.2]
    assert paths[1].read_bytes().startswith(PNG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.csv", "comparison.png", "trials"]


def test_a_folder_without_a_finished_trial_has_nothing_to_compare(tmp_path: Path) -> None:
    assert artifacts.compare(tmp_path) == []


def test_without_tensorboard_a_note_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "find_spec", lambda name: None)
    assert "pip install tensorboard" in event_files.write(tmp_path, epochs())[0]
    assert list(tmp_path.iterdir()) == []


def test_event_files_hold_a_value_per_epoch_and_leave_out_the_undefined(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert event_files.write(tmp_path, epochs()) == []
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    scalars = found.Tags()["scalars"]
    assert {"loss/train", "loss/validation", "accuracy/validation", "learning_rate", "memory/peak_mb"} <= set(scalars)
    assert "ccc/validation" not in scalars
    assert [(event.step, event.value) for event in found.Scalars("loss/train")] == [(1, 2.0), (2, 1.5), (3, 1.0)]


def test_a_full_disk_is_one_message_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    settings, row = config(), trial_row("t", config(), CLASSES)
    folder = tmp_path / "trials" / "t"
    results.write_trial(folder, results.Trial(row, epochs(), predictions(CLASSES)), {})
    before = sorted(path.name for path in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*artifacts: .*free space"):
            artifacts.write(folder, row, epochs(), predictions(CLASSES), Outcome(), settings, CLASSES)
        with pytest.raises(UserError, match=r"cannot write .*comparison.csv"):
            artifacts.compare(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["trials"]


def test_the_scatters_figures_are_those_of_the_metrics() -> None:
    (found,) = parts({"model.name": "ResNet18"}, predictions(CLASSES, with_affect=True), CLASSES)
    assert found.affect is not None
    expected = metrics.affect_metrics(found.affect[:, :2], found.affect[:, 2:])
    with pictures.style():
        titles = [axes.get_title() for axes in pictures.affect_scatter(found).axes]
    assert titles[0].startswith(f"Valence: CCC {expected['valence_ccc']:.3f}, MAE {expected['valence_mae']:.3f}")
