"""Each limit of a budget, by a clock that the test moves."""

from typing import Any

import pytest

from fer_ray.tuning import budget as module
from fer_ray.tuning.budget import Budget, Limits


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def budget(*, gpus: float = 0, before: dict[str, int] | None = None, **limits: Any) -> Budget:
    return Budget(Limits(**limits), gpus_in_use=lambda: gpus, images=before or {})


def test_without_a_limit_nothing_ends(clock: Clock) -> None:
    unlimited = budget(gpus=8)
    clock.now += 1e9
    assert not unlimited.stop_all()
    assert unlimited.reason is None


def test_wall_time_counts_from_the_start(clock: Clock) -> None:
    limited = budget(seconds=5400)
    clock.now += 5399
    assert not limited.stop_all()
    clock.now += 1
    assert limited.stop_all()
    assert limited.reason == "its time of 1 h 30 min"


def test_gpu_hours_are_those_that_trials_held(clock: Clock) -> None:
    held = [0.0]
    limited = Budget(Limits(gpu_hours=1), gpus_in_use=lambda: held[0], images={})
    clock.now += 7200  # none is held
    assert not limited.stop_all()
    held[0] = 4 * 0.5
    clock.now += 1799
    assert not limited.stop_all()
    clock.now += 1
    assert limited.stop_all()
    assert limited.reason == "its 1 GPU-hours"


def test_money_is_gpu_hours_times_their_price(clock: Clock) -> None:
    limited = budget(gpus=2, money=10, price=2.5)
    clock.now += 3600
    assert not limited.stop_all()
    clock.now += 3600
    assert limited.stop_all()
    assert limited.reason == "its money, 10 at 2.5 per GPU-hour"


def test_images_are_those_of_all_trials_and_of_before(clock: Clock) -> None:
    limited = budget(images=1000, before={"before": 300, "b": 200})
    limited("1", {"run": "a", "images_seen": 100})
    limited("1", {"run": "a", "images_seen": 200})  # so far, not since then
    limited("2", {"run": "b", "images_seen": 300})  # goes on, its images of before among these
    limited("2", {"run": "b", "images_seen": 400, "ended": True})
    assert limited.images == 900
    assert not limited.stop_all()
    limited("3", {"run": "c", "images_seen": 100})
    assert limited.stop_all()
    assert limited.reason == "its 1,000 training images"


def test_no_trial_is_stopped_alone_and_the_first_reason_stays(clock: Clock) -> None:
    limited = budget(seconds=10, images=100)
    assert limited("1", {"run": "a", "images_seen": 10**9}) is False
    assert limited.stop_all()
    clock.now += 100
    assert limited.stop_all()
    assert limited.reason == "its 100 training images"


def test_the_time_that_a_budget_leaves_is_that_at_the_pace_so_far(clock: Clock) -> None:
    assert budget(gpus=1).seconds_left() is None
    timed = budget(seconds=100, gpus=2, gpu_hours=1)
    held = budget(gpus=2, money=10, price=5, gpu_hours=3)
    counted = budget(images=1000, before={"before": 100})
    assert (held.seconds_left(), counted.seconds_left()) == (None, None), "nothing is spent yet"
    counted("1", {"run": "a", "images_seen": 300})
    clock.now += 40
    for one in (timed, held, counted):
        one.stop_all()
    assert timed.seconds_left() == 60
    assert held.seconds_left() == pytest.approx(2 * 3600 / 2 - 40)
    assert counted.seconds_left() == pytest.approx(600 / (300 / 40))


def test_images_that_a_copy_has_from_its_original_count_once(clock: Clock) -> None:
    inherited = {"copy": 300}
    limited = Budget(Limits(images=1000), gpus_in_use=lambda: 0, images={"copy": 500, "a": 300}, inherited=inherited)
    assert limited.images == 500
    inherited["second copy"] = 300
    limited("1", {"run": "second copy", "images_seen": 400})
    assert limited.images == 600
