from pathlib import Path
from typing import Any

import pytest
from conftest import TinyFaces
from designs import BASE, FRACTIONS, MODELS, make, search, sources_of, space
from faces import random_faces, write_folders

from fer_ray.errors import UserError
from fer_ray.space import Space
from fer_ray.tuning import spaces
from fer_ray.tuning.plan import Plan


@pytest.fixture
def sources(tiny_faces: TinyFaces) -> dict[str, Any]:
    return sources_of(tiny_faces)


def values_of(plan: Plan, key: str) -> set:
    return {config.flat()[key] for config in plan.configs}


def test_there_is_one_run_per_cell_and_seed(sources: dict[str, str]) -> None:
    plan = make(sources)
    cells = {(c.model.name, c.data.real_fraction, c.training.seed) for c in plan.configs}
    golden = {(m, f, s) for m in ("ResNet18", "ShuffleNetV2-x1.0") for f in (0.0, 0.5, 1.0) for s in (0, 1)}
    assert cells == golden
    assert len(plan.configs) == 12
    assert len({plan.run_id(config) for config in plan.configs}) == 12
    assert values_of(plan, "training.epochs") == {1}


def test_an_axis_of_training_images_keeps_its_values(sources: dict[str, str]) -> None:
    design = space(axes={"data.num_train_images": (16, 30), FRACTIONS: (0.0, 1.0)})
    assert {(c.data.num_train_images, c.data.real_fraction) for c in make(sources, design).configs} == {
        (16, 0.0),
        (16, 1.0),
        (30, 0.0),
        (30, 1.0),
    }
    with pytest.raises(UserError, match="999"):
        make(sources, space(axes={"data.num_train_images": (999, 16), FRACTIONS: (1.0,)}))


def test_an_axis_of_mixing_is_checked_cell_by_cell(sources: dict[str, str]) -> None:
    design = space(axes={"data.mixing": ("replace", "real_only"), FRACTIONS: (0.0, 0.5, 1.0)})
    plan = make(sources, design)
    assert values_of(plan, FRACTIONS) == {0.5, 1.0}
    assert len(values_of(plan, "data.num_train_images")) == 1


