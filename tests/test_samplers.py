"""Samplers, and what a user's own search space may get wrong."""

from typing import Any

import optuna
import pytest
from searches import BASE, search

from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.tuning import samplers


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_each_sampler_proposes_on_a_conditional_space(name: str) -> None:
    study = optuna.create_study(direction="maximize", sampler=samplers.build(name, 0, 1))
    points = []
    for _ in range(15):
        trial = study.ask()
        points.append(samplers.propose(search(), BASE, trial))
        study.tell(trial, points[-1].config.optimizer.learning_rate)
    for point in points:
        assert ("rho" in point.params) == point.params["sam"] == ("optimizer.sam_rho" in point.values)
        assert point.distributions.keys() == point.params.keys()
        assert isinstance(point.config, RunConfig)
    assert len({point.config for point in points}) > 10


def test_tpe_and_gp_come_closer_to_the_best_than_chance() -> None:
    def best(name: str) -> float:
        study = optuna.create_study(direction="maximize", sampler=samplers.build(name, 1, 1))
        for _ in range(30):
            trial = study.ask()
            rate = samplers.propose(search(), BASE, trial).config.optimizer.learning_rate
            study.tell(trial, -abs(rate - 0.0137))
        return study.best_value

    assert best("tpe") > best("random")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.learning_rat": 1}, r"did you mean 'optimizer\.learning_rate'"),
        ({"optimizer.learning_rate": -1}, r"optimizer\.learning_rate: got -1"),
        ({"training.seed": 3}, r"suggest gave training\.seed, which a search does not vary"),
        ({"data.source": "x"}, r"suggest gave data\.source"),
        (None, r"suggest returned None, expected config key -> value"),
    ],
)
def test_what_a_space_gives_is_checked_and_the_space_is_named(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"space made: .*{message}"):
        samplers.examples(search(suggest=lambda trial: values), BASE)


def test_an_exception_in_a_space_is_a_message() -> None:
    with pytest.raises(UserError, match="space made: suggest failed: ValueError: invalid literal"):
        samplers.examples(search(suggest=lambda trial: {"training.epochs": int("many")}), BASE)


@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"rate": 5.0, "sam": False}, r"The value 5\.0 of parameter 'rate' isn't contained"),
        ({"rate": 0.01, "sam": False, "rho": 0.1}, r"rho=0\.1 is not taken \(no such parameter there\)"),
        ({"rat": 0.01}, r"rat=0\.01 is not taken \(no such parameter there\)"),
    ],
)
def test_a_known_point_that_the_space_does_not_take_is_refused(known: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"space made: known point .*{message}"):
        samplers.examples(search(known=({"rate": 0.01, "sam": False}, known)), BASE)


def test_examples_are_the_same_each_time_and_tell_all_parameters() -> None:
    known = {"rate": 0.01, "sam": False}
    first, second = (samplers.examples(search(known=(known,)), BASE) for _ in range(2))
    assert [point.params for point in first] == [point.params for point in second]
    assert first[0].params == known
    told = samplers.parameters(first)
    assert list(told) == ["rate", "rho", "sam"]
    assert told["rho"]["attributes"] == {"low": 0.01, "high": 0.5, "log": False, "step": None}


def test_the_test_split_is_no_objective_and_a_typo_gets_a_hint() -> None:
    samplers.check_objectives(["validation_macro_f1", "train_seconds"])
    with pytest.raises(UserError, match="the test split is not for choosing"):
        samplers.check_objectives(["test_macro_f1"])
    with pytest.raises(UserError, match="did you mean 'validation_macro_f1'"):
        samplers.check_objectives(["validation_macrof1"])
    assert samplers.directions(["validation_loss", "validation_accuracy"]) == ["minimize", "maximize"]
