"""The installed spaces: each asks a question, states its cost, and plans nothing but runs that can be run."""

import importlib
import pkgutil
from typing import Any

import numpy as np
import optuna
import pytest

import fer_ray.search_spaces
from fer_ray import recipes
from fer_ray.ablation import FULL, leave_one_out
from fer_ray.config import KEYS, RunConfig
from fer_ray.data import augment
from fer_ray.data.store import open_dataset
from fer_ray.errors import UserError
from fer_ray.models import freezing, zoo
from fer_ray.phases import parse_phases
from fer_ray.space import OBJECTIVES, VARIANT, Search, Space
from fer_ray.training import tasks
from fer_ray.tuning import planning

NAMES = [module.name for module in pkgutil.iter_modules(fer_ray.search_spaces.__path__)]
FORMS = ("base", "demo", "small")
ASKS = 300


def load(name: str) -> Space | Search:
    return importlib.import_module(f"fer_ray.search_spaces.{name}").SPACE


def proposals(search: Search, count: int = ASKS) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(values by the names that `suggest` uses, config values) of random proposals."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(count):
        trial = study.ask()
        values = dict(search.suggest(trial))
        drawn.append((trial.params, values))
    return drawn


def configs(space: Space | Search, form: str) -> list[RunConfig]:
    """Every cell of a form, or many proposals, with the first seed."""
    values = {**(recipes.load(space.recipe).values if space.recipe else {}), **space.base}
    values |= getattr(space, form)
    values.pop("training.seed", None)
    cells = space.cells() if isinstance(space, Space) else [values for _, values in proposals(space)]
    return [RunConfig.from_flat({**values, **cell}) for cell in cells]


def multiply_adds(name: str) -> float:
    """Billions of them in one forward pass over all images that a demo form trains on."""
    space = load(name)
    planned = configs(space, "demo")
    num_seeds = len(space.demo.get("training.seed", space.seeds))
    num_runs = len(planned) * num_seeds if isinstance(space, Space) else space.trials
    of_one = 0.0
    for config in planned:
        assert config.data.image_size != "native"
        assert config.data.num_train_images != "auto"
        side = config.data.image_size / zoo.PROBE_SIZE
        passes = 2 if config.optimizer.sam_rho else 1
        images = config.data.num_train_images * config.training.epochs
        of_one += zoo.gmac(config.model.name) * side**2 * passes * images / len(planned)
    return of_one * num_runs


def test_the_spaces_of_the_house_are_installed() -> None:
    factorial = ("ratios", "ratio_controls", "architectures", "learning_rate", "sam_rho", "freeze", "augmentation")
    others = ("loss_imbalance", "multitask_weights", "ablation", "cross_validation", "smoke", "hpo")
    assert set(NAMES) == {*factorial, *others}
    assert [name for name in NAMES if isinstance(load(name), Search)] == ["hpo"]


@pytest.mark.parametrize("name", NAMES)
def test_a_space_asks_a_question_under_its_own_name_and_states_its_cost(name: str) -> None:
    space = load(name)
    assert space.name == name
    assert space.question.endswith("?")
    about = importlib.import_module(f"fer_ray.search_spaces.{name}").__doc__
    assert about
    assert "?" in about or isinstance(space, Search)
    if name != "smoke":
        assert "Cost:" in about


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_every_form_is_one_that_a_network_a_task_and_augmentation_exist_for(name: str) -> None:
    for form in FORMS:
        for config in configs(load(name), form):
            zoo.check_name(config.model.name)
            augment.resolve(config.augmentation)
            tasks.build(config, ("happy", "sad"), np.array([3, 5]))


@pytest.mark.parametrize("name", NAMES)
def test_every_space_can_be_planned_on_demo_faces(name: str) -> None:
    space = load(name)
    plan = planning.make(space, {"runtime.threads": 1}, axes={}, seeds=None, small=False)
    if isinstance(space, Space):
        seeds = space.demo.get("training.seed", space.seeds)
        assert len(plan.configs) == len({plan.run_id(c) for c in plan.configs}) == len(space.cells()) * len(seeds)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_that_phases_name_are_parts_of_their_network(name: str) -> None:
    named = {(c.model, c.training.phases) for form in FORMS for c in configs(load(name), form) if c.training.phases}
    networks = {model: zoo.build(model, 7) for model, _ in named}
    for model, phases in named:
        for phase in parse_phases(phases):
            freezing.set_trainable(networks[model], phase.trainable)
            trained = [p.requires_grad for p in networks[model].parameters()]
            assert any(trained)
            assert all(trained) == (phase.trainable == "all")


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(load(name), Space)])
def test_axes_are_keys_tables_have_axes_and_no_two_cells_are_the_same_run(name: str) -> None:
    space = load(name)
    assert isinstance(space, Space)
    axes = {*space.axes} | ({VARIANT} if space.variants else set())
    assert space.axes.keys() <= KEYS.keys()
    assert {space.rows, space.columns} - {None} <= axes
    for form in FORMS:
        planned = configs(space, form)
        assert len(set(planned)) == len(planned)