def test_data_is_named_from_the_root(sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(sources["data.source"])
    monkeypatch.chdir(path.parent)
    plan = make({**sources, "data.source": path.name})
    assert values_of(plan, "data.source") == {str(path)}


def test_runs_that_take_longest_start_first(sources: dict[str, str]) -> None:
    models = [config.model.name for config in make(sources).configs]
    assert models == ["ResNet18"] * 6 + ["ShuffleNetV2-x1.0"] * 6


@pytest.mark.parametrize(
    ("mixing", "fractions", "count"),
    [
        # 60 real and 60 synthetic faces, 20 of each class in both.
        ("replace", (0.0, 0.5, 1.0), 60),
        ("replace", (0.5, 0.75), 80),
        ("real_only", (0.5, 1.0), 60),
        ("add", (0.5, 1.0), 60),
        ("add", (0.25, 1.0), 20),  # 3 synthetic faces for each real one
    ],
)
def test_the_number_of_images_is_the_largest_that_all_cells_can_fill_and_is_said(
    sources: dict[str, str], mixing: str, fractions: tuple[float, ...], count: int
) -> None:
    plan = make({**sources, "data.mixing": mixing}, axes={FRACTIONS: fractions})
    assert values_of(plan, "data.num_train_images") == {count}
    assert any(note.startswith(f"N = {count} training images") for note in plan.notes)
    assert plan.info()["num_train_images"] == count


def test_a_number_of_images_that_a_cell_cannot_fill_is_refused_before_the_start(sources: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"90 training images at a real share of .* need 30 .* but there are 20"):
        make({**sources, "data.num_train_images": 90})


@pytest.mark.parametrize("mixing", ["add", "real_only"])
def test_a_share_of_0_is_left_out_where_it_would_be_empty(sources: dict[str, str], mixing: str) -> None:
    plan = make({**sources, "data.mixing": mixing})
    assert values_of(plan, FRACTIONS) == {0.5, 1.0}
    assert plan.space.axes[FRACTIONS] == (0.5, 1.0)


def test_axes_and_seeds_of_the_command_line_replace_those_of_the_space(sources: dict[str, str]) -> None:
    plan = make(sources, axes={MODELS: ("DenseNet121",), FRACTIONS: (1.0, 1.0)}, seeds=(7, 7, 8))
    assert (values_of(plan, MODELS), values_of(plan, FRACTIONS)) == ({"DenseNet121"}, {1.0})
    assert plan.info()["axes"] == {MODELS: ["DenseNet121"], FRACTIONS: [1.0]}
    assert plan.space.seeds == (7, 8)
    assert len(plan.configs) == 2


def test_any_config_key_can_be_an_axis(sources: dict[str, str]) -> None:
    plan = make(sources, space(axes={"optimizer.learning_rate": (1e-3, 1e-2), "augmentation.preset": ("none", "flip")}))
    assert len(plan.configs) == 8
    assert values_of(plan, "augmentation.preset") == {"none", "flip"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({MODELS: "ResNet50"}, r"model\.name is an axis of space mine, it cannot be set to 'ResNet50'"),
        ({"training.seed": 3}, r"training\.seed is varied by the sweep itself; pass --seeds 3"),
    ],
)
def test_a_value_for_an_axis_is_refused(sources: dict[str, str], values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make({**sources, **values})


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"modle.name": ("ResNet18",)}, "axis 'modle.name' of space mine is no config key; did you mean 'model.name'?"),
        ({MODELS: ("ResNet81",)}, "did you mean 'ResNet18'?"),
        ({"augmentation.preset": ("flop",)}, "did you mean 'flip'?"),
        ({"training.epochs": (0,)}, "training.epochs: got 0, expected"),
        ({"training.epochs": ()}, "axis 'training.epochs' of space mine has no values"),
        ({"data.test_split": ("public", "all")}, "axis 'data.test_split' of space mine: data and machine are the same"),
        ({"data.synthetic_test_fraction": (0.1, 0.2)}, "data and machine are the same in all trials of a sweep"),
        ({"runtime.precision": ("float32",)}, "axis 'runtime.precision' of space mine: data and machine are the same"),
        ({"training.seed": (0, 1)}, "its seeds are not an axis but `seeds`"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(sources: dict[str, str], axes: dict[str, tuple], message: str) -> None:
    with pytest.raises(UserError) as raised:
        make(sources, space(axes=axes))
    assert message in str(raised.value)


def test_a_model_that_is_no_axis_is_checked_too(sources: dict[str, str]) -> None:
    with pytest.raises(UserError, match="did you mean 'ConvNeXt-Tiny'"):
        make({**sources, MODELS: "ConvNext-Tyni"}, space(axes={FRACTIONS: (1.0,)}))


def test_without_synthetic_faces_the_ways_on_are_named(tiny_faces: TinyFaces) -> None:
    source = {"data.source": str(tiny_faces.real)}
    with pytest.raises(UserError) as raised:
        make(source)
    assert f"python -m fer_ray.synthesize ppca --data {tiny_faces.real}" in str(raised.value)
    assert "--mixing real_only" in str(raised.value)
    assert len(make({**source, "data.mixing": "real_only"}).configs) == 8
    assert len(make(source, axes={FRACTIONS: (1.0,)}).configs) == 4


def test_the_small_form_and_the_command_line_go_on_top_of_the_base(sources: dict[str, str]) -> None:
    small = {"training.epochs": 2, "data.num_train_images": 40, "training.seed": (5,)}
    plan = make({**sources, "data.num_train_images": 30}, space(small=small), small=True)
    assert values_of(plan, "training.epochs") == {2}
    assert values_of(plan, "data.num_train_images") == {30}
    assert plan.space.seeds == (5,)
    assert make(sources, space(small=small)).space.seeds == (0, 1)


def test_the_demo_form_is_for_demo_faces_alone(sources: dict[str, str]) -> None:
    demo = {"training.epochs": 4, "training.seed": (9,), "data.num_train_images": 21}
    assert values_of(make(sources, space(demo=demo)), "training.epochs") == {1}
    plan = make({}, space(demo=demo))
    assert (values_of(plan, "training.epochs"), plan.space.seeds, plan.is_demo) == ({4}, (9,), True)
    assert plan.notes[0].startswith("rendered demo faces")


@pytest.mark.parametrize("name", spaces.space_names())
def test_every_space_of_the_project_can_be_planned_on_demo_faces(name: str) -> None:
    design = spaces.load_space(name)
    assert design.name == name
    assert design.question.endswith("?")
    plan = make({}, design)
    seeds = design.demo.get("training.seed", design.seeds)
    assert plan.space.seeds == tuple(seeds)
    if isinstance(design, Space):
        assert len(plan.configs) == len(design.cells()) * len(seeds)
    else:
        assert set(design.known[0]) <= set(plan.parameters)
    small = make({}, design, small=True)  # the demo is smaller than small
    for key in ("training.epochs", "data.num_train_images"):
        assert values_of(small, key) == values_of(plan, key)


def test_the_ratio_study_is_35_trials_on_demo_faces() -> None:
    assert len(make({}, spaces.load_space("ratios")).configs) == 35


def write_space(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_space_of_ones_own_is_a_file(tmp_path: Path) -> None:
    text = 'from fer_ray.space import Space\nSPACE = Space(name="own", question="?", axes={"training.epochs": (1, 2)})'
    assert spaces.load_space(write_space(tmp_path / "own.py", text)).name == "own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPACE = 3", "expected the file to define SPACE"),
        ("", "expected the file to define SPACE"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
    ],
)
def test_a_file_that_defines_no_space_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write_space(tmp_path / "own.py", text)
    with pytest.raises(UserError) as raised:
        spaces.load_space(path)
    assert path in str(raised.value)
    assert message in str(raised.value)


