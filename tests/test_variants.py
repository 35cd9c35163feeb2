"""An ablation's variants are an axis like any other, compared with the first; what stopped or is missing is said."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from fake_results import write_sweep
from rich.console import Console

from fer_ray import results
from fer_ray.analysis import findings, stats
from fer_ray.analysis.load import read_study, status_text
from fer_ray.analysis.report import write_report

VARIANTS = {"full recipe": {"augmentation.preset": "standard"}, "without flips": {"augmentation.preset": "none"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants of one network over three seeds; one trial of the second was stopped, and one is not there."""
    root = write_sweep(
        tmp_path_factory.mktemp("ablation"),
        models=("ResNet18",),
        fractions=(1.0,),
        seeds=(0, 1, 2),
        num_images=200,
        extra_axes={"augmentation.preset": ("standard", "none")},
    )
    info = json.loads((root / "sweep.json").read_text())
    info |= {"kind": "factorial", "axes": {"variant": list(VARIANTS)}, "variants": VARIANTS, "rows": None}
    results.write_json(root / "sweep.json", info | {"columns": None, "planned": 7})
    names = {values["augmentation.preset"]: name for name, values in VARIANTS.items()}
    for path in (root / "trials").glob("*/row.json"):
        row = json.loads(path.read_text())
        row["variant"] = names[row["augmentation.preset"]]
        if row["variant"] == "without flips" and row["training.seed"] == 2:
            row = {key: value for key, value in row.items() if not key.startswith("test_")}
            row |= {"status": results.STOPPED}
        results.write_json(path, row)
    return root


def test_variants_are_the_rows_and_the_first_is_what_others_are_compared_with(root: Path) -> None:
    study = read_study(root)
    assert (study.rows, study.columns) == ("variant", "model.name")
    assert study.axes["variant"] == ["full recipe", "without flips"]
    assert (findings.compared(study), findings.baseline(study)) == ("variant", "full recipe")


def test_differences_have_a_row_per_variant(root: Path) -> None:
    study = read_study(root)
    replicates = stats.bootstrap(study)
    differences = stats.differences(study, replicates, "macro_f1", "variant", "full recipe")
    table = findings.difference_table(study, replicates, "macro_f1", differences)
    assert table.title == "Macro F1 less that at variant full recipe"
    assert (table.row_names, table.column_names, table.corner) == (
        ["without flips"],
        ["ResNet18"],
        ("variant", "model"),
    )
    shown = float(table.entries[0][0].text.split(" ±")[0].replace("−", "-"))
    assert shown == pytest.approx(differences["difference"].item(), abs=6e-4)


def test_the_differences_of_variants_are_by_hand_those_of_shared_seeds(root: Path) -> None:
    study = read_study(root)
    trials = study.trials.pivot_table(index="training.seed", columns="variant", values="test_macro_f1").dropna()
    assert len(trials) == 2
    by_hand = (trials["without flips"] - trials["full recipe"]).mean()
    frame = stats.differences(study, stats.bootstrap(study), "macro_f1", "variant", "full recipe")
    assert frame["difference"].item() == pytest.approx(by_hand, abs=1e-6)


def test_with_an_axis_across_every_variant_is_compared_in_each_of_its_values(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, models=("ResNet18", "ResNet50"), fractions=(0.5, 1.0), num_images=150)
    info = json.loads((root / "sweep.json").read_text())
    info["axes"] = {"variant": ["full recipe", "half"], "model.name": ["ResNet18", "ResNet50"]}
    results.write_json(root / "sweep.json", info | {"rows": "variant", "columns": "model.name"})
    for path in (root / "trials").glob("*/row.json"):
        row = json.loads(path.read_text())
        results.write_json(path, row | {"variant": "full recipe" if row["data.real_fraction"] == 1 else "half"})
    study = read_study(root)
    replicates = stats.bootstrap(study)
    differences = stats.differences(study, replicates, "accuracy", "variant", "full recipe")
    table = findings.difference_table(study, replicates, "accuracy", differences)
    assert (table.row_names, table.column_names) == (["half"], ["ResNet18", "ResNet50", "mean"])


def test_what_is_finished_failed_stopped_and_missing_is_said_everywhere(root: Path) -> None:
    said = "5 finished, 0 failed, 1 stopped, 1 missing of 7"
    console = Console(width=200, record=True, quiet=True)
    paths = write_report(root, console=console)
    assert said in paths[-1].read_text(encoding="utf-8")
    for name in ("accuracy", "macro_f1", "differences"):
        for kind in ("md", "tex"):
            assert said in (root / "tables" / f"{name}.{kind}").read_text(encoding="utf-8"), (name, kind)
    counts = pd.read_csv(root / "tables" / "accuracy.csv").set_index("variant")
    assert counts.loc["without flips", ["num_seeds", "num_failed", "num_stopped"]].tolist() == [2, 0, 1]


def test_the_page_of_an_ablation_has_every_figure(root: Path) -> None:
    page = write_report(root, console=Console(quiet=True))[-1].read_text(encoding="utf-8")
    views = json.loads(re.search(r'id="views">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert "without flips" in json.dumps(views["curves"])


def test_missing_trials_are_not_guessed_without_a_plan(tmp_path: Path) -> None:
    write_sweep(tmp_path, models=("ResNet18",), fractions=(1.0,), num_images=100)
    assert status_text(results.load(tmp_path)) == "1 finished, 0 failed, 0 stopped"
