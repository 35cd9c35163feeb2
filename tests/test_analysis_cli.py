"""`python -m fer_ray.analysis RESULTS`, as a user calls it."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from fake_results import write_sweep

from fer_ray import cli
from fer_ray.analysis.__main__ import command


def main(arguments):
    return cli.exit_code(command, arguments)


@pytest.fixture
def root(tmp_path):
    return write_sweep(tmp_path / "ratios", models=("ResNet18", "ResNet50"), fractions=(0.0, 1.0), num_images=150)


def test_prints_the_tables_and_the_paths_of_what_it_wrote(root, capsys):
    assert main([str(root)]) == 0
    printed = capsys.readouterr().out
    for part in ("Accuracy", "Macro F1", "AUROC", "ResNet18", "PrivateTest (150 images)"):
        assert part in printed
    paths = printed.splitlines()[-4:]
    assert paths == [str(root / name) for name in ("trials.parquet", "epochs.parquet", "tables", "dashboard.html")]
    written = {path.name for path in (root / "tables").iterdir()}
    assert written == {
        f"{t}.{s}" for t in ("accuracy", "macro_f1", "auroc", "differences") for s in ("md", "csv", "tex")
    }
    assert len(pd.read_parquet(root / "trials.parquet")) == 4
    assert len(pd.read_csv(root / "tables" / "accuracy.csv")) == 4


def test_running_again_writes_the_same_bytes(root, capsys):
    main([str(root)])
    kept = [root / "dashboard.html", *sorted((root / "tables").iterdir())]
    before = [path.read_bytes() for path in kept]
    main([str(root)])
    assert [path.read_bytes() for path in kept] == before


def test_axes_with_words_and_numbers_are_written(tmp_path, capsys):
    axes = {"data.image_size": ("native", 64), "training.patience": (None, 5)}
    for key, values in axes.items():
        root = write_sweep(
            tmp_path / key, models=("ResNet18",), fractions=(1.0,), num_images=100, extra_axes={key: values}
        )
        assert main([str(root), "--cols", key]) == 0
        assert "ResNet18" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "model.nam"], "did you mean 'model.name'"),
        (["--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--row", "model.name"], "did you mean '--rows'"),
    ],
)
def test_a_typo_is_one_line_that_names_the_nearest(root, capsys, arguments, message):
    assert main([str(root), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_folder_and_a_sweep_without_success_are_said(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no results folder" in capsys.readouterr().err
    root = write_sweep(tmp_path / "bad", models=("ResNet18",), fractions=(1.0,), failed=[("ResNet18", 1.0, 0)])
    assert main([str(root)]) == 2
    assert "none of 1 trials finished" in capsys.readouterr().err


def test_two_trials_of_one_cell_and_seed_do_not_pass_for_two_seeds(root, capsys):
    trial = next((root / "trials").glob("ResNet50-*"))
    shutil.copytree(trial, trial.with_name("copy"))
    row = json.loads((trial / "row.json").read_text()) | {"id": "copy"}
    (trial.with_name("copy") / "row.json").write_text(json.dumps(row))
    assert main([str(root)]) == 2
    error = capsys.readouterr().err
    assert "copy" in error
    assert trial.name in error
    assert "same cell and seed" in error


def test_damaged_predictions_are_named(root, capsys):
    damaged = next((root / "trials").glob("ResNet50-*")) / "predictions.parquet"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert main([str(root)]) == 2
    error = capsys.readouterr().err
    assert str(damaged) in error
    assert "delete its folder" in error


def test_a_folder_that_cannot_be_written_is_said(root, capsys):
    (root / "tables").write_text("in the way")
    assert main([str(root)]) == 2
    assert f"cannot write the report to {root}" in capsys.readouterr().err


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_analysis_imports_neither_ray_nor_torch():
    code = (
        "import sys, fer_ray.analysis.report, fer_ray.analysis.dashboard, fer_ray.analysis.views; "
        "print([m for m in ('ray', 'torch', 'sklearn', 'optuna') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_help_imports_neither_pandas_nor_plotly():
    code = (
        "import sys; from fer_ray.analysis.__main__ import command\n"
        "try: command(['--help'])\n"
        "except SystemExit: print([m for m in ('pandas', 'plotly', 'scipy') if m in sys.modules])"
    )
    printed = run_python(code)
    assert "example:" in printed
    assert printed.endswith("[]")
