"""What is mended of Ray Tune, on the parts of it that are concerned."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from fer_ray.tuning import ray_repairs


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """The failures that Ray's own method is told of."""
    failures: list[Exception] = []
    monkeypatch.setattr(
        ray_repairs, "_process_trial_failure", lambda self, trial, exception: failures.append(exception)
    )
    monkeypatch.setattr(TuneController, "_process_trial_failure", TuneController._process_trial_failure)
    ray_repairs.count_deaths_once()
    return failures


def test_the_second_word_of_a_death_does_not_end_a_trial_that_waits_for_another_worker(told: list[Exception]) -> None:
    trial = type("Waiting", (), {"status": Trial.PENDING})()
    controller = SimpleNamespace(_resetting_trials={trial})
    TuneController._process_trial_failure(controller, trial, RayActorError())
    assert told == []
    assert not controller._resetting_trials, "it may be given a worker again"


@pytest.mark.parametrize(
    ("status", "failure"), [(Trial.RUNNING, RayActorError()), (Trial.PENDING, ValueError("reset failed"))]
)
def test_any_other_failure_is_ray_s_to_handle(told: list[Exception], status: str, failure: Exception) -> None:
    TuneController._process_trial_failure(SimpleNamespace(), SimpleNamespace(status=status), failure)
    assert told == [failure]
