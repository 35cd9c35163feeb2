"""What a sweep will cost, from a measured step: hours, disk, and how many trials a GPU holds."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from fer_ray import cli
from fer_ray.config import RunConfig
from fer_ray.tuning import machines, preflight
from fer_ray.tuning.plan import Plan
from fer_ray.tuning.preflight import Cost

MAX_MEASURED = 8
"""Examples of a search whose cost is measured; its proposals are taken to cost as much on average."""

STATE_BYTES = 4 * 6
"""Per parameter: weights, the best ones, those of the best epoch of a phase, two moments and an average, float32."""

GPU_SHARE = 0.9
"""Of a GPU's memory that trials may fill; the rest goes to the driver's context of each."""


def print_cost(
    plan: Plan,
    configs: Sequence[RunConfig],
    cost: Cost,
    num_trials: int,
    resources: machines.Resources,
    console: Console,
    *,
    is_small: bool,
    slots: int | None = None,
) -> None:
    """Says how long a sweep will take, at least."""
    parallel = slots or machines.slots(resources)
    if plan.is_search:
        mean = sum(cost.seconds.values()) / len(cost.seconds)
        seconds, count = mean * num_trials / parallel, f"{num_trials} proposals"
        more = "; more with further seeds, less with early stopping"
    else:
        seconds, count, more = cost.wall_seconds(parallel), f"{len(configs)} trials", ""
    text = f"{count}, at least {cli.duration(seconds)} with {parallel} at once, from steps measured here{more}"
    is_long = seconds > 3600 and not is_small
    console.print(text + "; --small, --epochs or --num-train-images make it shorter" if is_long else text)


def print_disk(cost: Cost, root: Path, slots: int, console: Console) -> None:
    """Says what the disk will hold: two checkpoints of each running trial, and the weights of the best three."""
    need = slots * 2 * cost.parameters * STATE_BYTES + 3 * cost.parameters * 4
    free = shutil.disk_usage(root).free
    text = f"disk: up to {need / 1e9:.1f} GB for checkpoints of {slots} trials at once and the best weights"
    is_short = "" if need < free else "; that is MORE THAN IS FREE: lower --concurrency, or take another --storage"
    console.print(f"{text}; {free / 1e9:.1f} GB are free{is_short}")


def print_packing(peak_mb: float, resources: machines.Resources, console: Console) -> None:
    """Says how many trials a GPU would hold by the rehearsal's measured peak of memory."""
    import torch

    if not resources.gpus_per_trial or not torch.cuda.is_available() or not peak_mb:
        return
    total_mb = torch.cuda.get_device_properties(0).total_memory / 1e6
    fit = max(1, int(GPU_SHARE * total_mb // peak_mb))
    if fit > 1 / resources.gpus_per_trial:
        console.print(
            f"a trial takes {peak_mb:,.0f} MB of the GPU's {total_mb:,.0f}: up to {fit} fit, "
            f"--gpus-per-trial {1 / fit:.3g}"
        )


def print_dry_run(
    plan: Plan, configs: Sequence[RunConfig], num_trials: int, resources: machines.Resources, console: Console
) -> None:
    """Prints what would run and its cost, from a measured step of each network; starts nothing."""
    measured = list(configs)[:MAX_MEASURED] if plan.is_search else configs
    cost = preflight.measure(plan, measured)
    headers = (Column("trial", no_wrap=True), "training images", "epochs", "batch", "about seconds")
    table = Table(*headers, title=plan.space.question)
    for config in measured:
        run_id, training = plan.run_id(config), config.training
        size = str(config.data.num_train_images)
        table.add_row(run_id, size, str(training.epochs), str(training.batch_size), f"{cost.seconds[run_id]:.0f}")
    cli.stdout_console().print(table)
    if plan.is_search:
        console.print("these are examples; a search proposes others")
    here = machines.local_resources()
    resolved = machines.resolve(resources, here)
    slots = machines.slots(resolved, here)
    print_cost(plan, measured, cost, num_trials, resolved, console, is_small=False, slots=slots)
    print_disk(cost, Path.cwd(), slots, console)
    console.print(
        f"each trial: {resolved.cpus_per_trial:g} CPUs, {resolved.gpus_per_trial:g} GPUs; nothing was started"
    )
