"""Faces cut from sheets, judged and aligned, against a plain script: crop, detect, resize, one cell after the other."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_ray import cli
from fer_ray.bench import timing
from fer_ray.errors import UserError


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench sheets`."""
    parser = cli.Parser(
        "bench sheets",
        "Read a folder of sheets as `synthesize sheets` does, against a plain script: Pillow crops each cell, the same "
        "detector looks at it, and its largest face is resized. Counted are cells.",
        "python -m fer_ray.bench sheets DIR",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="sheets of 6x6 faces")
    timing.add_rounds_flag(parser)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench sheets`; returns the exit code."""
    options = parser().parse(arguments)
    from PIL import Image

    from fer_ray.data.readers.images import SUFFIXES
    from fer_ray.faces.detect import detect
    from fer_ray.faces.quality import Limits
    from fer_ray.synthesis import sheets

    grid, size = sheets.Grid(), 128
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.casefold() in SUFFIXES)
    if not paths:
        raise UserError(f"{options.folder} holds no images; expected sheets of 6x6 faces")
    # One label for all cells, so that both arms look at every one of them.
    found = [sheets.Sheet(path, path.name, ("happy",) * (grid.rows * grid.cols)) for path in paths]

    def plain() -> list[np.ndarray]:
        faces = []
        for path in paths:
            picture = Image.open(path).convert("RGB")
            width, height = picture.width / grid.cols, picture.height / grid.rows
            for row in range(grid.rows):
                for col in range(grid.cols):
                    left, top = round(col * width), round(row * height)
                    right, bottom = round((col + 1) * width), round((row + 1) * height)
                    cell = picture.crop((left, top, right, bottom))
                    for face in detect(np.asarray(cell))[:1]:
                        x0, y0, x1, y1 = face.box
                        cut = cell.crop((round(x0), round(y0), round(x1), round(y1)))
                        faces.append(np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS)))
        return faces

    def ours(num_threads: int) -> list[object]:
        return list(sheets.read_all(found, grid, Limits(), size, num_threads))

    timing.print_conditions(options.rounds)
    num_threads = os.cpu_count() or 1
    several = f"{num_threads} threads"
    arms = {"plain script": plain, "one thread": lambda: ours(1), several: lambda: ours(num_threads)}
    seconds = timing.race(arms, options.rounds)
    count = len(found) * grid.rows * grid.cols
    timing.print_comparison("sheets", seconds, "one thread", "plain script", count, "cells")
    timing.print_comparison("sheets", seconds, several, "plain script", count, "cells")
    return 0
