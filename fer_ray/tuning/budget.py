"""What a sweep may cost: time, GPU-hours, money, training images. At its end the sweep stops in order."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune import Stopper

from fer_ray.cli import duration


@dataclass(frozen=True)
class Limits:
    """Limits of one command; None is no limit.

    Attributes:
        seconds: wall time since the start of the first trial.
        gpu_hours: hours times GPUs that trials hold.
        money, price: in one currency, and per GPU-hour.
        images: training images over all trials of the sweep, those of before and those that were stopped among them.
    """

    seconds: float | None = None
    gpu_hours: float | None = None
    money: float | None = None
    price: float | None = None
    images: int | None = None


class Budget(Stopper):
    """Tells Tune when to stop all trials. Trials that run keep their checkpoints, so that the sweep can go on."""

    def __init__(
        self,
        limits: Limits,
        *,
        gpus_in_use: Callable[[], float],
        images: Mapping[str, int],
        inherited: Mapping[str, int] | None = None,
    ) -> None:
        """`images` maps the runs of before to the training images that they saw; they may go on now. `inherited`, which
        may grow, maps copies of runs to those that their originals saw, which are in their counts.
        """
        self._limits, self._gpus_in_use = limits, gpus_in_use
        self._images = dict(images)
        self._inherited = inherited if inherited is not None else {}
        self._started = self._looked = time.monotonic()
        self._gpu_seconds = 0.0
        self._images_before = self.images
        self.reason: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it to restore an experiment, which is never done

    @property
    def images(self) -> int:
        """Training images so far, those of before included."""
        return sum(seen - self._inherited.get(run, 0) for run, seen in self._images.items())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune's hook: whether this trial alone is to stop."""
        if result.get("images_seen"):
            self._images[result["run"]] = result["images_seen"]
        return False

    def stop_all(self) -> bool:
        """Tune's hook, asked all the time: whether the sweep is to stop."""
        now = time.monotonic()
        self._gpu_seconds += (now - self._looked) * self._gpus_in_use()
        self._looked = now
        if self.reason is None:
            self.reason = self._reached(now - self._started)
        return self.reason is not None

    def seconds_left(self) -> float | None:
        """Until a limit ends the sweep, at the pace so far; None without one, or where nothing of it is spent yet."""
        limits, elapsed, images = self._limits, self._looked - self._started, self.images - self._images_before
        gpu_hours = [limits.gpu_hours] if limits.gpu_hours is not None else []
        if limits.money is not None and limits.price:
            gpu_hours.append(limits.money / limits.price)
        left = [limits.seconds - elapsed] if limits.seconds is not None else []
        if gpu_hours and self._gpu_seconds:
            left.append((3600 * min(gpu_hours) / self._gpu_seconds - 1) * elapsed)
        if limits.images is not None and images:
            left.append((limits.images - self.images) / images * elapsed)
        return max(0.0, min(left)) if left else None

    def _reached(self, seconds: float) -> str | None:
        limits, gpu_hours = self._limits, self._gpu_seconds / 3600
        if limits.seconds is not None and seconds >= limits.seconds:
            return f"its time of {duration(limits.seconds)}"
        if limits.gpu_hours is not None and gpu_hours >= limits.gpu_hours:
            return f"its {limits.gpu_hours:g} GPU-hours"
        if limits.money is not None and gpu_hours * (limits.price or 0) >= limits.money:
            return f"its money, {limits.money:g} at {limits.price:g} per GPU-hour"
        if limits.images is not None and self.images >= limits.images:
            return f"its {limits.images:,} training images"
        return None
