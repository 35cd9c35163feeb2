"""Images decoded into the cache, with all checks, against a plain script that decodes and stacks them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_ray import cli
from fer_ray.bench import timing
from fer_ray.bench.memory import write_faces


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench decode`."""
    parser = cli.Parser(
        "bench decode",
        "Read a folder of colour JPEGs as the cache does, against a plain script: Pillow, one file after the other.",
        "python -m fer_ray.bench decode --images 4000",
    )
    parser.add_argument("--images", type=cli.number(int, least=100), default=2000, help="default: 2000")
    parser.add_argument("--side", type=cli.number(int, least=32), default=224, help="pixels (default: 224)")
    timing.add_rounds_flag(parser)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench decode`; returns the exit code."""
    options = parser().parse(arguments)
    from PIL import Image

    from fer_ray.data import readers

    timing.print_conditions(options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_faces(folder, options.images, options.side)

        def plain() -> np.ndarray:
            images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.jpg"))]
            return np.stack(images)

        assert np.abs(readers.read(folder).images[0].astype(int) - plain()[0]).max() <= 3
        seconds = timing.race({"reader": lambda: readers.read(folder), "plain script": plain}, options.rounds)
        timing.print_comparison("decoding", seconds, "reader", "plain script", options.images)
    return 0
