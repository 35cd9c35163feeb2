"""Early stopping by Ray Tune's schedulers, for searches alone: in a factorial design it would censor cells."""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

SCHEDULERS = ("none", "asha", "hyperband", "median")
PAUSING = ("hyperband",)
"""Those that stop a trial and go on with it later."""

REDUCTION = 3
"""Of that many trials at a rung, one goes on."""

Curve = Mapping[int, float]
"""Epoch -> the objective."""


class _BeforeTheEnd(TrialScheduler):
    """A scheduler that judges no report without the objective, and none from a run's last epoch on: a run that is
    stopped there has ended, and would count as both finished and stopped.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        last = trial.config["cell"]["config"]["training.epochs"]
        if self.metric not in result or result["epoch"] >= last:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)


class _InOrder(FIFOScheduler):
    """First come, first served, and a trial whose worker is starting waits for it.

    Ray 2.60 would give it the next worker that comes free, and end the one that starts: where trials end more often
    than a worker takes to start, a node that joins, or one whose worker died, would never get a trial.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        controller = tune_controller._tune_controller
        starting = {controller._actor_to_trial.get(actor) for actor in controller._actor_manager.live_actors}
        pending = (trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING)
        return next((trial for trial in pending if trial not in starting), None)


class _Asha(_BeforeTheEnd, _InOrder, AsyncHyperBandScheduler):
    pass


class _HyperBand(_BeforeTheEnd, HyperBandScheduler):
    pass


class _Median(_BeforeTheEnd, _InOrder, MedianStoppingRule):
    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if self.metric in result:
            super().on_trial_complete(tune_controller, trial, result)


def build(name: str, metric: str, mode: str, max_epochs: int, earlier: Sequence[Curve] = ()) -> TrialScheduler:
    """A scheduler by its name.

    `asha` (Li et al. 2018) and `hyperband` (Li et al. 2017) compare trials at rungs. That of `asha` is at two thirds of
    the epochs: on FER2013, with rates that warm up and anneal over 6 epochs, the ranks of 48 settings by validation
    accuracy correlated with those at the end by .39, .16, .71 and .88 after epochs 2 to 5 (`bench search`). `median`
    (Golovin et al. 2017) stops a trial whose best value is below the median of the others' means. None of them
    is asked after the last epoch of a run, which has ended.

    Args:
        mode: "maximize" or "minimize".
        earlier: curves of the trials of before, which ASHA goes on from.
    """
    common: dict[str, Any] = {"time_attr": "epoch", "metric": metric, "mode": {"maximize": "max"}.get(mode, "min")}
    grace = max(1, math.ceil(max_epochs * 2 / 3))
    if name == "asha":
        scheduler = _Asha(**common, max_t=max_epochs, grace_period=grace, reduction_factor=REDUCTION)
        for number, curve in enumerate(earlier):
            _recall(scheduler, number, curve, sign=1 if mode == "maximize" else -1)
        return scheduler
    if name == "hyperband":
        # The best of a bracket go on to their own end; Ray would stop them at its last rung, which may lie before it.
        return _HyperBand(**common, max_t=max_epochs, reduction_factor=REDUCTION, stop_last_trials=False)
    if name == "median":
        never: Any = math.inf  # it would pause those that it cannot judge yet
        return _Median(**common, grace_period=grace, min_samples_required=REDUCTION, min_time_slice=never)
    return in_order()


def in_order() -> TrialScheduler:
    """Stops nothing: every trial runs to its end, in the order of the list."""
    return _InOrder()


def _recall(scheduler: AsyncHyperBandScheduler, number: int, curve: Curve, sign: int) -> None:
    """Puts a trial of before on the rungs that it reached; ASHA has no way of its own to go on from results."""
    past: Any = SimpleNamespace(trial_id=f"earlier-{number}")
    for epoch in sorted(curve):
        scheduler._brackets[0].on_result(past, epoch, sign * curve[epoch])
