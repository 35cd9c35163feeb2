"""The schedulers that stop trials, driven as Tune drives them."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from tune_trials import cell

from fer_ray.tuning import schedulers

GO_ON, STOP, PAUSE = TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.PAUSE
METRIC = "validation_macro_f1"


class FakeTrial:
    """What schedulers look at of Tune's trials."""

    is_saving = False

    def __init__(self, name: str, epochs: int) -> None:
        self.trial_id, self.status = name, "RUNNING"
        self.config = {"cell": cell(name, **{"training.epochs": epochs})}


class Tuned:
    """A scheduler under a made-up controller, which stops what the scheduler tells it to."""

    def __init__(self, name: str, epochs: int, mode: str = "maximize", earlier: Any = ()) -> None:
        self.scheduler = schedulers.build(name, METRIC, mode, epochs, earlier)
        self.epochs = epochs
        self.stopped: list[str] = []
        self.controller: Any = SimpleNamespace(stop_trial=self._stop, get_live_trials=lambda: [self._waiting])
        self._waiting = SimpleNamespace(status="PENDING")

    def _stop(self, trial: FakeTrial) -> None:
        self.stopped.append(trial.trial_id)
        trial.status = "TERMINATED"
        self.scheduler.on_trial_remove(self.controller, trial)  # type: ignore[arg-type]

    def add(self, name: str) -> FakeTrial:
        trial = FakeTrial(name, self.epochs)
        self.scheduler.on_trial_add(self.controller, trial)  # type: ignore[arg-type]
        return trial

    def report(self, trial: FakeTrial, epoch: int, value: float | None, *, ended: bool = False) -> str:
        result: dict[str, Any] = {"epoch": epoch, "ended": True} if ended else {"epoch": epoch}
        if value is not None:
            result[METRIC] = value
        decision = self.scheduler.on_trial_result(self.controller, trial, result)  # type: ignore[arg-type]
        if decision == PAUSE:
            trial.status = "PAUSED"
        elif decision == STOP or ended:
            trial.status = "TERMINATED"
            self.scheduler.on_trial_complete(self.controller, trial, result)  # type: ignore[arg-type]
        return decision

    def train(self, name: str, value: float) -> int:
        """Epochs that a trial with this value throughout runs, as an own report of its end comes after them."""
        trial = self.add(name)
        for epoch in range(1, self.epochs + 1):
            if self.report(trial, epoch, value) == STOP:
                return epoch
        assert self.report(trial, self.epochs + 1, value, ended=True) == GO_ON
        return self.epochs


def test_asha_stops_at_two_thirds_of_the_epochs_and_never_at_the_last() -> None:
    asha = Tuned("asha", 9)
    assert asha.train("first", 0.5) == 9
    assert asha.train("worse", 0.4) == 6
    assert asha.train("better", 0.6) == 9
    sinking = asha.add("sinking")
    values = [0.9, 0.9, 0.9, 0.9, 0.9, 0.1]
    assert [asha.report(sinking, epoch, value) for epoch, value in enumerate(values, 1)] == [GO_ON] * 5 + [STOP]
    falling = asha.add("falling")
    assert [asha.report(falling, epoch, 0.0 if epoch > 6 else 0.9) for epoch in range(1, 10)] == [GO_ON] * 9


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 8, 9, 10, 27, 28, 100])
@pytest.mark.parametrize("name", ["asha", "median"])
def test_no_trial_is_stopped_at_its_last_epoch(name: str, epochs: int) -> None:
    tuned = Tuned(name, epochs)
    for number in range(6):
        tuned.train(f"good-{number}", 0.5)
    trial = tuned.add("sinks at the end")
    decisions = [tuned.report(trial, epoch, 0.9 if epoch < epochs else 0.0) for epoch in range(1, epochs + 1)]
    assert decisions == [GO_ON] * epochs


def test_asha_goes_on_from_the_curves_of_before() -> None:
    earlier = [dict.fromkeys(range(1, 10), 0.5), dict.fromkeys(range(1, 7), 0.6), dict.fromkeys(range(1, 7), 0.2)]
    assert Tuned("asha", 9, earlier=earlier).train("new and bad", 0.3) == 6
    assert Tuned("asha", 9).train("new and bad", 0.3) == 9
    assert Tuned("asha", 9, earlier=earlier).train("new and good", 0.7) == 9
    lower = Tuned("asha", 9, "minimize", earlier)
    assert lower.train("new and bad", 0.7) == 6
    assert lower.train("new and good", 0.1) == 9


def test_median_stopping_needs_three_others() -> None:
    median = Tuned("median", 9)
    assert [median.train(str(value), value) for value in (0.5, 0.4, 0.6)] == [9, 9, 9]
    assert median.train("worse", 0.45) == 6
    assert median.train("better", 0.55) == 9


def test_hyperband_stops_the_worse_of_a_bracket_and_lets_the_others_reach_their_own_end() -> None:
    band = Tuned("hyperband", 10)
    free = [band.add(f"free-{number}") for number in range(3)]
    for trial in free:  # the first bracket stops no one
        assert [band.report(trial, epoch, 0.5) for epoch in range(1, 11)] == [GO_ON] * 10
    bracket = [band.add(str(number)) for number in range(5)]
    decisions = []
    for number, trial in enumerate(bracket):
        decisions.append([band.report(trial, epoch, number / 10) for epoch in range(1, 4)][-1])
    assert decisions == [PAUSE] * 4 + [GO_ON]
    assert band.stopped == ["0", "1", "2"]
    for trial in bracket[3:]:
        assert [band.report(trial, epoch, 0.5) for epoch in range(4, 11)] == [GO_ON] * 7


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_a_report_without_the_objective_is_passed_over(name: str) -> None:
    tuned = Tuned(name, 9)
    others = [tuned.add(str(number)) for number in range(9)]
    blind = tuned.add("blind")
    for epoch in range(1, 10):
        for number, trial in enumerate(others):
            if trial.status == "RUNNING":
                tuned.report(trial, epoch, number / 10)
        assert tuned.report(blind, epoch, None) == GO_ON
    assert tuned.report(blind, 10, None, ended=True) == GO_ON


def test_without_a_scheduler_all_run_to_their_end() -> None:
    fifo = Tuned("none", 3)
    assert [fifo.train(str(value), value) for value in (0.9, 0.1, 0.0)] == [3, 3, 3]
