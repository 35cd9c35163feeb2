"""Runs a plan through Ray Tune: every cell of a factorial design, or what a search proposes. Ray must be started."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.train._internal.session import get_session
from ray.tune.trainable import wrap_function
from rich.console import Console

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.proposals import Proposal, read_proposals
from fer_ray.space import OBJECTIVES, Search
from fer_ray.storage import Storage
from fer_ray.tuning import machines, schedulers, warm_start
from fer_ray.tuning.budget import Budget, Limits
from fer_ray.tuning.journal import Journal
from fer_ray.tuning.live import LiveView
from fer_ray.tuning.loggers import build_loggers
from fer_ray.tuning.mirror import Mirror
from fer_ray.tuning.plan import Plan
from fer_ray.tuning.population import Population
from fer_ray.tuning.proposer import Proposer
from fer_ray.tuning.ray_repairs import count_deaths_once
from fer_ray.tuning.trial import Cell, trial

if TYPE_CHECKING:
    from fer_ray.tuning.cluster import Shipment

TUNE_FOLDER = ".tune"

MAX_WORKER_DEATHS = 10
"""A trial whose worker died more often than that in one command is given up; a node that went away does not count."""

LAST_WORDS_SECONDS = 10
"""How long a worker that is to end waits for its trial; after as long Tune kills it."""


@dataclass(frozen=True)
class Strategy:
    """How a search proposes and stops; of no use to a factorial design.

    Attributes:
        sampler: one of samplers.SAMPLERS.
        scheduler: one of schedulers.SCHEDULERS, or "pbt".
        num_trials: proposals to train in all; of "pbt" the members of the population.
        warm_start: folder of an earlier sweep to learn from.
    """

    sampler: str = "tpe"
    scheduler: str = "none"
    num_trials: int = 0
    warm_start: Path | None = None


@dataclass(frozen=True)
class Execution:
    """All that running a plan needs beside it."""

    plan: Plan
    storage: Storage
    resources: machines.Resources
    console: Console
    limits: Limits = field(default_factory=Limits)
    strategy: Strategy = field(default_factory=Strategy)
    shipment: "Shipment | None" = None
    loggers: Sequence[str] = ()
    again: bool = False

    @property
    def root(self) -> Path:
        """The folder of the results, or the mirror of them."""
        return self.storage.folder

    def push_trial(self, run_id: str) -> None:
        """Copies a trial's files to the storage."""
        self.storage.push(f"trials/{run_id}")

    def cell(self, run_id: str, config: RunConfig, tags: dict[str, Any]) -> Cell:
        """What a worker is told of a run. What may be paused goes on from the very epoch, so that it needs them all."""
        is_pausing = self.strategy.scheduler in schedulers.PAUSING
        return {
            "id": run_id,
            "config": config.flat() | ({"runtime.checkpoint_seconds": 0.0} if is_pausing else {}),
            "location": self.storage.location,
            "tags": tags,
            "pausable": is_pausing,
            "again": self.again,
            "until": None,
        }


def run_cells(execution: Execution, configs: Sequence[RunConfig], *, already_finished: int) -> str | None:
    """Runs these cells of a factorial design to their end, in this order; returns the limit that stopped them, if any.

    Each is in the storage when it has ended. A worker or node that dies costs its trials their running epoch.
    """
    plan, resources = execution.plan, execution.resources
    cells = [execution.cell(plan.run_id(config), config, plan.tags(config)) for config in configs]
    mirror = Mirror(execution.root, plan)
    with LiveView(
        execution.console,
        execution.root,
        total=len(cells),
        already_finished=already_finished,
        slots=machines.slots(resources),
        on_finished=lambda run_id: mirror.add_run(execution.storage, run_id),
        on_lost=execution.push_trial,
    ) as view:
        budget = _budget(execution, view)
        _fit(execution, view, budget, {"cell": tune.grid_search(cells)}, {"scheduler": schedulers.in_order()})
    return budget.reason


def run_search(execution: Execution) -> str | None:
    """Runs a search until it has its proposals, or a limit; returns the limit that stopped it, if any."""
    if execution.strategy.scheduler == "pbt":
        return _run_population(execution)
    plan, resources, strategy = execution.plan, execution.resources, execution.strategy
    space = plan.space
    assert isinstance(space, Search)
    first = space.objectives[0]
    earlier = read_proposals(execution.root)
    learned = warm_start.read(strategy.warm_start, plan) if strategy.warm_start is not None else warm_start.NOTHING
    for note in learned.notes:
        execution.console.print(note)
    proposer_budget: list[Budget] = []

    proposer = Proposer(
        space,
        plan.base,
        root=execution.root,
        sampler=strategy.sampler,
        num_trials=strategy.num_trials,
        run_id=plan.run_id,
        make_cell=execution.cell,
        earlier=earlier,
        known=[*space.known, *learned.points],
        observed=learned.observed,
        gpus_per_trial=resources.gpus_per_trial or 0,
        is_over=lambda: bool(proposer_budget) and proposer_budget[0].reason is not None,
        on_end=_on_end(execution),
        on_written=lambda path: execution.storage.push(str(path.relative_to(execution.root))),
    )
    scheduler = schedulers.build(
        strategy.scheduler,
        first,
        OBJECTIVES[first],
        max(config.training.epochs for config in plan.configs),
        [{e: v for e, v in p.intermediate.items() if v is not None} for p in earlier if p.state != "running"],
    )
    with _view_of_search(execution, space, lambda: proposer.num_judged) as view:
        budget = _budget(execution, view)
        proposer_budget.append(budget)
        # Tune asks its searcher for as many as run at once, and no one else knows how many these are. HyperBand
        # compares brackets, which wait for their members, so that it needs them all.
        at_once = strategy.num_trials if strategy.scheduler == "hyperband" else machines.slots(resources)
        searcher = tune.search.ConcurrencyLimiter(proposer, max_concurrent=at_once)
        _fit(execution, view, budget, {}, {"search_alg": searcher, "scheduler": scheduler, "num_samples": -1})
    return budget.reason


