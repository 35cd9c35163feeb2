"""One command's work on a sweep: checks, preparation, the trials, and the report."""

import platform
import signal
import time
from collections.abc import Sequence
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from fer_ray import cli, results
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal, read_proposals
from fer_ray.storage import Storage, open_storage, place
from fer_ray.tuning import asked, design, estimate, execution, machines, preflight
from fer_ray.tuning.plan import Plan
from fer_ray.tuning.proposer import counts

KEPT_WEIGHTS = 3
"""Trials of a sweep that keep their weights: the best by validation."""

LOCK = ".lock"


def run(plan: Plan, options: Any, line: str, console: Console, started: float) -> int:
    """Trains what of a plan is not finished, and reports on all of it; returns the exit code.

    Args:
        options: of `fer_ray.sweep`.
        line: the command as a person would repeat it.
        started: of time.monotonic, for the time in all.

    Raises:
        UserError: the folder holds another sweep or is being worked on, or a trial fits on no machine.
    """
    strategy = asked.strategy(plan, options)
    resources = asked.resources(options, plan.configs[0])
    if options.address is None:
        machines.check_local_resources(resources)
        asked.limits(options, machines.resolve(resources, machines.local_resources()))
    name = options.name or _name(plan)
    storage = open_storage(place(options.storage, name))
    storage.pull()
    root = storage.folder
    info = plan.info() | {
        "name": name,
        "rows": options.rows or plan.info().get("rows"),
        "columns": options.cols or plan.info().get("columns"),
        "command": line,
        "sampler": strategy.sampler if plan.is_search else None,
        "scheduler": strategy.scheduler if plan.is_search else None,
        "trials": strategy.num_trials if plan.is_search else None,
    }
    design.check_same_design(root, info)
    configs = _left(plan, storage, options, console)
    if options.dry_run:
        estimate.print_dry_run(plan, configs, strategy.num_trials, resources, console)
        return 0
    cli.writable_folder(root)
    try:
        with FileLock(root / LOCK, timeout=0):
            return _work(plan, configs, storage, info, resources, strategy, options, console, started)
    except Timeout:
        raise UserError(
            f"{root} is being worked on by another sweep command; wait for it, or take another --name"
        ) from None


def _work(
    plan: Plan,
    configs: list[RunConfig],
    storage: Storage,
    info: dict[str, Any],
    resources: machines.Resources,
    strategy: execution.Strategy,
    options: Any,
    console: Console,
    started: float,
) -> int:
    root = storage.folder
    try:
        results.write_json(root / "sweep.json", info | _made_by())
        results.write_leakage(root, plan.leak_columns())
    except OSError as error:
        raise UserError(f"cannot write {root / 'sweep.json'}: {error.strerror or error}") from error
    storage.push("sweep.json", "leakage.parquet")
    code = 0
    if plan.is_search or configs:
        code = _train(plan, configs, storage, resources, strategy, options, console)
    storage.pull()
    _report(storage, console)
    spent = cli.duration(time.monotonic() - started)
    if plan.is_search:
        proposals = read_proposals(root)
        judged = _num_judged(proposals, strategy)
        print(f"{judged} of {strategy.num_trials} proposals judged ({counts(proposals)}); {spent} in all")
    else:
        done = len(design.finished_ids(root) & {plan.run_id(config) for config in plan.configs})
        print(f"{done} of {len(plan.configs)} trials finished; {spent} in all")
    return code


def _train(
    plan: Plan,
    configs: list[RunConfig],
    storage: Storage,
    resources: machines.Resources,
    strategy: execution.Strategy,
    options: Any,
    console: Console,
) -> int:
    reached, interrupted = None, False
    try:
        machines.start_ray(options.address)
        # A cluster's scheduler ends a job by SIGTERM, and gives it some time; Ray, which has its own mind, gives none.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        resources = machines.resolve(resources)
        if options.address is not None:
            machines.check_resources(resources)
        shipment = _prepare_cluster(plan, storage) if options.address is not None else None
        if not plan.is_demo:
            resources = _rehearse(plan, configs, storage, resources, strategy, options, console)
        work = execution.Execution(
            plan,
            storage,
            resources,
            console,
            limits=asked.limits(options, resources),
            strategy=strategy,
            shipment=shipment,
            loggers=cli.split_list(options.log),
            again=options.again,
        )
        if plan.is_search:
            reached = execution.run_search(work)
        else:
            from_before = len(plan.configs) - len(configs)
            reached = execution.run_cells(work, configs, already_finished=from_before)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        machines.stop_ray()
        storage.pull()
        spare = results.ids_beyond_best(storage.folder, KEPT_WEIGHTS)
        storage.remove(*(f"trials/{run_id}/best.safetensors" for run_id in spare))
        storage.push("study.db", "journal.jsonl")
    if interrupted:
        console.print(f"interrupted: {_missing(plan, storage, strategy)}. The same command goes on with the rest")
        return cli.INTERRUPTED
    if reached is not None:
        console.print(
            f"the sweep has spent {reached}: {_missing(plan, storage, strategy)}. The same command, or --resume, goes "
            "on with the rest"
        )
    statuses = {row["id"]: row["status"] for row in results.read_rows(storage.folder)}
    if plan.is_search:
        return cli.FAILED_TRIALS if results.FAILED in statuses.values() else 0
    unfinished = [config for config in configs if statuses.get(plan.run_id(config)) != results.FINISHED]
    failed = [config for config in unfinished if statuses.get(plan.run_id(config)) == results.FAILED]
    return cli.FAILED_TRIALS if failed or (unfinished and reached is None) else 0


