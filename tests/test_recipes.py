"""Recipes are configs by name: valid, true to the settings that their sources state, and runnable at reduced size."""

import json
from pathlib import Path

import pytest

from fer_ray import recipes, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.phases import epochs_of, parse_phases

NAMES = recipes.names()


def config(name: str, **values: object) -> RunConfig:
    flat = {key.replace("__", "."): value for key, value in values.items()}
    return RunConfig.from_flat({**recipes.load(name).values, **flat})


def test_the_five_systems_are_there() -> None:
    for name in ("thesis-effnet-b0", "resnet18-fer4", "affect-multitask", "efficientnetv2s-two-phase", "ratio-study"):
        assert name in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_valid_config_and_says_where_it_comes_from(name: str) -> None:
    recipe = recipes.load(name)
    RunConfig.from_flat(recipe.values)
    assert len(recipe.about) > 200


def test_settings_are_those_that_the_sources_state() -> None:
    fer4 = config("resnet18-fer4")
    assert (fer4.optimizer.name, fer4.optimizer.learning_rate, fer4.training.batch_size) == ("adam", 1e-3, 64)
    assert (fer4.optimizer.schedule, fer4.optimizer.step_epochs, fer4.optimizer.step_factor) == ("step", 7, 0.1)
    assert (fer4.training.epochs, fer4.model.channels, fer4.data.label_set) == (20, 1, "fer4")

    affect = config("affect-multitask")
    assert epochs_of(parse_phases(affect.training.phases), affect.training.epochs) == [30, 10]
    weights = (affect.task.expression_weight, affect.task.valence_weight, affect.task.arousal_weight)
    assert weights == (1.0, 0.5, 0.5)
    assert (affect.training.batch_size, affect.training.patience) == (32, 10)

    two = config("efficientnetv2s-two-phase")
    first, second = parse_phases(two.training.phases)
    assert (first.trainable, second.trainable) == ("head", "last-30")
    assert two.optimizer.learning_rate * second.factor == pytest.approx(2e-5)
    assert epochs_of((first, second), two.training.epochs) == [30, 20]
    assert two.data.test_split == "all"

    thesis = config("thesis-effnet-b0")
    assert (thesis.optimizer.learning_rate, thesis.optimizer.sam_rho) == (1e-4, 0.05)
    assert epochs_of(parse_phases(thesis.training.phases), thesis.training.epochs) == [3, 6]
    assert thesis.data.real_fraction == 0


def test_a_file_of_keys_is_a_recipe(tmp_path: Path) -> None:
    flat, nested = tmp_path / "flat.json", tmp_path / "nested.json"
    flat.write_text(json.dumps({"training.epochs": 3, "model.name": "ResNet34"}))
    nested.write_text(json.dumps({"training": {"epochs": 3}, "model": {"name": "ResNet34"}}))
    assert recipes.load(str(flat)).values == recipes.load(str(nested)).values
    assert set(recipes.load(str(flat)).values) == {"training.epochs", "model.name"}


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no recipe or \.json file 'resnet18-fer'; did you mean 'resnet18-fer4'"):
        recipes.load("resnet18-fer")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs_end_to_end_at_reduced_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    reduced = config(
        name,
        data__image_size=48,
        data__num_train_images=64,
        training__batch_size=16,
        training__epochs=2,
        model__weights="none",
        runtime__threads=2,
    )
    row = run.execute(reduced, tmp_path, with_artifacts=True)
    assert row["status"] == "finished", row["error"]
    assert row["epochs_run"] == 2
    assert (tmp_path / "trials" / row["id"] / "artifacts" / "best.pth").exists()
    assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())
