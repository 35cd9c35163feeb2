"""Before hours are spent: what a step costs, and one small pass through everything that could fail at the end."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.tuning.plan import Plan

TIMED_STEPS = 2
REHEARSAL_IMAGES = 64
BACKWARD_FACTOR = 3
"""A training step costs about three forward passes; evaluation is one."""


@dataclass(frozen=True)
class Cost:
    """Measured cost of a plan. `seconds` maps run id to the estimated seconds of one run."""

    seconds: dict[str, float]

    def wall_seconds(self, num_parallel: int) -> float:
        """Estimated wall time of all runs with `num_parallel` at once."""
        return max(sum(self.seconds.values()) / num_parallel, max(self.seconds.values(), default=0.0))


def measure(plan: Plan, configs: Sequence[RunConfig]) -> Cost:
    """Times steps of every network in this process, with one trial's threads, and scales them to whole runs."""
    import torch

    from fer_ray.models import zoo
    from fer_ray.training import optim
    from fer_ray.training import runtime as machine

    per_image: dict[tuple, float] = {}
    seconds = {}
    for config in configs:
        runtime = machine.resolve(config.runtime)
        size, batch_size = run.image_size(config, plan.experiment.real), config.training.batch_size
        key = (config.model.name, size, batch_size)
        if key not in per_image:
            model = zoo.build(config.model, len(plan.experiment.classes))
            model = model.to(memory_format=torch.channels_last).to(runtime.device)
            optimizer = optim.build(model, config.optimizer)
            images = torch.rand(batch_size, 3, size, size, device=runtime.device)
            images = images.contiguous(memory_format=torch.channels_last)
            best = np.inf
            for _ in range(1 + TIMED_STEPS):  # the first warms up
                started = time.perf_counter()
                with runtime.autocast():
                    loss = model(images).float().square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
                best = min(best, time.perf_counter() - started)
            per_image[key] = best / batch_size
        _, num_train_images = run.draw(config, plan.experiment)
        parts = plan.experiment.splits
        evaluated = config.training.epochs * len(parts.validation) + len(parts.test)
        work = config.training.epochs * num_train_images + evaluated / BACKWARD_FACTOR
        seconds[plan.run_id(config)] = work * per_image[key]
    return Cost(seconds)


def rehearse(plan: Plan, configs: Sequence[RunConfig], cost: Cost, root: Path, info: Mapping[str, Any]) -> float:
    """One step of the largest and the smallest cell, one evaluation, one table and one dashboard, in a scratch folder.

    Returns the peak memory of a run in MB, 0 where the system does not tell. Raises UserError naming the step that
    failed, so that nothing fails hours in.
    """
    from fer_ray.analysis import report

    parts = plan.experiment.splits
    few = replace(
        plan.experiment,
        splits=replace(parts, validation=parts.validation[:REHEARSAL_IMAGES], test=parts.test[:REHEARSAL_IMAGES]),
    )
    by_cost = sorted(configs, key=lambda config: cost.seconds[plan.run_id(config)])
    with tempfile.TemporaryDirectory(dir=root, prefix=".rehearsal-") as scratch:
        failed, peak = [], 0.0
        cells = dict.fromkeys((by_cost[-1], by_cost[0]))
        for config in cells:
            _, num_train_images = run.draw(config, plan.experiment)
            enough = math.ceil(1 / (config.data.real_fraction or 1))  # for one real face
            count = min(num_train_images, max(config.training.batch_size, enough))
            step = config.replace({"training.epochs": 1, "data.num_train_images": count})
            try:
                row = run.execute(step, Path(scratch), experiment=few)
            except (RuntimeError, ValueError, MemoryError) as error:
                raise UserError(
                    f"one step of {plan.run_id(config)} failed before the sweep started: {error}"
                ) from error
            peak = max(peak, row["peak_memory_mb"] or 0.0)
            if row["error"]:
                failed.append(f"{plan.run_id(config)}: {row['error']}")
        if len(failed) == len(cells):  # one cell that diverges is an outcome, and the others are compared
            raise UserError(f"one step of each of these failed before the sweep started: {'; '.join(failed)}")
        results.write_json(Path(scratch) / "sweep.json", dict(info))
        report.write_report(Path(scratch), console=Console(quiet=True))
    return peak