def _run_population(execution: Execution) -> str | None:
    plan, storage, size = execution.plan, execution.storage, execution.strategy.num_trials
    space = plan.space
    assert isinstance(space, Search)

    inherited: dict[str, int] = {}
    population = Population(
        space,
        plan.base,
        size=size,
        storage=storage,
        run_id=plan.run_id,
        signature=lambda config: plan.of(config).signature(config),
        make_cell=execution.cell,
        on_end=_on_end(execution),
        on_copy=inherited.__setitem__,
    )
    with _view_of_search(execution, space, lambda: population.num_finished) as view:
        budget = _budget(execution, view, inherited)
        searcher = tune.search.ConcurrencyLimiter(population, max_concurrent=machines.slots(execution.resources))
        options = {"search_alg": searcher, "scheduler": schedulers.in_order(), "num_samples": -1}
        _fit(execution, view, budget, {}, options)
    return budget.reason


def _on_end(execution: Execution) -> Callable[[Proposal], None]:
    """What becomes of a proposal that has ended: a place in the mirror, and none for its checkpoints."""
    mirror = Mirror(execution.root, execution.plan)

    def on_end(proposal: Proposal) -> None:
        mirror.add_proposal(proposal)
        _discard_checkpoints(execution, proposal)

    return on_end


def _view_of_search(execution: Execution, space: Search, judged: Callable[[], int]) -> LiveView:
    ended, objective = judged(), space.objectives[0]
    return LiveView(
        execution.console,
        execution.root,
        total=max(0, execution.strategy.num_trials - ended),
        already_finished=ended,
        slots=machines.slots(execution.resources),
        objective=objective,
        is_lower_better=OBJECTIVES[objective] == "minimize",
        judged=judged,
        on_lost=execution.push_trial,
    )


def _budget(execution: Execution, view: LiveView, inherited: Mapping[str, int] | None = None) -> Budget:
    """The limits of the command. Images count over the whole sweep, what was stopped or failed included."""
    images = {row["id"]: int(row.get("images_seen") or 0) for row in results.read_rows(execution.root)}
    gpus = execution.resources.gpus_per_trial or 0
    budget = Budget(execution.limits, gpus_in_use=lambda: view.num_running * gpus, images=images, inherited=inherited)
    view.budget_left = budget.seconds_left
    return budget


def _fit(
    execution: Execution,
    view: LiveView,
    budget: Budget,
    param_space: dict[str, Any],
    options: dict[str, Any],
) -> None:
    trainable: Callable = trial
    if execution.shipment is not None:
        trainable = tune.with_parameters(trial, shipment=execution.shipment)
    count_deaths_once()
    tuner = tune.Tuner(
        _as_worker(tune.with_resources(trainable, machines.wanted(execution.resources))),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=None if "search_alg" in options else execution.resources.concurrency,
            trial_name_creator=lambda trial: trial.config["cell"]["id"],
            trial_dirname_creator=lambda trial: trial.config["cell"]["id"],
            **options,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(execution.root),
            verbose=0,
            callbacks=[view, Journal(execution.root), *build_loggers(execution.loggers, execution.root)],
            log_to_file=False,
            stop=budget,
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        tuner.fit()
    finally:
        # Tune's own record; ours are the trials' files, from which a sweep goes on.
        shutil.rmtree(execution.root / TUNE_FOLDER, ignore_errors=True)


def _as_worker(trainable: Callable) -> type:
    """Tune's class of a trainable function, but a worker that is to end lets a stopped trial write its row first."""
    worker: Any = wrap_function(trainable)
    end = worker.cleanup

    def cleanup(self: Any) -> None:
        session: Any = get_session()
        session.finish(timeout=LAST_WORDS_SECONDS)
        end(self)

    worker.cleanup = cleanup
    return worker


def _discard_checkpoints(execution: Execution, proposal: Proposal) -> None:
    """A run that was stopped for good needs no checkpoint."""
    for run in proposal.runs:
        if run.status != "running":
            execution.storage.remove(f"checkpoints/{run.id}")
