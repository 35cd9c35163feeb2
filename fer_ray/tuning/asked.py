"""What the flags of `fer_ray.sweep` ask for: how to search, what a trial wants, what all may cost."""

from typing import Any

from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.space import Search
from fer_ray.tuning import machines, members
from fer_ray.tuning.budget import Limits
from fer_ray.tuning.execution import Strategy
from fer_ray.tuning.plan import Plan


def strategy(plan: Plan, options: Any) -> Strategy:
    """How a search proposes and stops. Raises UserError for flags that contradict each other."""
    space = plan.space
    if not isinstance(space, Search):
        return Strategy()
    several = len(space.objectives) > 1
    scheduler = options.scheduler or "none"
    if several and scheduler != "none":
        raise UserError(f"--scheduler {scheduler}: with several objectives there is no order to stop by; leave it out")
    if several and options.sampler == "gp":
        raise UserError("--sampler gp: takes one objective; with several take nsga2, tpe or random")
    if "gpu_seconds" in space.objectives and not options.gpus_per_trial:
        raise UserError("--objectives gpu_seconds: needs trials on a GPU; take train_seconds, or give --gpus-per-trial")
    if scheduler == "pbt":
        return _population(space, plan.base, options)
    sampler = options.sampler or ("nsga2" if several else "tpe")
    return Strategy(sampler, scheduler, options.trials or space.trials, options.warm_start)


def _population(space: Search, base: RunConfig, options: Any) -> Strategy:
    if options.sampler not in (None, "random"):
        raise UserError(f"--sampler {options.sampler}: a population begins at random points; leave it out with pbt")
    if options.warm_start is not None:
        raise UserError("--warm-start: a population begins at random points; leave it out with --scheduler pbt")
    size = options.trials or members.SIZE
    members.check(space, base, size)
    return Strategy("random", "pbt", size)


def limits(options: Any, resources: machines.Resources) -> Limits:
    """What the sweep may cost. Raises UserError for money without a price, and for GPU time where no GPU is held."""
    if (options.money is None) != (options.price_per_gpu_hour is None):
        raise UserError("--money and --price-per-gpu-hour: each needs the other")
    if (options.money or options.gpu_hours) and not resources.gpus_per_trial:
        raise UserError(
            "--gpu-hours and --money count what trials hold of GPUs, and these hold none; see --time-budget"
        )
    return Limits(
        options.time_budget, options.gpu_hours, options.money, options.price_per_gpu_hour, options.image_budget
    )


def resources(options: Any, config: RunConfig) -> machines.Resources:
    """What a trial wants, as far as it is said."""
    threads = config.runtime.threads
    cpus = options.cpus_per_trial or (threads if isinstance(threads, int) else 1)
    gpus = 0 if config.runtime.device == "cpu" else options.gpus_per_trial
    return machines.Resources(cpus, gpus, options.concurrency)
