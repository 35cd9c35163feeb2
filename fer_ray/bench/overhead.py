"""What Ray Tune adds to a trial beyond its own work, and a sweep against the same trainings in bare processes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_ray import cli, results
from fer_ray.bench import timing
from fer_ray.errors import UserError

SPACE, CELLS = "smoke", 2
"""A space of small runs on demo faces, and its cells for each seed."""

LONG_IMAGES = 1024


@dataclass(frozen=True)
class Span:
    """When the runs of a results folder worked. The start of processes and their imports are before it.

    Attributes:
        seconds: from the start of the first run to the end of the last.
        work: seconds of each run.
        num_images: training images of all runs.
    """

    seconds: float
    work: tuple[float, ...]
    num_images: int

    @property
    def speed(self) -> float:
        """Training images per second, of all runs together."""
        return self.num_images / self.seconds

    def added(self, num_processes: int) -> float:
        """Seconds per run in which a process had no run to work on, from the first start to the last end."""
        return (self.seconds * num_processes - sum(self.work)) / len(self.work)


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench overhead`."""
    parser = cli.Parser(
        "bench overhead",
        "Short trials: the time that Tune adds between them. Then long trials: training images/s of a sweep against "
        "bare processes of one thread that train the same, in random order within a round.",
        "python -m fer_ray.bench overhead --rounds 3",
    )
    parser.add_argument("--trials", type=cli.number(int, least=4), default=36, metavar="N", help="short (default: 36)")
    parser.add_argument("--epochs", type=cli.number(int, least=1), default=12, help="of a long trial (default: 12)")
    parser.add_argument(
        "--processes", type=cli.number(int, least=1), default=2, metavar="N", help="at once (default: 2)"
    )
    timing.add_rounds_flag(parser)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench overhead`; returns the exit code."""
    options = parser().parse(arguments)
    num_processes, rounds = options.processes, range(options.rounds)
    timing.print_conditions(options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        short = [_sweep(folder / f"short-{i}", options.trials // CELLS, num_processes) for i in rounds]
        added = [span.added(num_processes) for span in short]
        own = [float(np.mean(span.work)) for span in short]
        print(f"{len(short[0].work)} trials of {timing.spread(own)} s: Tune adds {timing.spread(added)} s to each")

        settings = ("--epochs", str(options.epochs), "--num-train-images", str(LONG_IMAGES))
        _sweep(folder / "first", num_processes, num_processes, *settings)  # to have the configs, and as a warm-up
        configs = sorted((folder / "first").rglob("trials/*/config.json"))
        rng, ratios, shortest = np.random.default_rng(0), [], []
        for i in rounds:
            spans = {}
            for arm in rng.permutation(["sweep", "bare"]).tolist():
                root = folder / f"{arm}-{i}"
                is_sweep = arm == "sweep"
                spans[arm] = (
                    _sweep(root, num_processes, num_processes, *settings)
                    if is_sweep
                    else _bare(root, configs, num_processes)
                )
            ratios.append(spans["sweep"].speed / spans["bare"].speed)
            shortest.append(min(spans["sweep"].work))
            print(
                f"round {i + 1}: sweep {spans['sweep'].speed:.0f}, bare {spans['bare'].speed:.0f} images/s", flush=True
            )
    print(
        f"{len(configs)} trials of {min(shortest):.0f} s or more, {num_processes} at once: images/s of a sweep over "
        f"those of bare processes {timing.spread(ratios, 3)}"
    )
    return 0


def span_of(root: Path) -> Span:
    """When the runs of a folder worked: a row is written as its run ends, `wall_seconds` after its start.

    Raises UserError where a run failed or there is none.
    """
    rows = results.read_rows(root)
    failed = [row["error"] for row in rows if row["status"] != results.FINISHED]
    if failed or not rows:
        raise UserError(f"{root}: {failed[0] if failed else 'no run has ended'}")
    ends = [(root / "trials" / row["id"] / "row.json").stat().st_mtime for row in rows]
    work = tuple(row["wall_seconds"] for row in rows)
    starts = [end - seconds for end, seconds in zip(ends, work, strict=True)]
    return Span(max(ends) - min(starts), work, sum(row["images_seen"] for row in rows))


def _sweep(root: Path, num_seeds: int, num_processes: int, *settings: str) -> Span:
    seeds = ",".join(map(str, range(num_seeds)))
    flags = ("--seeds", seeds, "--concurrency", str(num_processes), "--device", "cpu", *settings)
    _run([sys.executable, "-m", "fer_ray.sweep", "--space", SPACE, "--storage", str(root), "--name", "runs", *flags])
    return span_of(root / "runs")


_BARE = """
import sys
from pathlib import Path
from fer_ray import recipes, run
from fer_ray.config import RunConfig
for path in sys.argv[2:]:
    run.execute(RunConfig.from_flat(recipes.load(path).values), Path(sys.argv[1]))
"""


def _bare(root: Path, configs: Sequence[Path], num_processes: int) -> Span:
    parts = [[str(path) for path in configs[i::num_processes]] for i in range(num_processes)]
    commands = [[sys.executable, "-c", _BARE, str(root), *part] for part in parts if part]
    running = [_start(command) for command in commands]
    for process in running:
        _finish(process)
    return span_of(root)


def _run(command: list[str]) -> None:
    _finish(_start(command))


def _start(command: list[str]) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise UserError(f"a process of the measurement ended with {process.returncode}: {errors.strip()[-500:]}")
