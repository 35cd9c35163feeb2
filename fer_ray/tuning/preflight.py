"""Before hours are spent: what a step costs, and one small pass through everything that could fail at the end."""

import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, ProposedRun, write_proposal
from fer_ray.run_data import image_size, normalization
from fer_ray.space import Search
from fer_ray.tuning.plan import Plan

TIMED_STEPS = 3
REHEARSAL_IMAGES = 256
"""As many as a batch of the evaluation, so that the peak of memory is a trial's."""

BACKWARD_FACTOR = 3
"""A training step costs about three forward passes; evaluation is one."""


@dataclass(frozen=True)
class Cost:
    """Measured cost of a plan: run id -> estimated seconds of one run, and the parameters of the largest network."""

    seconds: dict[str, float]
    parameters: int = 0

    def wall_seconds(self, num_parallel: int) -> float:
        """Estimated wall time of all runs with `num_parallel` at once."""
        return max(sum(self.seconds.values()) / num_parallel, max(self.seconds.values(), default=0.0))


def measure(plan: Plan, configs: Sequence[RunConfig]) -> Cost:
    """Times steps of every network in this process, with one trial's threads, and scales them to whole runs.

    What runs beside it, the start of workers and the writing of files come on top.
    """
    import torch

    from fer_ray.data import augment
    from fer_ray.data.batches import Batches
    from fer_ray.models import zoo
    from fer_ray.training import runtime as machine
    from fer_ray.training import tasks
    from fer_ray.training.step import Stepper

    real = plan.experiment.real
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    per_image: dict[tuple, float] = {}
    seconds = {}
    parameters = 0
    for config in configs:
        parts = plan.of(config).parts(config)
        runtime = machine.resolve(config.runtime)
        size, batch_size = image_size(config, real), config.training.batch_size
        key = (config.model.name, size, batch_size)
        if key not in per_image:
            experiment = plan.of(config)
            counts = np.bincount(real.labels[parts.train], minlength=len(experiment.classes))
            task = tasks.build(config, experiment.classes, counts)
            network = runtime.place(zoo.build(config.model, task.num_classes, task.num_affect, size))
            parameters = max(parameters, sum(p.numel() for p in network.parameters()))
            batches = Batches(
                [real],
                size=size,
                normalization=normalization(config),
                channels=config.model.channels,
                device=runtime.device,
            )
            augmentation = augment.resolve(config.augmentation)
            targets = task.targets(real.labels.astype(np.int64), real.targets, real.valence, real.arousal)
            stepper = Stepper(network, task.loss, config, runtime)
            times = []
            for _ in range(1 + TIMED_STEPS):
                started = time.perf_counter()
                index = rng.choice(parts.train, batch_size)
                target = targets[torch.from_numpy(index)].to(runtime.device)
                loss, _ = stepper.step(batches(index, augmentation, generator), target)
                loss.item()
                times.append(time.perf_counter() - started)
            per_image[key] = float(np.median(times[1:])) / batch_size  # the first warms up
        num_train_images = config.data.num_train_images
        assert num_train_images != "auto", "a plan has decided N"
        evaluated = config.training.epochs * len(parts.validation) + sum(
            len(test.index) for test in parts.tests.values()
        )
        work = config.training.epochs * num_train_images + evaluated / BACKWARD_FACTOR
        seconds[plan.run_id(config)] = work * per_image[key]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the trials need it
    return Cost(seconds, parameters)


def rehearse(plan: Plan, configs: Sequence[RunConfig], cost: Cost, root: Path, info: Mapping[str, Any]) -> float:
    """One step of the largest and the smallest cell, one evaluation, one table and one dashboard, in a scratch folder.

    Returns the peak memory of a run in MB, 0 where the system does not tell. Raises UserError naming the step that
    failed, so that nothing fails hours in.
    """
    from fer_ray.analysis import report

    by_cost = sorted(configs, key=lambda config: cost.seconds[plan.run_id(config)])
    with tempfile.TemporaryDirectory(dir=root, prefix=".rehearsal-") as scratch:
        rows: list[dict[str, Any]] = []
        cells = dict.fromkeys((by_cost[-1], by_cost[0]))
        for config in cells:
            enough = math.ceil(1 / (config.data.real_fraction or 1))  # for one real face
            count = max(config.training.batch_size, enough)
            if isinstance(config.data.num_train_images, int):
                count = min(config.data.num_train_images, count)
            step = config.replace({"training.epochs": 1, "data.num_train_images": count})
            try:
                few = replace(plan.of(config), max_evaluated=REHEARSAL_IMAGES)
                tags = {"proposal": len(rows)} if plan.is_search else plan.tags(config)
                rows.append(run.execute(step, Path(scratch), experiment=few, tags=tags))
            except (RuntimeError, ValueError, MemoryError) as error:
                raise UserError(
                    f"one step of {plan.run_id(config)} failed before the sweep started: {error}"
                ) from error
        failed = [f"{row['id']}: {row['error']}" for row in rows if row["error"]]
        if len(failed) == len(cells):  # one cell that diverges is an outcome, and the others are compared
            raise UserError(f"one step of each of these failed before the sweep started: {'; '.join(failed)}")
        results.write_json(Path(scratch) / "sweep.json", dict(info))
        for proposal in _as_proposals(plan, cells, rows):
            write_proposal(Path(scratch), proposal)
        report.write_report(Path(scratch), console=Console(quiet=True))
    return max(row["peak_memory_mb"] or 0.0 for row in rows)


def _as_proposals(plan: Plan, configs: Iterable[RunConfig], rows: Sequence[Mapping[str, Any]]) -> list[Proposal]:
    """The rehearsed runs as a search would record them; none of a factorial design."""
    if not isinstance(plan.space, Search):
        return []
    objectives = plan.space.objectives
    return [
        Proposal(
            number=number,
            source="sampler",
            params=plan.points[config].params,
            distributions=plan.points[config].distributions,
            config=plan.points[config].values,
            state="failed" if row["error"] else "complete",
            runs=(ProposedRun(row["id"], row["training.seed"], row["status"]),),
            values=None if row["error"] else [float(row.get(name) or 0) for name in objectives],
        )
        for number, (config, row) in enumerate(zip(configs, rows, strict=True))
    ]
