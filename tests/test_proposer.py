"""The proposer without Ray: what Optuna is told, what is not trained twice, and what a kill at any moment costs."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from searches import BASE, Driver, search, states, suggest_few, value_of

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, frozen_trial, read_proposals, to_study
from fer_ray.tuning import samplers


def told(driver: Driver) -> list[optuna.trial.FrozenTrial]:
    """What Optuna knows."""
    return driver.proposer._study.get_trials(deepcopy=False)


def low_rate(config: RunConfig, epoch: int = 2) -> bool:
    return epoch == 2 and config.optimizer.learning_rate < 0.01


def test_a_search_trains_as_many_proposals_as_it_should_and_optuna_knows_their_values(tmp_path: Path) -> None:
    driver = Driver(tmp_path, num_trials=8)
    proposals = driver.finish()
    assert states(proposals) == {"complete": 8}
    assert [proposal.number for proposal in proposals] == list(range(8))
    assert sorted(proposal.number for proposal in driver.ended) == list(range(8))
    for proposal, trial in zip(proposals, sorted(told(driver), key=lambda trial: trial.number), strict=True):
        golden = value_of(BASE.replace(dict(proposal.config)), 0)
        assert proposal.values == trial.values == [pytest.approx(golden)]
        assert trial.params == proposal.params
        assert list(proposal.intermediate) == [1, 2, 3, 4]
        assert [(run.seed, run.status) for run in proposal.runs] == [(0, results.FINISHED)]


def test_what_the_scheduler_stopped_is_pruned_with_its_curve_and_what_failed_is_failed(tmp_path: Path) -> None:
    driver = Driver(tmp_path, num_trials=12, stops=low_rate, fails=lambda config: config.optimizer.learning_rate > 0.05)
    found = {proposal.number: proposal for proposal in driver.finish()}
    counts = Counter(trial.state for trial in told(driver))
    assert set(counts) == {TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL}
    for number, trial in enumerate(told(driver)):
        proposal = found[number]
        golden = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL, "complete": TrialState.COMPLETE}
        assert trial.state == golden[proposal.state]
        if proposal.state == "pruned":
            assert list(trial.intermediate_values) == list(proposal.intermediate) == [1, 2]
            assert trial.value == trial.intermediate_values[2]
            assert proposal.reason == "stopped by the scheduler after epoch 2"
            assert proposal.runs[0].status == results.STOPPED
        if proposal.state == "failed":
            assert (proposal.reason, proposal.values) == ("loss is not finite", None)


def test_a_finished_run_without_the_objective_has_failed(tmp_path: Path) -> None:
    driver = Driver(tmp_path, search(objectives=("validation_ccc",)), num_trials=1)
    (proposal,) = driver.finish()
    assert (proposal.state, proposal.reason) == ("failed", "a value of its objectives is missing")


def test_repeated_proposals_are_answered_and_not_trained_again(tmp_path: Path) -> None:
    driver = Driver(tmp_path, search(suggest=suggest_few), num_trials=5, parallel=3)
    proposals = driver.finish()
    assert len(driver.starts) == len(set(driver.starts)) == 5
    assert states(proposals)["complete"] == 5
    repeated = [proposal for proposal in proposals if proposal.state == "repeated"]
    assert repeated
    for proposal in repeated:
        original = proposals[proposal.repeats or 0]
        assert (proposal.values, proposal.params) == (original.values, original.params)
        assert proposal.runs == []
    assert all(trial.state == TrialState.COMPLETE for trial in told(driver))
    assert len(told(driver)) == len(proposals)


def test_a_repetition_of_one_that_is_running_waits_for_it(tmp_path: Path) -> None:
    point = {"rate": 1e-2, "rho": 0.0}
    driver = Driver(tmp_path, search(suggest=suggest_few), num_trials=2, parallel=2, known=[point, point])
    driver.step()
    driver.step()
    first, second = read_proposals(tmp_path)[:2]
    assert (first.state, second.state, second.repeats, second.values) == ("running", "repeated", 0, None)
    first, second, *_ = driver.finish()
    assert first.values == second.values != None  # noqa: E711
    assert [trial.value for trial in told(driver)[:2]] == [first.values[0], first.values[0]]


def test_a_repetition_of_a_stopped_one_is_pruned_too(tmp_path: Path) -> None:
    point = {"rate": 1e-3, "rho": 0.0}
    driver = Driver(tmp_path, search(suggest=suggest_few), num_trials=2, known=[point, point], stops=low_rate)
    driver.finish()
    assert [trial.state for trial in told(driver)[:2]] == [TrialState.PRUNED] * 2


def test_a_small_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    driver = Driver(tmp_path, search(suggest=suggest_few), num_trials=50)
    assert states(driver.finish())["complete"] == 6
    assert len(driver.starts) == 6


def test_seeds_are_added_one_at_a_time_to_those_still_in_the_race(tmp_path: Path) -> None:
    driver = Driver(tmp_path, search(seeds=(3, 5, 7)), num_trials=10, parallel=1)
    proposals = driver.finish()
    assert states(proposals) == {"complete": 10}
    best = max(proposals, key=lambda proposal: (proposal.values or [0])[0])
    assert [run.seed for run in best.runs] == [3, 5, 7]
    config = BASE.replace(dict(best.config))
    golden = [value_of(config.replace({"training.seed": seed}), seed) for seed in (3, 5, 7)]
    assert best.values == [pytest.approx(sum(golden) / 3)]
    assert best.reason == "scored over all 3 seeds"
    out = [proposal for proposal in proposals if len(proposal.runs) < 3]
    assert out
    assert all("out of the race after" in (proposal.reason or "") for proposal in out)
    for proposal in proposals:
        seeds = [seed for number, seed in driver.starts if number == proposal.number]
        assert seeds == [3, 5, 7][: len(seeds)]
        assert list(proposal.intermediate) == [1, 2, 3, 4]


def test_a_proposal_whose_later_seed_is_stopped_is_judged_by_the_others(tmp_path: Path) -> None:
    driver = Driver(tmp_path, search(seeds=(0, 1)), num_trials=1, stops=lambda config, epoch: config.training.seed == 1)
    (proposal,) = driver.finish()
    assert (proposal.state, proposal.reason) == ("complete", "seed 1 stopped, judged by the others")
    assert proposal.values == [pytest.approx(value_of(BASE.replace(dict(proposal.config)), 0))]


def test_several_objectives_are_all_told_and_scored_over_all_seeds(tmp_path: Path) -> None:
    space = search(objectives=("validation_macro_f1", "images_per_second"), seeds=(0, 1))
    driver = Driver(tmp_path, space, num_trials=4, sampler="nsga2")
    proposals = driver.finish()
    assert {len(proposal.runs) for proposal in proposals} == {2}
    assert all(proposal.values is not None and proposal.values[1] == 100.0 for proposal in proposals)
    assert [trial.values for trial in told(driver)] == [list(p.values or ()) for p in proposals]
    assert driver.proposer._study.best_trials


def test_known_points_come_first_and_in_order(tmp_path: Path) -> None:
    known = ({"rate": 0.05, "sam": False}, {"rate": 0.02, "sam": True, "rho": 0.1})
    warm = {"rate": 0.03, "sam": False}
    driver = Driver(tmp_path, search(known=known), num_trials=5, known=[*known, warm])
    proposals = driver.finish()
    assert [proposal.params for proposal in proposals[:3]] == [*known, warm]
    assert [proposal.source for proposal in proposals] == ["known", "known", "warm start", "sampler", "sampler"]


@pytest.mark.parametrize("sampler", samplers.SAMPLERS[:1] + samplers.SAMPLERS[2:])
def test_the_same_seed_proposes_the_same_and_another_one_other_points(sampler: str, tmp_path: Path) -> None:
    def points(name: str, **changes: Any) -> list[Any]:
        driver = Driver(tmp_path / name, search(**changes), num_trials=12, parallel=1, sampler=sampler)
        return [proposal.params for proposal in driver.finish()]

    assert points("a") == points("b") != points("c", seeds=(1,))


def test_what_an_earlier_sweep_observed_is_learned_from_and_changes_no_number(tmp_path: Path) -> None:
    first = Driver(tmp_path / "first", num_trials=5).finish()
    observed = [frozen_trial(proposal, ["maximize"]) for proposal in first]
    driver = Driver(tmp_path / "second", num_trials=3, observed=observed)
    assert [proposal.number for proposal in driver.finish()] == [0, 1, 2]
    assert len(told(driver)) == 8


SPACES = {
    "race": search(seeds=(0, 1, 2), known=({"rate": 0.05, "sam": False}, {"rate": 0.002, "sam": False})),
    "small": search(suggest=suggest_few, seeds=(0, 1)),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(12))
def test_a_kill_at_any_moment_loses_no_proposal_and_trains_none_again_that_ended(
    seed: int, name: str, tmp_path: Path
) -> None:
    """Kills follow each other, too; runs that were under way come first, and known points are not lost."""
    source, space = random.Random(seed), SPACES[name]
    starts: Counter[tuple[int, int]] = Counter()
    interrupted: Counter[tuple[int, int]] = Counter()
    before: list[Proposal] = []
    for kill_after in [*(source.randrange(25) for _ in range(4)), 10_000]:
        options: dict[str, Any] = {"num_trials": 6, "parallel": source.choice((1, 3)), "source": source}
        driver = Driver(tmp_path, space, stops=low_rate, **options)
        under_way = [(p.number, run.seed) for p in before for run in p.runs if run.status == "running"]
        for _ in range(kill_after):
            if not driver.step():
                break
        unfinished = [item for item in under_way if item in driver.starts]
        assert driver.starts[: len(unfinished)] == unfinished
        starts.update(driver.starts)
        after = read_proposals(tmp_path)
        for old, new in zip(before, after, strict=False):
            assert (old.number, old.params, old.source) == (new.number, new.params, new.source)
            if old.state not in ("running", "repeated"):
                assert old == new
        assert len(after) >= len(before)
        interrupted.update(driver.under_way)
        before = after
    assert [proposal.number for proposal in before] == list(range(len(before)))
    assert not any(proposal.state == "running" for proposal in before)
    assert sum(proposal.state != "repeated" for proposal in before) == 6
    assert all(count <= 1 + interrupted[item] for item, count in starts.items())
    if space.known:
        assert [proposal.params for proposal in before[:2]] == list(space.known)
    # What was told to Optuna in the last process is what the files say.
    files = {(str(t.params), t.state, str(t.values)) for t in to_study_of(tmp_path)}
    assert files == {(str(t.params), t.state, str(t.values)) for t in told(driver)}


def to_study_of(root: Path) -> list[optuna.trial.FrozenTrial]:
    results.write_json(root / "sweep.json", {"kind": "search", "directions": ["maximize"]})
    return to_study(root).get_trials(deepcopy=False)


def test_more_trials_go_on_where_the_search_ended(tmp_path: Path) -> None:
    first = Driver(tmp_path, num_trials=4).finish()
    driver = Driver(tmp_path, num_trials=6)
    proposals = driver.finish()
    assert proposals[:4] == first
    assert len(proposals) == 6
    assert len(driver.starts) == 2
    assert len(told(driver)) == 6
    assert Driver(tmp_path, num_trials=6).starts == []


def test_what_a_budget_ends_stays_running_and_goes_on(tmp_path: Path) -> None:
    over = [False]
    driver = Driver(tmp_path, num_trials=4, parallel=2, is_over=lambda: over[0])
    for _ in range(4):
        driver.step()
    over[0] = True
    for name in list(driver._running):
        driver.proposer.on_trial_complete(name, {"epoch": 1, "validation_macro_f1": 0.1})
    assert states(read_proposals(tmp_path)) == {"running": 2}
    assert states(Driver(tmp_path, num_trials=4).finish()) == {"complete": 4}


def test_a_space_that_fails_in_the_middle_is_named(tmp_path: Path) -> None:
    def broken(trial: Any) -> dict[str, Any]:
        raise KeyError("oops")

    with pytest.raises(UserError, match=r"space made: suggest failed: KeyError: 'oops'"):
        Driver(tmp_path, search(suggest=broken)).finish()


def test_proposals_that_cannot_be_written_are_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    driver = Driver(tmp_path)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"cannot write proposal 0 to .*: No space left on device"):
        driver.step()
