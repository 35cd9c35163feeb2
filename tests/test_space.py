"""Spaces: the cells that their axes span, and the spaces that ship."""

import importlib
import pkgutil

import pytest

from fer_ray.config import KEYS, RunConfig
from fer_ray.space import Space

SHIPPED = [module.name for module in pkgutil.iter_modules(importlib.import_module("fer_ray.search_spaces").__path__)]


def test_cells_are_the_product_of_the_axes_and_the_first_varies_slowest() -> None:
    space = Space(name="s", question="?", axes={"model.name": ("A", "B"), "data.real_fraction": (0.0, 0.5, 1.0)})
    assert [(cell["model.name"], cell["data.real_fraction"]) for cell in space.cells()] == [
        ("A", 0.0),
        ("A", 0.5),
        ("A", 1.0),
        ("B", 0.0),
        ("B", 0.5),
        ("B", 1.0),
    ]


def test_cells_leave_out_seeds_and_base() -> None:
    space = Space(name="s", question="?", axes={"training.epochs": (1,)}, seeds=(0, 1), base={"model.name": "A"})
    assert space.cells() == [{"training.epochs": 1}]


def test_an_axis_without_values_spans_no_cell_and_no_axis_one() -> None:
    assert Space(name="s", question="?", axes={"training.epochs": ()}).cells() == []
    assert Space(name="s", question="?", axes={}).cells() == [{}]


def load(name: str) -> Space:
    return importlib.import_module(f"fer_ray.search_spaces.{name}").SPACE


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_space_asks_a_question_under_its_own_name(name: str) -> None:
    space = load(name)
    assert space.name == name
    assert space.question.endswith("?")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_cell_of_every_shipped_space_is_a_valid_config(name: str) -> None:
    space = load(name)
    for layer in (space.base, space.demo, space.small):
        values = {key: value for key, value in layer.items() if not isinstance(value, tuple)}
        assert layer.keys() - values.keys() <= {"training.seed"}
        for cell in space.cells():
            RunConfig.from_flat({**space.base, **values, **cell})


@pytest.mark.parametrize("name", SHIPPED)
def test_rows_and_columns_of_a_shipped_space_are_axes(name: str) -> None:
    space = load(name)
    assert {space.rows, space.columns} - {None} <= space.axes.keys() <= KEYS.keys()


def test_ratios_trains_seven_models_on_five_shares() -> None:
    space = load("ratios")
    assert len(space.axes["model.name"]) == 7
    assert space.axes["data.real_fraction"] == (0.0, 0.1, 0.3, 0.5, 1.0)
    assert len(space.cells()) == 35
