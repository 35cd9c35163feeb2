"""What the measurements share: arms raced in random order, and figures with their spread."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fer_ray import cli


def add_rounds_flag(parser: cli.Parser) -> None:
    """Adds `--rounds`."""
    parser.add_argument("--rounds", type=cli.number(int, least=1), default=5, help="measured rounds (default: 5)")


def print_conditions(rounds: int) -> None:
    """Cores, load and rounds, in one line: without them a figure says little."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}; median (minimum to maximum) of {rounds} rounds")


def race(arms: Mapping[str, Callable[[], Any]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Seconds of each arm in each round; the arms of a round run in random order, after a warm-up of each."""
    rng = np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm()
    for _ in range(rounds):
        for name in rng.permutation(list(arms)).tolist():
            started = time.perf_counter()
            arms[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: list[float], digits: int = 2) -> str:
    """`median (minimum to maximum)`."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_comparison(
    name: str, seconds: Mapping[str, list[float]], ours: str, theirs: str, count: int, what: str = "images"
) -> None:
    """Images (or `what`) per second of two arms that both handle `count` images, and the ratio round by round."""
    first, second = ([count / value for value in seconds[arm]] for arm in (ours, theirs))
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    print(f"{name}: {ours} {spread(first, 0)} {what}/s, {theirs} {spread(second, 0)} {what}/s; ratio {spread(ratios)}")
