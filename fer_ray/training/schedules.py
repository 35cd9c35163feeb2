"""Learning-rate schedules as pure functions of the step."""

import math

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