def test_strict_refuses_if_any_run_trains_on_copies(tmp_path: Path) -> None:
    faces = random_faces(30)
    files = {f"train/{name}/{i}.png": faces[i + 10 * j] for j, name in enumerate(("happy", "sad")) for i in range(10)}
    files |= {f"test/{name}/{j}.png": faces[20 + j] for j, name in enumerate(("happy", "sad"))}
    files["test/happy/copy.png"] = faces[0]
    values = {"data.source": str(write_folders(tmp_path / "leaky", files))}
    design = space(axes={"data.drop_leaks": (True, False)}, base=BASE | {"data.num_train_images": 8})
    plan = make(values, design)
    assert any("--drop-leaks" in line for line in plan.check_leaks(is_strict=False))
    with pytest.raises(UserError, match="--strict: 1 training images are copies"):
        plan.check_leaks(is_strict=True)
    assert make(values, space(axes={"data.drop_leaks": (True,)}, base=design.base)).check_leaks(is_strict=True)


def test_a_search_is_planned_from_examples_of_what_it_may_propose(sources: dict[str, str]) -> None:
    plan = make(sources, search(seeds=(3, 4)))
    assert set(plan.parameters) == {"rate", "sam", "rho"}
    assert values_of(plan, "training.seed") == {3}
    assert len(values_of(plan, "optimizer.learning_rate")) > 30
    assert "optimizer.learning_rate" not in plan.fixed
    assert "training.seed" not in plan.fixed
    info = plan.info()
    assert (info["kind"], info["axes"], info["directions"]) == ("search", {}, ["maximize"])


def test_what_a_search_varies_cannot_be_set_and_it_has_no_axes(sources: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"optimizer\.sam_rho is searched by space mine, it cannot be set to 0\.1"):
        make({**sources, "optimizer.sam_rho": 0.1}, search())
    with pytest.raises(UserError, match="space mine is a search: it has no axes"):
        make(sources, search(), axes={FRACTIONS: (1.0,)})
    with pytest.raises(UserError, match="data and machine are the same in all trials"):
        make(sources, search(suggest=lambda trial: {"runtime.precision": "float32"}))


def test_variants_are_an_axis_of_several_keys_that_rows_carry_by_name(sources: dict[str, str]) -> None:
    variants = {"plain": {}, "SAM": {"optimizer.sam_rho": 0.05, "training.epochs": 2}}
    plan = make(sources, space(axes={FRACTIONS: (0.5, 1.0)}, variants=variants))
    assert len(plan.configs) == 8
    for config in plan.configs:
        assert plan.tags(config) == {"variant": "SAM" if config.optimizer.sam_rho else "plain"}
    assert list(plan.axes()) == ["variant", FRACTIONS]
    assert plan.info()["variants"]["SAM"] == {"optimizer.sam_rho": 0.05, "training.epochs": 2}
    with pytest.raises(UserError, match="variants 'plain' and 'same' are the same run"):
        make(sources, space(axes={FRACTIONS: (1.0,)}, variants={"plain": {}, "same": {}}))
    with pytest.raises(UserError, match=r"optimizer\.sam_rho is an axis of space mine, it cannot be set"):
        make({**sources, "optimizer.sam_rho": 0.1}, space(axes={FRACTIONS: (1.0,)}, variants=variants))
