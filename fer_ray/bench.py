"""Speed and memory, measured on the machine at hand.

`data`: first and later use of a data set, and the private memory that it adds to concurrent runs.
`step`: training steps of each network against the same steps on one batch that stays in memory (the limit).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fer_ray import cli
from fer_ray.config import RunConfig
from fer_ray.errors import UserError

PROCESSES = 3
STEPS = 5


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench`."""
    parser = cli.Parser(
        "bench",
        "Measure speed and memory here. Compare ratios within one run; absolute times vary with the machine's load.",
        "python -m fer_ray.bench data --data fer2013.csv --rounds 5",
    )
    parser.add_argument("what", choices=("data", "step"), help="data: opening and memory; step: training steps")
    parser.add_argument("--data", default="demo", metavar="PATH", help="data set (default: demo)")
    parser.add_argument("--models", metavar="A,B,...", help="networks of `step` (default: ResNet18)")
    parser.add_argument("--image-size", type=cli.number(int, least=32), default=48, help="pixels (default: 48)")
    parser.add_argument("--batch-size", type=cli.number(int, least=2), default=64, help="images (default: 64)")
    parser.add_argument("--threads", type=cli.number(int, least=1), default=1, help="CPU threads (default: 1)")
    parser.add_argument("--rounds", type=cli.number(int, least=1), default=5, help="measured rounds (default: 5)")
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench`; returns the exit code."""
    options = parser().parse(arguments)
    load = os.getloadavg()[0]
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}; median (minimum to maximum) of {options.rounds} rounds"
    )
    if options.what == "data":
        _data(options.data, options.rounds)
    else:
        _steps(options)
    return 0


def _data(source: str, rounds: int) -> None:
    """First use into an empty cache and later use, each in a fresh process; then memory of processes side by side."""
    first, later = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            first.append(_child(source, cache)["seconds"])
            later.append(_child(source, cache)["seconds"])
    print(f"first use  {_spread(first)} s")
    print(f"later use  {_spread(later, 4)} s")
    if not Path("/proc/self/smaps_rollup").exists():
        print("private memory: this system does not tell")
        return
    with tempfile.TemporaryDirectory() as cache:
        _child(source, cache)
        running = [_start(source, cache) for _ in range(PROCESSES)]
        added = [_answer(process)["private_kb"] / 1024 for process in running]
    print(
        f"Private_Dirty added in each of {PROCESSES} concurrent processes: {', '.join(f'{mb:.2f}' for mb in added)} MB"
    )


_CHILD = """
import json, re, sys, time
from pathlib import Path
from fer_ray.data import splits
from fer_ray.data.store import open_dataset
def private():
    rollup = Path("/proc/self/smaps_rollup")
    return int(re.search(r"Private_Dirty:\\s+(\\d+)", rollup.read_text())[1]) if rollup.exists() else 0
before, started = private(), time.perf_counter()
dataset = open_dataset(sys.argv[1])
seconds = time.perf_counter() - started
batch_sum = sum(int(dataset.images[start:start + 256].sum()) for start in range(0, len(dataset.images), 256))
print(json.dumps({"seconds": seconds, "private_kb": private() - before, "sum": batch_sum}))
"""


def _start(source: str, cache: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"FER_RAY_CACHE": cache}
    command = [sys.executable, "-c", _CHILD, source]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, error = process.communicate()
    if process.returncode:
        raise UserError(error.strip().splitlines()[-1].removeprefix("fer_ray.errors.UserError: "))
    return json.loads(out)


def _child(source: str, cache: str) -> dict[str, Any]:
    return _answer(_start(source, cache))


def _steps(options: Any) -> None:
    """Whole steps (gather, augment, forward, backward, optimizer) against steps on a fixed batch, in random order."""
    import torch

    from fer_ray import run
    from fer_ray.data import augment
    from fer_ray.data.batches import Batches
    from fer_ray.models import zoo
    from fer_ray.training import loop, optim
    from fer_ray.training import runtime as machine

    names = cli.split_list(options.models) if options.models else ["ResNet18"]
    for name in names:
        zoo.check_name(name)
    config = RunConfig.from_flat({"data.source": options.data, "runtime.threads": options.threads})
    runtime = machine.resolve(config.runtime)
    experiment = run.open_experiment(config)
    batches = Batches(experiment.real, None, size=options.image_size, normalization="image", device=runtime.device)
    augmentation, generator = augment.PRESETS["standard"], torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    for name in names:
        model = zoo.build(config.replace({"model.name": name}).model, len(experiment.classes))
        model = model.to(memory_format=torch.channels_last).to(runtime.device).train()
        optimizer = optim.build(model, config.optimizer)
        target = torch.zeros(options.batch_size, dtype=torch.long, device=runtime.device)

        def draw() -> np.ndarray:
            return rng.choice(experiment.splits.train, options.batch_size)

        def fresh() -> torch.Tensor:
            return batches(draw(), augmentation, generator)

        fixed = batches(draw())
        arms: dict[str, Callable[[], Any]] = {"whole": fresh, "fixed": partial(torch.Tensor.contiguous, fixed)}

        def step(images: torch.Tensor, model: Any = model, optimizer: Any = optimizer, target: Any = target) -> None:
            loop.train_step(model, optimizer, images, target, config.training, runtime)[0].item()

        speeds = _race(step, arms, options.rounds, options.batch_size, rng)
        ratios = [whole / fixed for whole, fixed in zip(speeds["whole"], speeds["fixed"], strict=True)]
        print(f"{name}: {_spread(speeds['whole'], 0)} images/s; against the fixed batch {_spread(ratios)}")


def _race(
    step: Callable[[Any], None],
    arms: dict[str, Callable[[], Any]],
    rounds: int,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, list[float]]:
    """Images per second of each arm in each round; the arms of a round run in random order, after a warm-up."""
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    step(arms["whole"]())
    for _ in range(rounds):
        for name in rng.permutation(list(arms)).tolist():
            started = time.perf_counter()
            for _ in range(STEPS):
                step(arms[name]())
            speeds[name].append(STEPS * batch_size / (time.perf_counter() - started))
    return speeds


def _spread(values: list[float], digits: int = 2) -> str:
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    cli.main(command)
