"""`study.db`, as Optuna itself reads it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from searches import Driver, search

from fer_ray import results
from fer_ray.proposals import read_proposals
from fer_ray.space import Space
from fer_ray.storage import Storage
from fer_ray.tuning.mirror import Mirror


def plan_of(space: Any) -> Any:
    return SimpleNamespace(space=space, axes=lambda: getattr(space, "axes", {}))


def loaded(root: Path, name: str = "made") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{root / 'study.db'}")


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    def stops(config: Any, epoch: int) -> bool:
        return epoch == 2 and config.optimizer.learning_rate < 0.01

    driver = Driver(tmp_path, num_trials=6, stops=stops, fails=lambda config: config.optimizer.learning_rate > 0.05)
    driver.finish()
    return tmp_path


def test_what_ended_is_in_the_study_with_its_state_and_values(searched: Path) -> None:
    proposals = read_proposals(searched)
    mirror = Mirror(searched, plan_of(search()))
    mirror.add_proposal(replace(proposals[0], number=99, state="running"))
    for proposal in proposals:
        mirror.add_proposal(proposal)
    study = loaded(searched)
    golden = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    assert {proposal.state for proposal in proposals} == set(golden)
    assert [trial.state for trial in study.trials] == [golden[proposal.state] for proposal in proposals]
    assert [trial.params for trial in study.trials] == [proposal.params for proposal in proposals]
    assert study.best_value == max((p.values or [0])[0] or 0 for p in proposals if p.state == "complete")
    assert study.metric_names == ["validation_macro_f1"]
    pruned = next(trial for trial in study.trials if trial.state == TrialState.PRUNED)
    assert list(pruned.intermediate_values) == [1, 2]


def test_a_second_command_adds_nothing_twice(searched: Path) -> None:
    for _ in range(2):
        mirror = Mirror(searched, plan_of(search()))
        for proposal in [*read_proposals(searched), *read_proposals(searched)]:
            mirror.add_proposal(proposal)
    assert len(loaded(searched).trials) == 6


def test_several_objectives_are_directions_of_the_study(tmp_path: Path) -> None:
    space = search(objectives=("validation_macro_f1", "train_seconds"))
    Mirror(tmp_path, plan_of(space))
    assert [direction.name for direction in loaded(tmp_path).directions] == ["MAXIMIZE", "MINIMIZE"]


def design(*fractions: float) -> Any:
    axes = {"model.name": ("A", "B"), "data.real_fraction": fractions}
    return plan_of(Space(name="made", question="?", axes=axes))


def write_row(root: Path, name: str, fraction: float, f1: float, status: str = results.FINISHED) -> None:
    folder = root / "trials" / name
    folder.mkdir(parents=True)
    row = {"id": name, "status": status, "validation_macro_f1": f1, "test_macro_f1": f1 / 2}
    results.write_json(folder / "row.json", {**row, "model.name": "A", "data.real_fraction": fraction})


def test_finished_runs_of_a_factorial_design_are_mirrored_too(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, design(0.0, 1.0))
    write_row(tmp_path, "a", 1.0, 0.5)
    write_row(tmp_path, "b", 1.0, 0.5, status=results.FAILED)
    for name in ("a", "b", "never started", "a"):
        mirror.add_run(Storage(str(tmp_path)), name)
    (trial,) = loaded(tmp_path).trials
    assert (trial.value, trial.params) == (0.5, {"model.name": "A", "data.real_fraction": 1.0})
    assert trial.user_attrs["test_macro_f1"] == 0.25


def test_a_design_with_other_values_than_before_keeps_all_its_runs_in_the_study(tmp_path: Path) -> None:
    write_row(tmp_path, "a", 1.0, 0.5)
    Mirror(tmp_path, design(0.0, 1.0))
    mirror = Mirror(tmp_path, design(0.3, 0.5))
    write_row(tmp_path, "b", 0.3, 0.7)
    mirror.add_run(Storage(str(tmp_path)), "b")
    trials = loaded(tmp_path).trials
    assert {trial.params["data.real_fraction"]: trial.value for trial in trials} == {1.0: 0.5, 0.3: 0.7}


def test_a_study_that_is_lost_is_made_again(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    factorial = tmp_path_factory.mktemp("factorial")
    write_row(factorial, "a", 1.0, 0.5)
    for root, plan, count in ((factorial, design(1.0), 1), (searched, plan_of(search()), 6)):
        for _ in range(2):
            (root / "study.db").unlink(missing_ok=True)
            Mirror(root, plan)
            assert len(loaded(root).trials) == count


@pytest.mark.parametrize("content", [b"this is no database", b""])
def test_a_damaged_file_does_not_end_a_sweep(searched: Path, content: bytes) -> None:
    (searched / "study.db").write_bytes(content)
    mirror = Mirror(searched, plan_of(search()))
    for proposal in read_proposals(searched):
        mirror.add_proposal(proposal)


def test_a_place_that_cannot_be_written_does_not_end_a_sweep(searched: Path, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "not there", plan_of(search()))
    mirror.add_proposal(read_proposals(searched)[0])


def test_a_disk_that_fills_up_on_the_way_does_not_end_a_sweep(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def full(*_: object, **__: object) -> None:
        raise OperationalError("insert", {}, Exception("database or disk is full"))

    monkeypatch.setattr(optuna.Study, "add_trial", full)
    mirror = Mirror(searched, plan_of(search()))
    for proposal in read_proposals(searched):
        mirror.add_proposal(proposal)
    assert loaded(searched).trials == []
