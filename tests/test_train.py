import json
import shlex
from pathlib import Path

import pytest
import torch
from conftest import TinyFaces

from fer_ray import cli, results, run, train
from fer_ray.errors import UserError
from fer_ray.training import loop


@pytest.fixture
def flags(tiny_faces: TinyFaces, tmp_path: Path) -> list[str]:
    return [
        f"--out={tmp_path / 'out'}",
        f"--data={tiny_faces.real}",
        f"--synthetic={tiny_faces.synthetic}",
        "--model=ShuffleNetV2-x1.0",
        "--image-size=32",
        "--num-train-images=32",
        "--real-fraction=0.5",
        "--epochs=1",
        "--threads=1",
        "--device=cpu",
    ]


def only_row(out: Path) -> dict:
    (row,) = results.read_rows(out)
    return row


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(run, "execute", fail)


def test_one_run_is_trained_summarised_and_written(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.command(flags) == 0
    row = only_row(tmp_path / "out")
    folder = tmp_path / "out" / "trials" / row["id"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "command.txt",
        "config.json",
        "epochs.parquet",
        "predictions.parquet",
        "row.json",
    ]
    printed = capsys.readouterr()
    assert f"test accuracy {row['test_accuracy']:.4f}" in printed.out
    assert str(folder) in printed.out
    assert "epoch   1/1" in printed.err
    assert "chosen on PublicTest (18), tested on PrivateTest (18)" in printed.err


def test_a_finished_run_is_not_trained_again_unless_asked(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train.command(flags)
    before = only_row(tmp_path / "out")
    with monkeypatch.context() as patched:
        no_training(patched)
        assert train.command(flags) == 0
    assert "already finished, not trained again (--again does)" in capsys.readouterr().err
    assert train.command([*flags, "--again"]) == 0
    assert only_row(tmp_path / "out")["wall_seconds"] != before["wall_seconds"]


def test_how_a_run_is_executed_does_not_make_it_another(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train.command(flags)
    no_training(monkeypatch)
    assert train.command([*flags, "--threads=2", "--device=auto"]) == 0


def test_the_command_in_the_folder_repeats_the_run(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.command(flags)
    row = only_row(tmp_path / "out")
    folder = tmp_path / "out" / "trials" / row["id"]
    monkeypatch.chdir(tmp_path)
    python, _, module, *arguments = shlex.split((folder / "command.txt").read_text())
    assert (python, module) == ("python", "fer_ray.train")
    assert train.command(arguments) == 0
    repeated = only_row(tmp_path / "repeated")
    differing = {name for name in row if row[name] != repeated[name]}
    assert differing <= set(results.COST_COLUMNS)
    predictions = Path("trials", row["id"], "predictions.parquet")
    assert (tmp_path / "out" / predictions).read_bytes() == (tmp_path / "repeated" / predictions).read_bytes()


def test_flags_change_a_config_that_is_given(flags: list[str], tmp_path: Path) -> None:
    train.command(flags)
    first = only_row(tmp_path / "out")
    config = tmp_path / "out" / "trials" / first["id"] / "config.json"
    assert train.command([f"--recipe={config}", f"--out={tmp_path / 'other'}", "--seed=7"]) == 0
    other = only_row(tmp_path / "other")
    assert (other["training.seed"], other["model.name"]) == (7, "ShuffleNetV2-x1.0")
    assert other["id"] != first["id"]


def test_a_failed_run_says_why_ends_with_1_and_is_tried_again(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise loop.TrainingFailed("loss is not finite at step 3")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "fit", diverge)
        assert train.command(flags) == cli.FAILED_TRIALS
    row = only_row(tmp_path / "out")
    assert (row["status"], row.get("test_accuracy")) == (results.FAILED, None)
    assert f"{row['id']} failed: loss is not finite at step 3" in capsys.readouterr().out
    assert train.command(flags) == 0
    assert only_row(tmp_path / "out")["status"] == results.FINISHED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "such as the config.json of a trial"),
        ("[1, 2]", "such as the config.json of a trial"),
        ('{"model": 3}', "unknown config key 'model'"),
        ('{"model": {"nam": "ResNet18"}}', "unknown config key 'model.nam'; did you mean 'model.name'?"),
        ('{"training": {"epochs": 0}}', "training.epochs: got 0, expected greater than or equal to 1"),
    ],
)
def test_a_wrong_config_file_is_named_with_its_key(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        train.command(["--recipe", str(path), "--out", str(tmp_path / "out")])
    assert str(raised.value).startswith(f"--recipe {path}: ")
    assert message in str(raised.value)


def test_a_results_folder_that_cannot_be_written_is_refused_before_training(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    no_training(monkeypatch)
    with pytest.raises(UserError, match=r"cannot write to .*file/out \(Not a directory\)"):
        train.command([*flags, f"--out={tmp_path / 'file' / 'out'}"])


def test_different_classes_are_refused_and_common_ones_go_on(
    flags: list[str], tiny_faces: TinyFaces, tmp_path: Path
) -> None:
    others = [*flags, f"--synthetic={tiny_faces.synthetic_other_classes}"]
    with pytest.raises(UserError, match=r"different classes.*--classes common"):
        train.command(others)
    assert train.command([*others, "--classes=common"]) == 0
    assert only_row(tmp_path / "out")["classes"] == ["happy", "sad"]


def test_the_summary_tells_the_scores_of_other_tests(
    flags: list[str], tiny_faces: TinyFaces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set=data.synthetic_test_fraction=0.25", f"--test-data={tiny_faces.real}"]
    assert train.command([*flags, *more]) == 0
    row, printed = only_row(tmp_path / "out"), capsys.readouterr().out
    for name in ("synthetic_test", "cross_test"):
        scores = f"accuracy {row[f'{name}_accuracy']:.4f}, macro F1 {row[f'{name}_macro_f1']:.4f}"
        assert f"{name.replace('_', ' ')} {scores}" in printed
        assert row[f"{name}_name"] in printed


def test_the_threads_that_were_asked_for_are_used(flags: list[str], tmp_path: Path) -> None:
    train.command([*flags, "--threads=2"])
    assert only_row(tmp_path / "out")["threads"] == torch.get_num_threads() == 2


def test_the_config_of_a_trial_is_json_that_people_can_read(flags: list[str], tmp_path: Path) -> None:
    train.command(flags)
    (path,) = (tmp_path / "out").glob("trials/*/config.json")
    config = json.loads(path.read_text())
    assert config["data"]["real_fraction"] == 0.5
    runtime = config["runtime"]
    assert (runtime["device"], runtime["threads"], runtime["precision"]) == ("cpu", 1, "float32")
