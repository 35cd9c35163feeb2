"""Training steps of each network against the same steps on one batch that stays in memory, which is the limit."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from fer_ray import cli
from fer_ray.bench import timing
from fer_ray.config import RunConfig

STEPS = 5


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench step`."""
    parser = cli.Parser(
        "bench step",
        "Whole training steps (gather, augment, forward, backward, optimizer) against steps on one fixed batch.",
        "python -m fer_ray.bench step --data fer2013.csv --models ResNet18,MobileNetV3-Large",
    )
    parser.add_argument("--data", default="demo", metavar="PATH", help="data set (default: demo)")
    parser.add_argument("--models", metavar="A,B,...", help="networks (default: ResNet18)")
    parser.add_argument("--image-size", type=cli.number(int, least=32), default=48, help="pixels (default: 48)")
    parser.add_argument("--batch-size", type=cli.number(int, least=2), default=64, help="images (default: 64)")
    parser.add_argument("--threads", type=cli.number(int, least=1), default=1, help="CPU threads (default: 1)")
    timing.add_rounds_flag(parser)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench step`; returns the exit code."""
    options = parser().parse(arguments)
    timing.print_conditions(options.rounds)
    import torch

    from fer_ray.data import augment
    from fer_ray.data.batches import Batches
    from fer_ray.experiment import open_experiment
    from fer_ray.models import zoo
    from fer_ray.training import runtime as machine
    from fer_ray.training import tasks
    from fer_ray.training.step import Stepper

    names = cli.split_list(options.models) if options.models else ["ResNet18"]
    for name in names:
        zoo.check_name(name)
    config = RunConfig.from_flat({"data.source": options.data, "runtime.threads": options.threads})
    runtime = machine.resolve(config.runtime)
    experiment = open_experiment(config)
    train = experiment.parts(config).train
    counts = np.bincount(experiment.real.labels[train], minlength=len(experiment.classes))
    task = tasks.build(config, experiment.classes, counts)
    batches = Batches([experiment.real], size=options.image_size, normalization="image", device=runtime.device)
    augmentation, generator = augment.PRESETS["standard"], torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    for name in names:
        network = zoo.build(config.replace({"model.name": name}).model, task.num_classes, 0, options.image_size)
        stepper = Stepper(runtime.place(network).train(), task.loss, config, runtime)
        target = torch.zeros(options.batch_size, dtype=torch.long, device=runtime.device)

        def draw() -> np.ndarray:
            return rng.choice(train, options.batch_size)

        def fresh() -> torch.Tensor:
            return batches(draw(), augmentation, generator)

        def steps(
            images: Callable[[], torch.Tensor], stepper: Stepper = stepper, target: torch.Tensor = target
        ) -> None:
            for _ in range(STEPS):
                stepper.step(images(), target)[0].item()

        fixed = batches(draw())
        arms = {"whole steps": partial(steps, fresh), "on a fixed batch": partial(steps, fixed.contiguous)}
        seconds = timing.race(arms, options.rounds)
        timing.print_comparison(name, seconds, "whole steps", "on a fixed batch", STEPS * options.batch_size)
    return 0
