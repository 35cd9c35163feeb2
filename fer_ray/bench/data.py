"""First and later use of a data set, and the private memory that it adds to concurrent runs."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_ray import cli
from fer_ray.bench import timing
from fer_ray.errors import UserError

PROCESSES = 3


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench data`."""
    parser = cli.Parser(
        "bench data",
        "First use into an empty cache and later use, each in a fresh process; then memory of processes side by side.",
        "python -m fer_ray.bench data --data fer2013.csv",
    )
    parser.add_argument("--data", default="demo", metavar="PATH", help="data set (default: demo)")
    timing.add_rounds_flag(parser)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench data`; returns the exit code."""
    options = parser().parse(arguments)
    timing.print_conditions(options.rounds)
    first, later = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            first.append(_child(options.data, cache)["seconds"])
            later.append(_child(options.data, cache)["seconds"])
    print(f"first use  {timing.spread(first)} s")
    print(f"later use  {timing.spread(later, 4)} s")
    if not Path("/proc/self/smaps_rollup").exists():
        print("private memory: this system does not tell")
        return 0
    with tempfile.TemporaryDirectory() as cache:
        _child(options.data, cache)
        running = [_start(options.data, cache) for _ in range(PROCESSES)]
        added = [_answer(process)["private_kb"] / 1024 for process in running]
    print(
        f"Private_Dirty added in each of {PROCESSES} concurrent processes: {', '.join(f'{mb:.2f}' for mb in added)} MB"
    )
    return 0


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
