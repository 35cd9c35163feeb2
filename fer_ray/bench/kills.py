"""A campaign of kills: workers, nodes and drivers of a sweep end with SIGKILL, and its tables must not know."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray import cli, results
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.tuning.local_cluster import LocalCluster

NAME = "kills"
CELLS = 4
SHARES = {"worker": 0.5, "node": 0.25, "driver": 0.25}
"""Kinds of kills and their shares."""

MAX_DELAY_SECONDS = 5.0
"""A kill comes at a random moment up to so long after its epoch: it may hit a start, a test or a checkpoint too."""

POLL_SECONDS = 0.2

SPACE = """
from fer_ray.space import Space

SPACE = Space(
    name="kills",
    question="Is anything lost?",
    axes={{"data.real_fraction": (0.0, 1.0), "optimizer.weight_decay": (0.0, 0.1)}},
    seeds=tuple(range({seeds})),
    base={{
        "model.name": "ShuffleNetV2-x1.0",
        "data.image_size": 32,
        "data.num_train_images": 112,
        "training.batch_size": 16,
        "training.epochs": {epochs},
    }},
)
"""


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.bench kills`."""
    parser = cli.Parser(
        "bench kills",
        "Kill workers, nodes and drivers of a sweep on a cluster of this machine at random moments, start killed "
        "drivers again, and compare what is left with an undisturbed sweep.",
        "python -m fer_ray.bench kills --kills 30 --trials 40",
    )
    parser.add_argument("--kills", type=cli.number(int, least=1), default=30, metavar="N", help="kills (default: 30)")
    parser.add_argument(
        "--trials", type=cli.number(int, least=CELLS), default=40, metavar="N", help="a multiple of 4 (default: 40)"
    )
    parser.add_argument("--epochs", type=cli.number(int, least=2), default=5, metavar="N", help="of each (default: 5)")
    parser.add_argument(
        "--nodes", type=cli.number(int, least=1), default=2, metavar="N", help="1 CPU each (default: 2)"
    )
    parser.add_argument(
        "--seed", type=cli.number(int, least=0), default=0, metavar="N", help="of the kills (default: 0)"
    )
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.bench kills`; returns the exit code."""
    options = parser().parse(arguments)
    if options.trials % CELLS:
        raise UserError(f"--trials {options.trials}: expected a multiple of {CELLS}, the cells of the design")
    from fer_ray.tuning.local_cluster import LocalCluster

    scratch = Path(tempfile.mkdtemp(prefix="fer_ray-kills-"))
    space = scratch / "kills.py"
    space.write_text(SPACE.format(seeds=options.trials // CELLS, epochs=options.epochs))
    with LocalCluster(options.nodes) as cluster:
        started = time.monotonic()
        undisturbed = Campaign(cluster, space, scratch / "undisturbed", random.Random(), [])
        undisturbed.run()
        quiet_seconds = time.monotonic() - started
        rng = random.Random(options.seed)
        campaign = Campaign(cluster, space, scratch / "disturbed", rng, plan_kills(options, rng))
        campaign.run()
        seconds = time.monotonic() - started - quiet_seconds
    print(f"{options.trials} trials of {options.epochs} epochs on {options.nodes} nodes of 1 CPU, seed {options.seed}")
    print(f"{cli.duration(quiet_seconds)} undisturbed, {cli.duration(seconds)} with {campaign.told()}")
    outcome = examine(campaign, undisturbed.root, options.trials)
    for line in outcome.lines():
        print(line)
    if outcome.is_good:
        shutil.rmtree(scratch, ignore_errors=True)
        return 0
    print(f"something was lost; both sweeps are in {scratch}")
    return cli.FAILED_TRIALS


def plan_kills(options: Any, rng: random.Random) -> list[tuple[int, str]]:
    """The kills in their order: after how many trained epochs of the whole sweep, and what."""
    counts = {kind: round(share * options.kills) for kind, share in SHARES.items()}
    counts["worker"] += options.kills - sum(counts.values())
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    rng.shuffle(kinds)
    last = options.trials * options.epochs - options.nodes * options.epochs  # trials still run then
    return list(zip(sorted(rng.randrange(max(1, last)) for _ in kinds), kinds, strict=True))


@dataclass
class Campaign:
    """One sweep on a cluster, disturbed by kills.

    Attributes:
        kills: after how many trained epochs, and what.
        killed: how many of each kind were killed.
        finished_at: id -> when its row was first seen.
    """

    cluster: "LocalCluster"
    space: Path
    storage: Path
    rng: random.Random
    kills: Sequence[tuple[int, str]]
    killed: Counter[str] = field(default_factory=Counter)
    finished_at: dict[str, datetime] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder of the results."""
        return self.storage / NAME

    def run(self) -> None:
        """Runs the sweep to its end; raises UserError if it does not get there."""
        self._driver = self._start_driver()
        try:
            for num_epochs, kind in self.kills:
                self._watch(num_epochs)
                self._kill(kind)
            while self._driver.poll() is None:
                self._look()
        finally:
            self._driver.kill()
            self._driver.wait()
        if self._driver.returncode:
            raise UserError(f"the sweep ended with exit code {self._driver.returncode}: {self._log()}")

    def told(self) -> str:
        """What was killed, in words."""
        kinds = ", ".join(f"{self.killed[kind]} {kind}s" for kind in SHARES)
        return f"{self.killed.total()} kills ({kinds})"

    def events(self) -> list[dict[str, Any]]:
        """The journal of all drivers; a line that a killed one did not end is left out."""
        try:
            lines = (self.root / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def _start_driver(self) -> subprocess.Popen[bytes]:
        self.storage.mkdir(exist_ok=True)
        flags = [f"--space={self.space}", f"--storage={self.storage}", f"--name={NAME}", "--device=cpu"]
        flags += [f"--address={self.cluster.address}", "--set=runtime.checkpoint_seconds=0"]
        with (self.storage / "driver.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "fer_ray.sweep", *flags],
                env=self.cluster.environment(),
                stdout=log,
                stderr=log,
            )

    def _watch(self, num_epochs: int) -> None:
        """Until so many epochs were trained, and a random moment more."""
        while sum(event["event"] == "epoch" for event in self.events()) < num_epochs:
            self._look()
        moment = time.monotonic() + self.rng.uniform(0, MAX_DELAY_SECONDS)
        while time.monotonic() < moment:
            self._look()

    def _kill(self, kind: str) -> None:
        if kind == "worker":
            while not (workers := self.cluster.workers()):
                self._look()
            os.kill(self.rng.choice(workers), signal.SIGKILL)
        elif kind == "node":
            self.cluster.kill_node(self.rng.choice(self.cluster.nodes))
            self.cluster.add_node()
        else:
            self._driver.kill()
            self._driver.wait()
            self._driver = self._start_driver()
        self.killed[kind] += 1

    def _look(self) -> None:
        """Notes which trials are finished by now."""
        time.sleep(POLL_SECONDS)
        if self._driver.poll() not in (None, 0):
            raise UserError(f"the sweep ended with exit code {self._driver.returncode}: {self._log()}")
        for path in (self.root / "trials").glob("*/row.json"):
            if path.parent.name not in self.finished_at and results.read_json(path)["status"] == results.FINISHED:
                self.finished_at[path.parent.name] = datetime.now(UTC)

    def _log(self) -> str:
        return (self.storage / "driver.log").read_text(errors="replace")[-2000:]


@dataclass(frozen=True)
class Outcome:
    """What a campaign left, in counts.

    Attributes:
        num_trials, num_finished: wanted, and finished at the end.
        trained_again: trials of which an epoch was trained after they had finished.
        starts: how often a trial got a worker.
        epochs_lost: epochs that had been reported and were trained once more, per kill that cost any. The epoch that
            runs is not reported yet, nor is the last one before its test is written.
        given_up: how often a driver gave a trial up; a kill must not use up what a trial has for its own failures.
        most_deaths: of workers of one trial in the eyes of one driver or several.
        different: tables and columns that differ from the undisturbed sweep.
    """

    num_trials: int
    num_finished: int
    trained_again: list[str]
    starts: int
    epochs_lost: list[int]
    given_up: int
    most_deaths: int
    different: list[str]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost."""
        lost = self.trained_again or self.epochs_lost or self.given_up or self.different
        return self.num_finished == self.num_trials and not lost

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"trials lost: {self.num_trials - self.num_finished} of {self.num_trials}",
            f"finished trials trained again: {len(self.trained_again)}",
            f"trials given up on the way: {self.given_up}",
            f"starts of trials: {self.starts}; most deaths of one trial's workers: {self.most_deaths}",
            f"reported epochs trained once more: {sum(self.epochs_lost)}, so a kill costs the epoch that runs",
            f"tables and columns that differ from the undisturbed sweep: {', '.join(self.different) or 'none'}",
        ]


def examine(campaign: Campaign, undisturbed: Path, num_trials: int) -> Outcome:
    """Compares what a campaign left with an undisturbed sweep's folder, and counts what its kills cost."""
    events = campaign.events()
    trained: dict[str, list[int]] = {}
    started: dict[str, datetime] = {}
    again = set()
    for event in events:
        if event["event"] == "start":
            started[event["id"]] = datetime.fromisoformat(event["time"])
        elif event["event"] == "epoch":
            trained.setdefault(event["id"], []).append(event["epoch"])
            finished = campaign.finished_at.get(event["id"])
            if finished is not None and started[event["id"]] > finished:
                again.add(event["id"])
    steps = [(a, b) for epochs in trained.values() for a, b in pairwise(epochs)]
    deaths = Counter(event["id"] for event in events if event["event"] == "worker_died")
    rows = results.read_rows(campaign.root)
    return Outcome(
        num_trials,
        sum(row["status"] == results.FINISHED for row in rows),
        sorted(again),
        sum(event["event"] == "start" for event in events),
        [before + 1 - after for before, after in steps if after <= before],
        sum(event["event"] == "end" and event["status"] == results.FAILED for event in events),
        max(deaths.values(), default=0),
        differences(campaign.root, undisturbed),
    )


def differences(left: Path, right: Path) -> list[str]:
    """Names of tables that are not equal byte by byte, and of columns of rows, but for their costs."""
    tables = [{path.name: path.read_bytes() for path in (root / "tables").iterdir()} for root in (left, right)]
    found = sorted(name for name in tables[0].keys() | tables[1] if tables[0].get(name) != tables[1].get(name))
    rows: list[Mapping[str, dict[str, Any]]] = [{row["id"]: row for row in results.read_rows(r)} for r in (left, right)]
    if rows[0].keys() != rows[1].keys():
        return [*found, "ids"]
    columns = {column for row in rows[1].values() for column in row}.difference(results.COST_COLUMNS)
    return found + sorted(c for c in columns if any(rows[0][i].get(c) != rows[1][i].get(c) for i in rows[1]))
