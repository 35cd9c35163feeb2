"""Proposals as files, and the Optuna study that is built from them again."""

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from fer_ray import results
from fer_ray.errors import UserError
from fer_ray.proposals import (
    Proposal,
    ProposedRun,
    frozen_trial,
    path_of,
    read_proposals,
    study_of,
    to_study,
    write_proposal,
)

RATE = FloatDistribution(1e-4, 1e-1, log=True)
OPTIMIZER = CategoricalDistribution(("adamw", "sgd"))
PROPOSAL = Proposal(
    number=7,
    source="sampler",
    params={"rate": 1e-3, "optimizer": "sgd"},
    distributions={"rate": distribution_to_json(RATE), "optimizer": distribution_to_json(OPTIMIZER)},
    config={"training.learning_rate": 1e-3, "training.optimizer": "sgd"},
    state="complete",
    runs=(ProposedRun("ResNet18-r1-s0-0123abcd", 0, "finished"),),
    values=(0.61,),
    intermediate={1: 0.3, 2: 0.5},
    reason="won its race",
)


def test_a_proposal_is_read_as_it_was_written(tmp_path: Path) -> None:
    second = replace(PROPOSAL, number=12, state="running", values=None, intermediate={}, runs=(), reason=None)
    for proposal in (second, PROPOSAL):
        write_proposal(tmp_path, proposal)
    assert sorted(path.name for path in (tmp_path / "proposals").iterdir()) == ["00007.json", "00012.json"]
    first, last = read_proposals(tmp_path)
    assert (first, last) == (
        replace(PROPOSAL, runs=list(PROPOSAL.runs), values=list(PROPOSAL.values or ())),
        replace(second, runs=[]),
    )


def test_no_proposals_is_an_empty_list(tmp_path: Path) -> None:
    assert read_proposals(tmp_path) == []


def test_what_optuna_gets_is_what_a_study_records_itself() -> None:
    """The golden side is Optuna's own `ask` and `tell`."""
    study = optuna.create_study(direction="maximize")
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        study.enqueue_trial(dict(PROPOSAL.params))
        trial = study.ask({"rate": RATE, "optimizer": OPTIMIZER})
        for epoch, value in PROPOSAL.intermediate.items():
            trial.report(float(value or 0), epoch)
        study.tell(trial, 0.61 if state == TrialState.COMPLETE else None, state=state)
    states = ("complete", "pruned", "failed")
    proposals = [replace(PROPOSAL, number=n, state=s) for n, s in enumerate(states)]  # type: ignore[arg-type]
    for ours, theirs in zip(study_of(proposals, ["maximize"]).trials, study.trials, strict=True):
        for name in ("number", "state", "values", "params", "distributions", "intermediate_values"):
            assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("change", "state", "values"),
    [
        ({"state": "running", "values": None}, TrialState.RUNNING, None),
        ({"state": "complete", "values": (None,)}, TrialState.FAIL, None),
        ({"state": "pruned", "values": None}, TrialState.PRUNED, [0.5]),
        ({"state": "pruned", "values": None, "intermediate": {}}, TrialState.PRUNED, None),
        ({"state": "pruned", "values": None, "intermediate": {1: 0.3, 2: None}}, TrialState.PRUNED, [0.3]),
        ({"state": "failed", "values": None}, TrialState.FAIL, None),
        ({"state": "repeated", "repeats": 3}, TrialState.COMPLETE, [0.61]),
        ({"state": "repeated", "repeats": 3, "values": None}, TrialState.PRUNED, [0.5]),
        ({"state": "repeated", "repeats": 3, "values": None, "intermediate": {}}, TrialState.FAIL, None),
    ],
)
def test_every_end_has_its_state_in_optuna(change: dict, state: TrialState, values: list[float] | None) -> None:
    trial = frozen_trial(replace(PROPOSAL, **change), ["maximize"])
    assert (trial.state, trial.values) == (state, values)
    assert trial.user_attrs["proposal"] == 7


def test_a_stopped_proposal_of_two_objectives_has_no_values() -> None:
    trial = frozen_trial(replace(PROPOSAL, state="pruned", values=None), ["maximize", "minimize"])
    assert (trial.state, trial.values) == (TrialState.PRUNED, None)


def test_a_folder_becomes_a_study_that_samplers_go_on_from(tmp_path: Path) -> None:
    results.write_json(tmp_path / "sweep.json", {"kind": "search", "directions": ["minimize"]})
    for number, value in enumerate((0.5, 0.2, 0.4)):
        write_proposal(tmp_path, replace(PROPOSAL, number=2 * number, values=(value,)))
    study = to_study(tmp_path)
    assert study.best_value == 0.2
    assert study.best_trial.user_attrs["proposal"] == 2
    assert study.ask({"rate": RATE}).number == 3


def test_a_factorial_sweep_is_no_study(tmp_path: Path) -> None:
    results.write_json(tmp_path / "sweep.json", {"kind": "factorial"})
    with pytest.raises(UserError, match="not of a search"):
        to_study(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"state": "lost"}, "state"), ({"number": 8}, "proposal 8"), ({"runs": [{"id": "a"}]}, "runs.0")],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict, said: str) -> None:
    write_proposal(tmp_path, PROPOSAL)
    path = path_of(tmp_path, 7)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=rf"00007\.json.*{said}"):
        read_proposals(tmp_path)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = write_proposal(tmp_path, PROPOSAL)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=r"00007\.json cannot be read"):
        read_proposals(tmp_path)


def test_a_value_outside_its_distribution_names_the_proposal() -> None:
    with pytest.raises(UserError, match=r"proposal 7.*distributions"):
        frozen_trial(replace(PROPOSAL, params={"rate": 5.0, "optimizer": "sgd"}), ["maximize"])
