"""`RunConfig`: what it refuses and how, its flat form, and what makes two runs the same experiment."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_ray.config import KEYS, NOT_HASHED, RunConfig, parse_value
from fer_ray.errors import UserError

OTHER_VALUES: dict[str, Any] = {
    "model.name": "ConvNeXtTiny",
    "model.weights": "imagenet",
    "model.dropout": 0.5,
    "data.source": "fer2013.csv",
    "data.synthetic": "faces.zip",
    "data.classes": "common",
    "data.label_set": "fer4",
    "data.votes": "probability",
    "data.align": True,
    "data.test_source": "other.zip",
    "data.synthetic_test_fraction": 0.15,
    "data.fold": "1/5",
    "data.drop_leaks": True,
    "data.test_split": "all",
    "data.image_size": 64,
    "data.num_train_images": 1000,
    "data.real_fraction": 0.3,
    "data.mixing": "add",
    "data.normalization": "imagenet",
    "data.sampling": "balanced",
    "model.head": "affect-cnn",
    "model.stem": "stride1",
    "model.channels": 1,
    "task.name": "multitask",
    "task.classification_loss": "focal",
    "task.focal_gamma": 1.0,
    "task.class_weights": "inverse",
    "task.affect_loss": "ccc",
    "task.expression_weight": 2.0,
    "task.valence_weight": 1.0,
    "task.arousal_weight": 1.0,
    "augmentation.erasing_probability": 0.5,
    "augmentation.mixup_alpha": 0.2,
    "augmentation.cutmix_alpha": 1.0,
    "augmentation.views": 4,
    "augmentation.test_time": "flip",
    "optimizer.momentum": 0.8,
    "optimizer.step_epochs": 3,
    "optimizer.step_factor": 0.2,
    "optimizer.plateau_epochs": 3,
    "optimizer.plateau_factor": 0.2,
    "optimizer.sam_rho": 0.05,
    "optimizer.sam_adaptive": True,
    "optimizer.sam_every": 2,
    "optimizer.sam_fraction": 0.5,
    "optimizer.accumulation_steps": 2,
    "optimizer.ema_decay": 0.99,
    "training.phases": "head 3, all 6 x0.1",
    "runtime.layout": "contiguous",
    "runtime.compile": True,
    "runtime.checkpoint_seconds": 0.0,
    "augmentation.preset": "none",
    "augmentation.flip_probability": 0.0,
    "augmentation.rotation_degrees": 0.0,
    "augmentation.min_crop": 0.9,
    "augmentation.zoom": 0.0,
    "augmentation.shift": 0.0,
    "augmentation.shear_degrees": 0.0,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.0,
    "optimizer.schedule": "constant",
    "optimizer.warmup_fraction": 0.0,
    "training.epochs": 1,
    "training.batch_size": 2,
    "training.seed": 1,
    "training.patience": 3,
    "training.selection_metric": "loss",
    "training.label_smoothing": 0.0,
    "training.max_gradient_norm": None,
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "runtime.precision": "float32",
}
"""For every key, a valid value that is not its default."""


def signature(**values: Any) -> str:
    return RunConfig.from_flat(values).signature("digest", None)


def test_the_table_of_other_values_covers_every_key() -> None:
    assert OTHER_VALUES.keys() == KEYS.keys()
    defaults = RunConfig().flat()
    assert [key for key, value in OTHER_VALUES.items() if defaults[key] == value] == []


@pytest.mark.parametrize("key", [key for key in OTHER_VALUES if key not in NOT_HASHED])
def test_the_signature_changes_with_every_key_that_changes_the_experiment(key: str) -> None:
    assert signature(**{key: OTHER_VALUES[key]}) != signature()


@pytest.mark.parametrize(
    "key", ["data.source", "data.synthetic", "runtime.device", "runtime.threads", "runtime.precision"]
)
def test_the_signature_ignores_where_files_lie_and_how_the_run_is_executed(key: str) -> None:
    assert signature(**{key: OTHER_VALUES[key]}) == signature()


def test_the_signature_changes_with_the_content_of_either_data_set() -> None:
    config = RunConfig()
    names = {config.signature(real, synthetic) for real in ("a", "b") for synthetic in (None, "a", "b")}
    assert len(names) == 6


def test_the_signature_does_not_depend_on_the_order_or_the_type_of_given_values() -> None:
    one = RunConfig.from_flat({"data.real_fraction": 1, "training.epochs": 3})
    other = RunConfig.from_flat({"training.epochs": 3, "data.real_fraction": 1.0})
    assert one.signature("d", "e") == other.signature("d", "e")


def test_run_ids_are_readable_and_differ_by_signature() -> None:
    config = RunConfig.from_flat({"data.real_fraction": 0.1, "training.seed": 2})
    assert config.run_id("0123456789abcdef") == "ResNet18-r0.1-s2-01234567"


def test_a_flat_config_gives_the_same_config_back_also_through_json() -> None:
    config = RunConfig.from_flat(OTHER_VALUES)
    assert config.flat() == OTHER_VALUES
    assert RunConfig.from_flat(config.flat()) == config
    assert RunConfig.from_flat(json.loads(json.dumps(config.flat()))) == config
    assert RunConfig.from_flat({}) == RunConfig()


@given(st.fixed_dictionaries({}, optional={key: st.just(value) for key, value in OTHER_VALUES.items()}))
def test_a_key_left_out_takes_its_default_and_no_other_key_moves(values: dict[str, Any]) -> None:
    assert RunConfig.from_flat(values).flat() == {**RunConfig().flat(), **values}


def test_replace_changes_the_given_keys_only_and_validates_again() -> None:
    config = RunConfig.from_flat({"training.epochs": 3})
    changed = config.replace({"training.seed": 7})
    assert changed.flat() == {**config.flat(), "training.seed": 7}
    with pytest.raises(UserError, match=r"training\.seed: got -1"):
        config.replace({"training.seed": -1})


def test_a_config_cannot_be_changed_in_place() -> None:
    training: Any = RunConfig().training
    with pytest.raises(ValidationError, match="frozen"):
        training.epochs = 2


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.epoch", "training.epochs"),
        ("optimizer.lr_rate", "optimizer.learning_rate"),
        ("Data.Image_Size", "data.image_size"),
        ("real_fraction", "data.real_fraction"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_one_named(key: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"unknown config key '{key}'; did you mean '{nearest}'"):
        RunConfig.from_flat({key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.real_fraction", 1.01),
        ("data.real_fraction", -0.1),
        ("data.real_fraction", float("nan")),
        ("data.image_size", 31),
        ("data.image_size", 513),
        ("data.image_size", "big"),
        ("data.num_train_images", 1),
        ("model.dropout", 1.0),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", float("inf")),
        ("training.epochs", 0),
        ("training.epochs", 2.5),
        ("training.batch_size", 1),
        ("training.seed", 2**32),
        ("training.patience", 0),
        ("training.selection_metric", "f1"),
        ("data.mixing", "both"),
        ("runtime.threads", 0),
        ("runtime.precision", "float8"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_key_value_and_meaning(key: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        RunConfig.from_flat({key: value})
    message = str(caught.value)
    assert message.startswith(f"{key}: got {value!r}, expected ")
    assert str(KEYS[key].description) in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.real_fraction", 0),
        ("data.real_fraction", 1),
        ("data.image_size", 32),
        ("data.image_size", 512),
        ("data.image_size", "native"),
        ("data.num_train_images", "auto"),
        ("training.patience", None),
        ("training.seed", 2**32 - 1),
    ],
)
def test_the_ends_of_a_range_are_inside(key: str, value: Any) -> None:
    assert RunConfig.from_flat({key: value}).flat()[key] == value


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"model\.dropout: got 2.*training\.epochs: got 0"):
        RunConfig.from_flat({"model.dropout": 2, "training.epochs": 0})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.epochs", "5", 5),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("training.patience", "none", None),
        ("training.patience", "NULL", None),
        ("model.weights", "none", "none"),
        ("augmentation.preset", "none", "none"),
        ("model.name", "ResNet50", "ResNet50"),
        ("data.image_size", "native", "native"),
        ("data.source", "[1]", "[1]"),
        ("data.source", '{"a": 1}', '{"a": 1}'),
    ],
)
def test_the_text_of_a_flag_becomes_the_value_it_spells(key: str, text: str, value: Any) -> None:
    parsed = parse_value(key, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_every_value_can_be_given_as_a_flag(key: str) -> None:
    assert parse_value(key, str(OTHER_VALUES[key])) == OTHER_VALUES[key]


def test_a_flag_with_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"did you mean 'training\.batch_size'"):
        parse_value("training.batchsize", "8")


def test_every_key_says_what_it_is() -> None:
    assert [key for key, info in KEYS.items() if not info.description] == []
