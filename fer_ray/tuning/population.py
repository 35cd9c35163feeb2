"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), by Ray's scheduler.

The members of a population train at once. At each third of the epochs one of the worst quarter takes over the state of
one of the best quarter, weights, optimizer and all, and goes on with settings next to that one's. What is found is a
schedule of settings, not one: a member's row tells its `lineage`, and no single config repeats it.
"""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search import Searcher

EXPLORED = {
    "optimizer.learning_rate": 10.0,
    "optimizer.weight_decay": 1.0,
    "optimizer.sam_rho": 10.0,
    "training.label_smoothing": 0.99,
    "optimizer.momentum": 0.99,
}
"""Settings that may change while a network trains -> their largest value."""

FACTORS = (0.8, 1.25)

FAMILY = "population"
"""Signature in the checkpoints of all members, so that one may take over another's."""

RECORD = "member.json"


class Population(PopulationBasedTraining):
    """Ray's scheduler, for cells: a member that takes over another's state keeps its own name and folder."""

    def __init__(self, *, metric: str, mode: str, interval: int, seed: int) -> None:
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode=mode,
            perturbation_interval=interval,
            custom_explore_fn=lambda config: config,  # it asks for one; see below
            log_config=False,
        )
        self._random = random.Random(seed)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        own, other = trial.config["cell"], trial_to_clone.config["cell"]
        return {"cell": {**own, "config": {**other["config"], **explored(other["config"], self._random)}}}, {}


class Members(tune.Callback):
    """The first cells of a population, and what tells the proposer how they fare."""

    def __init__(self, proposer: Searcher) -> None:
        self._proposer = proposer
        self.cells: list[dict[str, Any]] = []
        while isinstance(suggested := proposer.suggest(str(len(self.cells))), dict):
            self.cells.append(suggested["cell"])
        self._keys = {cell["id"]: str(number) for number, cell in enumerate(self.cells)}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as LiveView's

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Tune's hook."""
        self._proposer.on_trial_result(self._keys[trial.config["cell"]["id"]], result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook."""
        self._proposer.on_trial_complete(self._keys[trial.config["cell"]["id"]], trial.last_result)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook."""
        self._proposer.on_trial_complete(self._keys[trial.config["cell"]["id"]], error=True)


def explored(config: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """New values of the settings that may change and are in use, each a step up or down."""
    return {key: min(most, config[key] * source.choice(FACTORS)) for key, most in EXPLORED.items() if config.get(key)}


@dataclass(frozen=True)
class Member:
    """What a member of a population was when Tune started its worker.

    Attributes:
        epoch: the last one that Tune knows of, of this member or of the one that it took over.
        lineage: a dict per takeover: after which epoch, from whom, and the settings since then.
    """

    epoch: int = 0
    lineage: tuple[dict[str, Any], ...] = ()

    def tags(self) -> dict[str, Any]:
        """Columns of its row."""
        return {"lineage": json.dumps(self.lineage)}


def start(run_id: str, config: dict[str, Any], checkpoints: Path) -> Member:
    """Puts the checkpoint that Tune starts this member from, its own or another's, in its folder."""
    found = tune.get_checkpoint()
    if found is None:
        return Member()
    with found.as_directory() as folder:
        record = json.loads(Path(folder, RECORD).read_text())
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True)
        for path in Path(folder).glob("checkpoint-*.pt"):
            shutil.copy(path, checkpoints)
    lineage = list(record["lineage"])
    if record["id"] != run_id:
        settings = {key: config[key] for key in EXPLORED if config.get(key)}
        lineage.append({"after_epoch": record["epoch"], "from": record["id"], **settings})
    return Member(record["epoch"], tuple(lineage))


def report(run_id: str, member: Member, values: dict[str, Any], checkpoints: Path, scratch: Path) -> None:
    """Reports an epoch with the checkpoint of it, from which this member, or another, goes on."""
    record = {"id": run_id, "epoch": values["epoch"], "lineage": list(member.lineage)}
    (scratch / RECORD).write_text(json.dumps(record))
    for path in sorted(checkpoints.glob("checkpoint-*.pt"), key=lambda path: int(path.name.split("-")[1]))[-1:]:
        shutil.copy(path, scratch)
    tune.report(values, checkpoint=tune.Checkpoint.from_directory(str(scratch)))
