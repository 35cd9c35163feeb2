"""A search with a quarter of a grid's training steps against the grid: whose pick is better on fresh seeds?"""

import math
import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.special import stdtrit

from fer_ray import cli, results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.experiment import open_experiment

SHARE = 4
"""The grid's training images over those of a search."""

FRESH_SEEDS = (101, 102, 103, 104, 105)
METRIC = "validation_accuracy"
"""PublicTest, on which all picks were made, at seeds on which none was."""

LARGEST_LOSS = 0.01
LEVEL = 0.95

ARMS: dict[str, tuple[str, ...]] = {
    "grid": ("search_grid.py",),
    "TPE + ASHA": ("search_space.py", "--sampler", "tpe", "--scheduler", "asha"),
    "random search": ("search_space.py", "--sampler", "random", "--scheduler", "none"),
}
"""Name -> the space's file, beside this one, and the flags of its sweep."""


@dataclass(frozen=True)
class Arm:
    """What a sweep cost, and the run that it would have its user take."""

    num_images: int
    num_finished: int
    num_stopped: int
    pick: RunConfig
    picked_at: float


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences and its two-sided interval of Student's t at LEVEL."""

    mean: float
    low: float
    high: float


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench search`."""
    parser = cli.Parser(
        "bench search",
        f"Train a grid of 48 cells, TPE + ASHA and random search with 1/{SHARE} of its training images each (those of "
        f"stopped trials counted), and each one's pick on {len(FRESH_SEEDS)} fresh seeds. Run again, it goes on.",
        "python -m fer_ray.bench search --data fer2013.csv --out results/bench-search",
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="FER2013")
    parser.add_argument("--out", type=Path, default=Path("results/bench-search"), metavar="DIR")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument(
        "--concurrency", type=cli.number(int, least=1), default=2, metavar="N", help="runs at once (default: 2)"
    )
    cli.add_config_flags(parser, {})
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench search`; returns the exit code."""
    options = parser().parse(arguments)
    settings = [part for text in options.settings for part in ("--set", text)]
    common = [
        *("--data", options.data, "--device", options.device, "--concurrency", str(options.concurrency)),
        *("--storage", str(options.out), *settings),
    ]
    arms: dict[str, Arm] = {}
    for name, (space, *flags) in ARMS.items():
        folder = name.replace(" + ", "-").replace(" ", "-").casefold()
        budget = ("--image-budget", str(_budget(arms["grid"], options.concurrency))) if arms else ()
        _sweep(["--space", str(Path(__file__).with_name(space)), "--name", folder, *flags, *budget, *common])
        arms[name] = read_arm(options.out / folder)
    scores = score_again({name: arm.pick for name, arm in arms.items()}, options.out / "fresh", options.concurrency)
    _print(arms, scores)
    return 0


def read_arm(root: Path) -> Arm:
    """A sweep's cost and pick: of a grid the cell best on METRIC, of a search what its report calls the best.

    Raises UserError where nothing has finished.
    """
    from fer_ray.analysis import search

    sweep = results.load(root)
    status = sweep.trials["status"]
    finished = sweep.trials[status == results.FINISHED].dropna(subset=[METRIC])
    if finished.empty:
        raise UserError(f"{root}: no trial has finished, so there is none to pick")
    if sweep.info.get("kind") == "search":
        found = search.read_search(root)
        best = search.best(found)
        if best is None:
            raise UserError(f"{root}: no proposal was trained to its end, so there is none to pick")
        chosen, score = best.runs[0].id, found.mean(best)
    else:
        top = finished.loc[finished[METRIC].idxmax()]
        chosen, score = top["id"], float(top[METRIC])
    config = (root / "trials" / chosen / "config.json").read_text(encoding="utf-8")
    return Arm(
        num_images=int(sweep.trials["images_seen"].fillna(0).sum()),
        num_finished=len(finished),
        num_stopped=int((status == results.STOPPED).sum()),
        pick=RunConfig.model_validate_json(config),
        picked_at=score,
    )


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Mean of ours - theirs, paired by place, with its interval. Raises ValueError for fewer than two pairs."""
    values = np.subtract(ours, theirs)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two pairs, got {len(values)}")
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    return Difference(mean, mean - half, mean + half)


def _budget(grid: Arm, concurrency: int) -> int:
    """Training images of a search: as a sweep ends after the epochs that run, room is left for one in each run."""
    in_flight = grid.pick.data.num_train_images
    assert isinstance(in_flight, int)
    return grid.num_images // SHARE - concurrency * in_flight


def _sweep(arguments: list[str]) -> None:
    print(f"python -m fer_ray.sweep {' '.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "fer_ray.sweep", *arguments], stdout=subprocess.DEVNULL).returncode
    if code not in (0, cli.FAILED_TRIALS):  # a trial that diverges is a bad setting, and no reason to stop
        raise UserError("the sweep ended with the error above; put it right, and the same command goes on")


def score_again(picks: dict[str, RunConfig], out: Path, num_workers: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of each pick at each fresh seed. Runs of before are kept, and arms with one pick share its runs."""
    asked = {name: [pick.replace({"training.seed": seed}) for seed in FRESH_SEEDS] for name, pick in picks.items()}
    experiment = open_experiment(picks["grid"])
    configs = {config.run_id(experiment.signature(config)): config for group in asked.values() for config in group}
    rows = {row["id"]: row for row in (results.read_rows(out) if out.exists() else ())}
    missing = [config for run_id, config in configs.items() if run_id not in rows]
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool:
        rows |= {row["id"]: row for row in pool.map(run.execute, missing, [out] * len(missing))}
    return {name: [rows[config.run_id(experiment.signature(config))] for config in asked[name]] for name in asked}


def _print(arms: dict[str, Arm], scored: dict[str, list[dict[str, Any]]]) -> None:
    console = cli.stdout_console()
    images = arms["grid"].num_images
    table = Table(
        title=f"PublicTest accuracy of each arm's pick, chosen at seed 0 and trained again at {len(FRESH_SEEDS)}"
    )
    for header in ("", "training images", "of the grid's", "runs, stopped", "when picked", "mean", "sd", "macro F1"):
        table.add_column(header, justify="right" if header else "left")
    for name, arm in arms.items():
        fresh = [row[METRIC] for row in scored[name]]
        table.add_row(
            name,
            f"{arm.num_images:,}",
            f"{arm.num_images / images:.3f}",
            f"{arm.num_finished + arm.num_stopped}, {arm.num_stopped}",
            f"{arm.picked_at:.4f}",
            f"{np.mean(fresh):.4f}",
            f"{np.std(fresh, ddof=1):.4f}",
            f"{np.mean([row['validation_macro_f1'] for row in scored[name]]):.4f}",
        )
    console.print(table)
    for name, arm in arms.items():
        optimizer = arm.pick.optimizer
        print(
            f"{name} picks {optimizer.name} {optimizer.learning_rate:.3g}, decay {optimizer.weight_decay:.3g}, "
            f"augmentation {arm.pick.augmentation.preset}"
        )
    for name in arms:
        if name != "grid":
            found = difference([row[METRIC] for row in scored[name]], [row[METRIC] for row in scored["grid"]])
            verdict = "is excluded" if found.low > -LARGEST_LOSS else "is not excluded"
            print(
                f"{name} less grid, paired by seed: {found.mean:+.4f} ({LEVEL:.0%} interval {found.low:+.4f} to "
                f"{found.high:+.4f}); a loss above {LARGEST_LOSS:g} {verdict}"
            )