def test_factorial_spaces_have_three_seeds_and_run_to_their_end() -> None:
    for name in NAMES:
        space = load(name)
        if isinstance(space, Space) and name not in ("smoke", "cross_validation"):
            assert space.seeds == (0, 1, 2)
            assert {config.training.patience for form in FORMS for config in configs(space, form)} == {None}


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_costs_no_more_than_that_of_ratios_which_takes_minutes(name: str) -> None:
    assert multiply_adds(name) <= multiply_adds("ratios")


def test_demo_faces_have_what_the_multitask_space_learns() -> None:
    faces = open_dataset("demo")
    assert faces.valence is not None
    assert faces.arousal is not None
    assert {c.task.name for form in FORMS for c in configs(load("multitask_weights"), form)} == {"multitask"}


def test_ratio_controls_have_no_share_that_adding_or_leaving_out_cannot_have() -> None:
    space = load("ratio_controls")
    assert isinstance(space, Space)
    assert 0 not in space.axes["data.real_fraction"]


def test_a_radius_comes_with_sam_alone_and_a_schedule_with_freezing_alone() -> None:
    search = load("hpo")
    assert isinstance(search, Search)
    seen = set()
    for params, values in proposals(search):
        assert ("optimizer.sam_rho" in values) == params["sam"] == ("sam_rho" in params)
        assert ("training.phases" in values) == params["freezing"] == ("phases" in params)
        rates = [name for name in params if name.endswith("learning_rate")]
        assert rates == [f"{params['optimizer']}_learning_rate"]
        assert values["optimizer.learning_rate"] == params[rates[0]]
        seen.add((params["optimizer"], params["sam"], params["freezing"]))
    assert len(seen) == 3 * 2 * 2


def test_known_points_are_proposals_of_their_space() -> None:
    search = load("hpo")
    assert isinstance(search, Search)
    study = optuna.create_study()
    for point in search.known:
        trial = optuna.trial.FixedTrial(dict(point))
        values = search.suggest(trial)  # raises where a value is missing
        assert trial.params == point  # none too many
        for name, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(point[name])), name
        study.enqueue_trial(point)
        assert search.suggest(study.ask()) == values


def test_a_search_optimises_validation_and_races_over_several_seeds() -> None:
    search = load("hpo")
    assert isinstance(search, Search)
    assert set(search.objectives) <= OBJECTIVES.keys()
    assert 3 <= len(search.seeds) <= 5


def test_the_ablation_leaves_out_one_component_of_the_best_recipe_at_a_time() -> None:
    space = load("ablation")
    assert isinstance(space, Space)
    first, *rest = space.variants
    assert first == FULL
    assert space.variants[FULL] == {}
    full = RunConfig.from_flat(recipes.load(space.recipe or "").values)
    changed = {
        name: {k for k, v in full.replace(space.variants[name]).flat().items() if v != full.flat()[k]} for name in rest
    }
    assert changed["without label smoothing"] == {"training.label_smoothing"}
    assert changed["without test-time views"] == {"augmentation.test_time"}
    assert changed["without random erasing"] == {"augmentation.erasing_probability"}
    assert changed["without Muon (SGD)"] == {"optimizer.name", "optimizer.learning_rate"}
    for name in ("augmentation", "dropout", "learning-rate schedule", "weight decay", "Muon (AdamW)"):
        assert changed[f"without {name}"]


def test_an_ablation_of_another_recipe_has_the_components_of_that_one() -> None:
    variants = leave_one_out("thesis-effnet-b0")
    assert variants["without SAM"] == {"optimizer.sam_rho": 0.0}
    assert variants["without freeze schedule"] == {"training.phases": None}
    assert variants["without class weights"] == {"task.class_weights": "none"}
    assert "without augmentation" not in variants
    assert "without dropout" not in variants


def test_a_component_that_is_no_config_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer\.sam_rho"):
        leave_one_out("thesis-effnet-b0", {"SAM's radius": {"optimizer.rho": 0.0}})
