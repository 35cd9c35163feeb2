"""A fault of Ray Tune that a sweep on a cluster runs into, mended in place."""

from typing import Any

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

_process_trial_failure = TuneController._process_trial_failure


def count_deaths_once() -> None:
    """Lets a trial go on whose worker died while it was made ready for the trial.

    Ray 2.60 handles such a death twice: once as the worker's, after which the trial waits for another, and once as that
    of the call that was to reset it, which then ends the trial for good, whatever `FailureConfig` allows.
    """
    TuneController._process_trial_failure = _process_once  # type: ignore[method-assign]


def _process_once(self: TuneController, trial: Trial, exception: Any) -> None:
    if trial.status == Trial.PENDING and isinstance(exception, RayActorError):
        self._resetting_trials.discard(trial)  # for as long as it is among these, it gets no worker
        return
    _process_trial_failure(self, trial, exception)
