"""Whether a results folder holds the sweep that is asked for, and what of it is finished."""

from pathlib import Path
from typing import Any

import pytest
from conftest import TinyFaces
from designs import FRACTIONS, MODELS, make, search, sources_of, space

from fer_ray import results, run
from fer_ray.errors import UserError
from fer_ray.tuning import design
from fer_ray.tuning.plan import Plan


@pytest.fixture
def sources(tiny_faces: TinyFaces) -> dict[str, Any]:
    return sources_of(tiny_faces)


def occupied(root: Path, plan: Plan) -> Path:
    """A folder in which a trial of this plan has failed."""
    root.mkdir()
    results.write_json(root / "sweep.json", plan.info())
    run.write_failure(plan.configs[0], plan.run_id(plan.configs[0]), root, "its process died", "")
    return root


def test_the_same_design_and_an_extended_one_may_use_the_name_again(sources: dict[str, str], tmp_path: Path) -> None:
    values = {**sources, "data.num_train_images": 30}
    root = occupied(tmp_path / "sweep", make(values))
    design.check_same_design(root, make(values).info())
    more = {MODELS: ("ResNet18", "ShuffleNetV2-x1.0", "DenseNet121"), FRACTIONS: (0.0, 0.25, 0.5, 1.0)}
    design.check_same_design(root, make(values, axes=more, seeds=(0, 1, 2)).info())
    design.check_same_design(root, make({**values, "runtime.threads": 3, "runtime.device": "cpu"}).info())
    design.check_same_design(tmp_path / "nothing there", make(values).info())


def test_another_design_under_a_name_that_is_taken_is_refused_with_the_differences(
    sources: dict[str, str], tiny_faces: TinyFaces, tmp_path: Path
) -> None:
    root = occupied(tmp_path / "sweep", make(sources))
    longer = make({**sources, "training.epochs": 9}, seeds=(1,), axes={FRACTIONS: (0.0, 1.0)})
    with pytest.raises(UserError) as raised:
        design.check_same_design(root, longer.info())
    message = str(raised.value)
    assert str(root) in message
    assert "--name" in message
    assert "training.epochs: 1 before, 9 now" in message
    assert "seeds: 0 before, not now" in message
    assert "data.real_fraction: 0.5 before, not now" in message
    swapped = make({**sources, "data.source": str(tiny_faces.synthetic), "data.synthetic": str(tiny_faces.real)})
    with pytest.raises(UserError, match=r"data digest: \w{16} before, \w{16} now"):
        design.check_same_design(root, swapped.info())


def test_a_name_is_free_until_something_was_trained(sources: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "sweep"
    root.mkdir()
    results.write_json(root / "sweep.json", make(sources).info())
    design.check_same_design(root, make({**sources, "training.epochs": 9}).info())


def test_a_population_of_another_size_is_another_sweep(sources: dict[str, str], tmp_path: Path) -> None:
    plan = make({**sources, "data.num_train_images": 30}, search())
    root = occupied(tmp_path / "sweep", plan)
    results.write_json(root / "sweep.json", plan.info() | {"scheduler": "pbt", "trials": 8})
    design.check_same_design(root, plan.info() | {"scheduler": "pbt", "trials": 8})
    for other in ({"scheduler": "pbt", "trials": 9}, {"scheduler": "asha", "trials": 8}):
        with pytest.raises(UserError, match=r"(trials: 8|scheduler: pbt) before, (9|asha) now"):
            design.check_same_design(root, plan.info() | other)


def test_results_of_another_training_version_are_not_mixed_in(sources: dict[str, str], tmp_path: Path) -> None:
    root = occupied(tmp_path / "sweep", make(sources))
    with pytest.raises(UserError, match="training version: 1 before, 2 now"):
        design.check_same_design(root, make(sources).info() | {"training_version": 2})


def test_the_same_data_at_another_path_is_the_same_design(
    sources: dict[str, str], tiny_faces: TinyFaces, tmp_path: Path
) -> None:
    root = occupied(tmp_path / "sweep", make(sources))
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(tiny_faces.real.read_bytes())
    plan = make({**sources, "data.source": str(moved)})
    design.check_same_design(root, plan.info())
    assert {plan.run_id(config) for config in plan.configs} == {
        make(sources).run_id(config) for config in make(sources).configs
    }


def test_only_finished_trials_count_as_finished(sources: dict[str, str], tmp_path: Path) -> None:
    plan = make(sources)
    config = plan.configs[0]
    run.write_failure(config, plan.run_id(config), tmp_path, "its process died", "")
    assert design.finished_ids(tmp_path) == set()
    row = run.execute(plan.configs[-1].replace({"runtime.threads": 1, "data.num_train_images": 16}), tmp_path)
    assert design.finished_ids(tmp_path) == {row["id"]}


def test_a_search_of_other_parameters_or_objectives_is_another_one(sources: dict[str, str], tmp_path: Path) -> None:
    values = {**sources, "data.num_train_images": 30}
    root = occupied(tmp_path / "sweep", make(values, search()))
    design.check_same_design(root, make(values, search(trials=99)).info())
    with pytest.raises(UserError, match=r"objectives: \['validation_macro_f1'\] before, \['train_seconds'\] now"):
        design.check_same_design(root, make(values, search(objectives=("train_seconds",))).info())

    def wider(trial: Any) -> dict[str, Any]:
        return {"optimizer.learning_rate": trial.suggest_float("rate", 1e-5, 1e-1, log=True)}

    with pytest.raises(UserError, match=r"parameters: .* before, .* now"):
        design.check_same_design(root, make(values, search(suggest=wider)).info())
    with pytest.raises(UserError, match="kind: search before, factorial now"):
        design.check_same_design(root, make(values, space()).info())


def test_changed_variants_are_another_design(sources: dict[str, str], tmp_path: Path) -> None:
    def with_rho(rho: float) -> Plan:
        axes = {FRACTIONS: (1.0,)}
        return make(sources, space(axes=axes, variants={"plain": {}, "SAM": {"optimizer.sam_rho": rho}}))

    root = occupied(tmp_path / "sweep", with_rho(0.05))
    design.check_same_design(root, with_rho(0.05).info())
    with pytest.raises(UserError, match=r"variants: .*0\.05.* before, .*0\.1.* now"):
        design.check_same_design(root, with_rho(0.1).info())
