"""Flags, help and exit codes, as a person at a terminal meets them."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from fer_ray import cli, sweep, train
from fer_ray.config import KEYS
from fer_ray.errors import UserError
from fer_ray.synthesize import __main__ as synthesize

COMMANDS = {"sweep": sweep, "train": train, "synthesize": synthesize}
HEAVY = ("torch", "torchvision", "timm", "ray", "optuna", "plotly", "sklearn")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_comes_without_the_heavy_libraries(name: str) -> None:
    module = COMMANDS[name].__name__
    code = (
        f"import sys\nfrom {module} import command\n"
        "try:\n    command(['--help'])\n"
        f"finally:\n    print(*sorted(set(sys.modules) & set({HEAVY})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.split() == []
    assert f"python -m fer_ray.{name}" in done.stdout


@pytest.mark.parametrize("name", ["sweep", "train"])
def test_help_shows_every_flag_with_its_default_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name].command(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert f"example: python -m fer_ray.{name} --" in text
    for flag, key in cli.COMMON_FLAGS.items():
        default = KEYS[key].default
        if KEYS[key].annotation is bool:
            assert f"{flag} {KEYS[key].description}" in text
        else:
            assert f"{flag} VALUE {KEYS[key].description} (default: {'none' if default is None else default})" in text
    assert all(key in text for key in KEYS if key not in cli.COMMON_FLAGS.values() and key not in train.FLAGS.values())


@pytest.mark.parametrize("name", ["sweep", "train"])
def test_the_example_of_the_help_has_only_known_flags(name: str) -> None:
    parser = COMMANDS[name].parser()
    example = parser.epilog.split(f"fer_ray.{name} ")[1]
    COMMANDS[name].parser().parse(example.split())


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (sweep, ["--spase", "smoke"], "unknown flag --spase; did you mean '--space'?"),
        (sweep, ["--space", "smok"], "--space: no space or .py file 'smok'; did you mean 'smoke'?"),
        (sweep, ["--space", "mine.py"], "--space mine.py: no such file"),
        (sweep, ["--space", "smoke", "--set", "data.imagesize=32"], "did you mean 'data.image_size'?"),
        (sweep, ["--space", "smoke", "--set", "epochs"], "expected KEY=VALUE"),
        (sweep, ["--space", "smoke", "--models", "ResNet81"], "did you mean 'ResNet18'?"),
        (sweep, ["--space", "smoke", "--set", "augmentation.preset=standart"], "did you mean 'standard'?"),
        (sweep, ["--space", "smoke", "--rows", "model.nam"], "is no axis of this sweep; did you mean 'model.name'?"),
        (sweep, ["--space", "smoke", "--gpus-per-trial", "2"], "got '2', expected a number at least 0 and at most 1"),
        (sweep, ["--space", "smoke", "--cpus-per-trial", "0"], "got '0', expected a number above 0"),
        (sweep, ["--space", "smoke", "--cpus-per-trial", "nan"], "got 'nan', expected a number above 0"),
        (sweep, ["--space", "smoke", "--concurrency", "1.5"], "got '1.5', expected a whole number at least 1"),
        (sweep, ["--space", "smoke", "--seeds", "0,x"], "--seeds: got '0,x', expected whole numbers"),
        (sweep, ["--space", "smoke", "--seeds", "-1"], "training.seed: got -1, expected greater than or equal to 0"),
        (sweep, ["--space", "smoke", "--seeds", ","], "at least one seed"),
        (sweep, ["--space", "smoke", "--fractions", "half"], "--fractions: got 'half', expected numbers"),
        (sweep, ["--space", "smoke", "--fractions", "1.5"], "data.real_fraction: got 1.5, expected less than or equal"),
        (sweep, ["--space", "smoke", "--fractions", "nan"], "data.real_fraction: got nan, expected a finite number"),
        (sweep, ["--space", "smoke", "--fractions", ""], "axis 'data.real_fraction' of space smoke has no values"),
        (sweep, ["--space", "smoke", "--models", ","], "axis 'model.name' of space smoke has no values"),
        (sweep, [], "--space: expected the name of a search space"),
        (sweep, ["--space", "smoke", "--gpus-per-trial", "x"], "got 'x', expected a number at least 0 and at most 1"),
        (sweep, ["--space", "smoke", "--time-budget", "soon"], "got 'soon', expected a time such as 2h30m"),
        (train, ["--epoch", "3"], "unknown flag --epoch; did you mean '--epochs'?"),
        (train, ["--out", "x", "--model", "convnext"], "did you mean 'ConvNeXt-Tiny'?"),
        (train, ["--out", "x", "--set", "augmentation.preset=flipp"], "did you mean 'flip'?"),
        (train, ["--out", "x", "--epochs", "many"], "training.epochs: got 'many', expected"),
        (train, ["--out", "x", "--learning-rate", "inf"], "optimizer.learning_rate: got 'inf', expected"),
        (train, ["--out", "x", "--image-size", "16"], "data.image_size: got 16, expected"),
        (train, ["--out", "x", "--mixing", "blend"], "data.mixing: got 'blend', expected 'replace', 'add' or"),
        (train, ["--out", "x", "--device", "tpu"], "runtime.device: 'tpu' cannot be used"),
        (train, ["--out", "x", "--recipe", "gone.json"], "--recipe gone.json: expected a JSON file"),
        (train, ["--out", "x", "extra"], "unrecognized arguments: extra"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_wrong_word_is_answered_with_what_was_expected(
    command: ModuleType, arguments: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        command.command(arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fer_ray.sweep", "--space", "ratioes"],
            "error: --space: no space or .py file 'ratioes'; did you mean 'ratios'?",
        ),
        (
            ["fer_ray.train", "--out", "x", "--modle", "ResNet18"],
            "error: unknown flag --modle; did you mean '--model'?",
        ),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == cli.USAGE == 2
    assert done.stderr.strip() == message
    assert done.stdout == ""


def ends_with(command: Callable[[Sequence[str]], int], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    return ended.value.code


def test_exit_codes_are_those_that_are_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Sequence[str]) -> int:
        raise KeyboardInterrupt

    def wrong(_: Sequence[str]) -> int:
        raise UserError("no")

    assert ends_with(lambda _: 0, monkeypatch) == 0
    assert ends_with(lambda _: cli.FAILED_TRIALS, monkeypatch) == 1
    assert ends_with(wrong, monkeypatch) == 2
    assert ends_with(interrupted, monkeypatch) == 130


def test_a_flag_and_set_reach_the_same_key_and_the_last_one_said_by_set_holds() -> None:
    parser = train.parser()
    options = parser.parse(
        ["--out", "x", "--epochs", "3", "--set", "training.epochs=4", "--set", "training.patience=none"]
    )
    assert cli.config_values(options, train.FLAGS) == {"training.epochs": 4, "training.patience": None}


def test_a_folder_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/results \(Not a directory\); choose another folder"):
        cli.writable_folder(tmp_path / "file" / "results")
    cli.writable_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_names_in_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli.stderr_console().print("folder [/mnt/faces] and [red]")
    assert capsys.readouterr().err == "folder [/mnt/faces] and [red]\n"
