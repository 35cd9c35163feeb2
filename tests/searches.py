"""A search with a made-up objective, and a stand-in for Ray Tune that drives its proposer."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tune_trials import cell as cell_of

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.proposals import Proposal, read_proposals
from fer_ray.space import Search, Suggester
from fer_ray.tuning.proposer import Proposer

EPOCHS = 4
DIGEST = "0f3c51aa9d2e4b67"
BASE = RunConfig.from_flat({"training.epochs": EPOCHS, "data.num_train_images": 64})


def suggest(trial: Suggester) -> dict[str, Any]:
    """A rate, and a radius only with SAM."""
    values = {"optimizer.learning_rate": trial.suggest_float("rate", 1e-3, 1e-1, log=True)}
    if trial.suggest_categorical("sam", (False, True)):
        values["optimizer.sam_rho"] = trial.suggest_float("rho", 0.01, 0.5)
    return values


def suggest_few(trial: Suggester) -> dict[str, Any]:
    """Six configurations in all."""
    return {
        "optimizer.learning_rate": trial.suggest_categorical("rate", (1e-3, 1e-2, 1e-1)),
        "optimizer.sam_rho": trial.suggest_categorical("rho", (0.0, 0.05)),
    }


def search(**changes: Any) -> Search:
    """Over `suggest`, one seed."""
    return Search(**{"name": "made", "question": "Which?", "suggest": suggest, "seeds": (0,), **changes})


def value_of(config: RunConfig, seed: int) -> float:
    """The objective at the end of a run: the largest rate is the best, and luck is a hundredth."""
    return 0.3 + config.optimizer.learning_rate + 0.01 * random.Random(f"{config.flat()}{seed}").random()


def run_id_of(config: RunConfig) -> str:
    """The folder name of a run."""
    return config.run_id(config.signature(DIGEST, None))


class Driver:
    """Asks a proposer for runs, trains `parallel` of them at once epoch by epoch, and reports as Tune does.

    Attributes:
        starts: (proposal, seed) of every training, in order; a run whose row is on disk is answered from it.
        ended: proposals as they ended.
    """

    def __init__(
        self,
        root: Path,
        space: Search | None = None,
        *,
        num_trials: int = 6,
        parallel: int = 2,
        sampler: str = "random",
        stops: Callable[[RunConfig, int], bool] = lambda config, epoch: False,
        fails: Callable[[RunConfig], bool] = lambda config: False,
        known: Sequence[dict[str, Any]] | None = None,
        source: random.Random | None = None,
        **more: Any,
    ) -> None:
        self.root, self.space, self.parallel = root, space or search(), parallel
        self._stops, self._fails, self._source = stops, fails, source or random.Random(0)
        self.ended: list[Proposal] = []
        self.starts: list[tuple[int, int]] = []
        self._running: dict[str, tuple[RunConfig, int, str]] = {}
        self._of: dict[str, tuple[int, int]] = {}
        self._count = 0
        self.is_exhausted = False
        self.proposer = Proposer(
            self.space,
            BASE,
            root=root,
            sampler=sampler,
            num_trials=num_trials,
            run_id=run_id_of,
            make_cell=lambda run_id, config, tags: {**cell_of(run_id, **config.flat()), "tags": tags},
            earlier=read_proposals(root),
            known=list(self.space.known) if known is None else known,
            on_end=self.ended.append,
            **more,
        )

    @property
    def under_way(self) -> list[tuple[int, int]]:
        """(proposal, seed) of the trainings that a kill would cost; a run whose row is on disk is none of them."""
        return [self._of[name] for name, (_, epoch, _) in self._running.items() if epoch < EPOCHS]

    def step(self) -> bool:
        """Starts a run or trains an epoch of one; False when the search has come to its end."""
        if not self.is_exhausted and len(self._running) < self.parallel and self._start():
            return True
        if not self._running:
            return False
        self._advance(self._source.choice(sorted(self._running)))
        return True

    def finish(self) -> list[Proposal]:
        """Steps to the end; returns the proposals on disk."""
        for _ in range(10_000):
            if not self.step():
                return read_proposals(self.root)
        raise AssertionError("the search does not end")

    def _start(self) -> bool:
        name = f"tune-{self._count}"
        self._count += 1
        given = self.proposer.suggest(name)
        if given is None:
            assert self._running, "nothing runs, and there is nothing to do"
            return False
        if given == "FINISHED":
            self.is_exhausted = True
            return False
        cell = given["cell"]
        if self._row(cell["id"]).exists():  # the worker answers from disk
            self.proposer.on_trial_complete(name, {**results.read_json(self._row(cell["id"])), "ended": True})
            return True
        self._of[name] = (cell["tags"]["proposal"], cell["config"]["training.seed"])
        self.starts.append(self._of[name])
        self._running[name] = (RunConfig.from_flat(cell["config"]), 0, cell["id"])
        return True

    def _advance(self, name: str) -> None:
        config, epoch, run_id = self._running[name]
        if epoch == EPOCHS:  # its row is on disk
            self._end(name, {**results.read_json(self._row(run_id)), "ended": True})
            return
        epoch += 1
        value = value_of(config, config.training.seed) * epoch / EPOCHS
        result = {"epoch": epoch, "validation_macro_f1": value, "images_per_second": 100.0}
        if self._fails(config):
            self._end(name, {"epoch": epoch, "ended": True, "status": results.FAILED, "error": "loss is not finite"})
        elif self._stops(config, epoch):
            self._end(name, result)  # Tune tells of this epoch nowhere else
        else:
            self._running[name] = (config, epoch, run_id)
            self.proposer.on_trial_result(name, result)
            if epoch == EPOCHS:
                self._row(run_id).parent.mkdir(parents=True)
                results.write_json(self._row(run_id), {**result, "status": results.FINISHED})

    def _end(self, name: str, result: dict[str, Any]) -> None:
        del self._running[name]
        self.proposer.on_trial_complete(name, result)

    def _row(self, run_id: str) -> Path:
        return self.root / "trials" / run_id / "row.json"


def states(proposals: Sequence[Proposal]) -> Counter[str]:
    """How many ended how."""
    return Counter(proposal.state for proposal in proposals)