def _prepare_cluster(plan: Plan, storage: Storage) -> Any:
    """Tries the storage on every node, and makes the data ready to be asked for."""
    from fer_ray.tuning import cluster

    cluster.probe_storage(storage.location)
    return cluster.ship(plan.experiments, plan.configs)


def _rehearse(
    plan: Plan,
    configs: Sequence[RunConfig],
    storage: Storage,
    resources: machines.Resources,
    strategy: execution.Strategy,
    options: Any,
    console: Console,
) -> machines.Resources:
    """Measures what a step costs and goes once through all that could fail at the end; fewer trials at once where
    memory asks for it.
    """
    root, examples = storage.folder, list(configs)[: estimate.MAX_MEASURED] if plan.is_search else configs
    cost = preflight.measure(plan, examples)
    try:
        peak_mb = preflight.rehearse(plan, examples, cost, root, results.read_json(root / "sweep.json"))
    except OSError as error:
        raise UserError(f"cannot write to {root}: {error.strerror or error}; free space there") from error
    if options.address is None and resources.gpus_per_trial == 0:
        resources = machines.within_memory(resources, peak_mb)
    estimate.print_cost(plan, examples, cost, strategy.num_trials, resources, console, is_small=options.small)
    kept = strategy.num_trials if strategy.scheduler == "pbt" else machines.slots(resources)
    estimate.print_disk(cost, root, kept, console)
    estimate.print_packing(peak_mb, resources, console)
    return resources


def _left(plan: Plan, storage: Storage, options: Any, console: Console) -> list[RunConfig]:
    """What of a factorial plan is not finished; of a search all examples."""
    root = storage.folder
    if plan.is_search:
        if options.again:
            raise UserError("--again: a search has no trials to repeat; give it another --name")
        found = read_proposals(root)
        if found:
            console.print(f"{len(found)} proposals are there already ({counts(found)})")
        return list(plan.configs)
    finished = set() if options.again or not root.exists() else design.finished_ids(root)
    configs = [config for config in plan.configs if plan.run_id(config) not in finished]
    if from_before := len(plan.configs) - len(configs):
        console.print(
            f"{from_before} of {len(plan.configs)} trials are finished already and kept (--again trains them)"
        )
    return configs


def _num_judged(proposals: Sequence[Proposal], strategy: execution.Strategy) -> int:
    """Proposals that have ended; of a population the members that have come to their end."""
    if strategy.scheduler == "pbt":
        return sum(proposal.state == "complete" for proposal in proposals)
    return sum(proposal.state not in ("repeated", "running") for proposal in proposals)


def _missing(plan: Plan, storage: Storage, strategy: execution.Strategy) -> str:
    """What is done and what is not, for a sweep that was ended early."""
    if plan.is_search:
        found = read_proposals(storage.folder)
        left = strategy.num_trials - _num_judged(found, strategy)
        return f"{counts(found) or 'no proposal'}; {left} of {strategy.num_trials} proposals are missing"
    ids = [plan.run_id(config) for config in plan.configs]
    finished = design.finished_ids(storage.folder)
    missing = [run_id for run_id in ids if run_id not in finished]
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    done = f"{len(ids) - len(missing)} of {len(ids)} trials are finished and on disk in {storage.location}"
    return f"{done}; missing: {shown}" if missing else done


def _report(storage: Storage, console: Console) -> None:
    from fer_ray.analysis import report

    rows = results.read_rows(storage.folder)
    if not any(row["status"] == results.FINISHED for row in rows):
        console.print(
            f"no trial finished, so there is nothing to compare; {storage.folder}/trials says why each failed"
            if any(row["status"] == results.FAILED for row in rows)
            else "no trial has finished yet, so there is nothing to compare"
        )
        return
    *_, dashboard = report.write_report(storage.folder, console=cli.stdout_console())
    storage.push("tables", "dashboard.html", "trials.parquet", "epochs.parquet", "best_recipe.json")
    print(f"dashboard: {dashboard}")


def _made_by() -> dict[str, Any]:
    """What sweep.json says of the program and the machine."""
    from fer_ray.training.runtime import provenance

    facts = provenance()
    prefix = "version_"
    return {
        "versions": {key.removeprefix(prefix): value for key, value in facts.items() if key.startswith(prefix)},
        "machine": {"host": platform.node(), "processor": facts["processor"], "cores": machines.local_cores()},
        "git_commit": facts["git_commit"],
        "git_dirty": facts["git_dirty"],
    }


def _name(plan: Plan) -> str:
    data = "demo" if plan.is_demo else plan.experiment.real.name
    return "-".join([plan.space.name, *data.casefold().replace(".", " ").split()])
