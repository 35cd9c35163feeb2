"""What an earlier sweep teaches a search."""

from pathlib import Path
from typing import Any

import pytest
from conftest import TinyFaces
from designs import make, search, sources_of, space, suggest
from searches import Driver

from fer_ray import results
from fer_ray.errors import UserError
from fer_ray.tuning import warm_start
from fer_ray.tuning.plan import Plan


@pytest.fixture
def plan(tiny_faces: TinyFaces) -> Plan:
    return make({**sources_of(tiny_faces), "data.num_train_images": 30}, search())


def earlier_search(root: Path, plan: Plan, **info: Any) -> Path:
    Driver(root, search(suggest=suggest), num_trials=8).finish()
    results.write_json(root / "sweep.json", plan.info() | info)
    return root


def test_results_of_the_same_runs_are_taken_as_observed(plan: Plan, tmp_path: Path) -> None:
    learned = warm_start.read(earlier_search(tmp_path, plan), plan)
    assert len(learned.observed) == 8
    assert learned.points == ()
    assert {name for trial in learned.observed for name in trial.params} == {"rate", "sam", "rho"}
    assert "8 proposals of" in learned.notes[0]
    assert "are taken as observed" in learned.notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"training_version": 0},
        {"parameters": {"rate": None}},
        {"objectives": ["validation_accuracy"]},
        {"data": {"digest": "other"}},
        {"fixed": {"training.epochs": 9}},
    ],
)
def test_of_other_runs_the_best_settings_are_tried_first(plan: Plan, tmp_path: Path, change: dict[str, Any]) -> None:
    info = plan.info()
    merged = {key: info[key] | value if isinstance(value, dict) else value for key, value in change.items()}
    learned = warm_start.read(earlier_search(tmp_path, plan, **merged), plan)
    assert learned.observed == ()
    rates = [point["rate"] for point in learned.points]
    assert len(rates) == warm_start.NUM_POINTS
    assert rates == sorted(rates, reverse=True)  # the made-up objective grows with the rate
    assert "are tried first; its values are of other runs or data" in learned.notes[0]


def test_where_the_machine_or_the_place_of_the_data_differs_results_are_the_same(plan: Plan, tmp_path: Path) -> None:
    fixed = {**plan.info()["fixed"], "runtime.threads": 7, "data.source": "/elsewhere/real.parquet"}
    assert warm_start.read(earlier_search(tmp_path, plan, fixed=fixed), plan).observed


def test_a_factorial_sweep_gives_the_best_of_the_axes_that_are_searched(tiny_faces: TinyFaces, tmp_path: Path) -> None:
    key = "optimizer.learning_rate"

    def by_key(trial: Any) -> dict[str, Any]:
        return {key: trial.suggest_float(key, 1e-4, 1.0, log=True)}

    values = {**sources_of(tiny_faces), "data.num_train_images": 30}
    design = make(values, space(axes={key: (0.001, 0.01, 0.1), "data.real_fraction": (1.0,)}))
    results.write_json(tmp_path / "sweep.json", design.info())
    rows = [
        (9.0, 0.99, "finished"),
        (0.01, 0.7, "finished"),
        (0.001, 0.2, "finished"),
        (0.1, 0.9, "failed"),
        (0.01, 0.6, "finished"),
    ]
    for number, (rate, f1, status) in enumerate(rows):
        folder = tmp_path / "trials" / str(number)
        folder.mkdir(parents=True)
        row = {"id": str(number), "status": status, "validation_macro_f1": f1, key: rate, "data.real_fraction": 1.0}
        results.write_json(folder / "row.json", row)
    learned = warm_start.read(tmp_path, make(values, search(suggest=by_key)))
    assert learned.points == ({key: 0.01}, {key: 0.001})


def test_what_teaches_nothing_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no sweep\.json; expected the results folder of a sweep"):
        warm_start.read(tmp_path / "nowhere", plan)
    results.write_json(tmp_path / "sweep.json", plan.info())
    with pytest.raises(UserError, match=r"no result for a parameter of this search \(rate, rho, sam\)"):
        warm_start.read(tmp_path, plan)
