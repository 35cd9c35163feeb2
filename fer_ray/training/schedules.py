"""Learning-rate schedules. All but plateau, which listens to the validation score, are functions of the step."""

import math
from typing import Any

from fer_ray.config import OptimizerConfig


def learning_rate_at(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of `step`, 0 <= step < total_steps.

    one_cycle: linear from 1/25 of the peak during the warm-up, then a cosine to 1e-4 of the peak (Smith & Topin 2018,
    with the constants of common implementations). cosine: linear from 0, then a cosine to 0 (Loshchilov & Hutter
    2017). constant: linear from 0, then the peak.
    """
    peak = config.learning_rate
    warmup_steps = config.warmup_fraction * total_steps
    start, end = (1 / 25, 1e-4) if config.schedule == "one_cycle" else (0.0, 0.0)
    # Midpoints, so that neither the first nor the last step is lost to a rate of 0.
    position = step + 0.5
    if position < warmup_steps:
        return peak * (start + (1 - start) * position / warmup_steps)
    if config.schedule == "constant":
        return peak
    progress = (position - warmup_steps) / (total_steps - warmup_steps)
    return peak * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress)))


class Schedule:
    """The learning rate over one phase, whose steps count from 0.

    step: the peak times `step_factor` for every `step_epochs` epochs that are over (torch's StepLR). plateau: the peak
    times `plateau_factor` for every `plateau_epochs` epochs in a row without a better validation score than the best
    so far (torch's ReduceLROnPlateau with `patience=plateau_epochs - 1, threshold=0`). Neither warms up. The others:
    `learning_rate_at`.
    """

    def __init__(self, config: OptimizerConfig, total_steps: int, steps_per_epoch: int, factor: float = 1.0) -> None:
        """A schedule of `total_steps` whose peak is `factor` times `config.learning_rate`."""
        self._config, self._factor = config, factor
        self._total_steps, self._steps_per_epoch = total_steps, steps_per_epoch
        self._best, self._bad_epochs, self._drops = -math.inf, 0, 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of `step`, 0 <= step < total_steps."""
        config = self._config
        if config.schedule == "step":
            drops = step // self._steps_per_epoch // config.step_epochs
            rate = config.learning_rate * config.step_factor**drops
        elif config.schedule == "plateau":
            rate = config.learning_rate * config.plateau_factor**self._drops
        else:
            rate = learning_rate_at(step, self._total_steps, config)
        return rate * self._factor

    def after_epoch(self, score: float) -> None:
        """Takes the validation score of an epoch, higher is better; plateau alone depends on it."""
        if score > self._best:
            self._best, self._bad_epochs = score, 0
            return
        self._bad_epochs += 1
        if self._bad_epochs == self._config.plateau_epochs:
            self._bad_epochs, self._drops = 0, self._drops + 1

    def state_dict(self) -> dict[str, Any]:
        """What `after_epoch` has left behind."""
        return {"best": self._best, "bad_epochs": self._bad_epochs, "drops": self._drops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same config."""
        self._best, self._bad_epochs, self._drops = state["best"], state["bad_epochs"], state["drops"]
