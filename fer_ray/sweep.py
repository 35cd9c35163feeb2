"""A sweep: every cell of a search space trained through Ray Tune, then tables and a dashboard."""

import platform
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray import cli
from fer_ray.config import RunConfig
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from fer_ray.tuning.plan import Plan
    from fer_ray.tuning.preflight import Cost
    from fer_ray.tuning.search import Resources

KEPT_WEIGHTS = 3
"""Trials of a sweep that keep their weights: the best by validation."""


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.sweep`."""
    parser = cli.Parser(
        "sweep",
        "Train every cell of a search space and compare them in tables and a dashboard. Finished trials are kept: "
        "the same command goes on where it stopped.",
        "python -m fer_ray.sweep --space ratios --data fer2013.csv --synthetic faces.parquet --small",
    )
    parser.add_argument("--space", required=True, metavar="NAME", help="a search space's name, or a .py file with one")
    parser.add_argument("--models", metavar="A,B,...", help="networks to compare (default: the space's)")
    parser.add_argument("--fractions", metavar="0,.5,1", help="shares of real faces (default: the space's)")
    parser.add_argument("--seeds", metavar="0,1,2", help="seeds of every cell (default: the space's)")
    parser.add_argument("--small", action="store_true", help="the space's small form: minutes instead of hours")
    parser.add_argument("--rows", metavar="KEY", help="config key down the tables (default: the space's first axis)")
    parser.add_argument("--cols", metavar="KEY", help="config key across the tables (default: the space's second)")
    parser.add_argument("--name", help="name of the results folder (default: space and data)")
    parser.add_argument("--storage", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--address", help="a running Ray cluster, HOST:PORT or auto (default: this machine)")
    parser.add_argument(
        "--cpus-per-trial", type=cli.number(above=0), metavar="N", help="CPUs of one trial (default: its threads)"
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=cli.number(least=0, most=1),
        metavar="SHARE",
        help="0 to 1 GPU (default: 1 where there are GPUs, else 0)",
    )
    parser.add_argument(
        "--concurrency", type=cli.number(int, least=1), metavar="N", help="trials at once (default: as many as fit)"
    )
    cli.add_strict_flag(parser)
    parser.add_argument("--again", action="store_true", help="train finished trials anew")
    parser.add_argument("--dry-run", action="store_true", help="print trials, cost and resources; start nothing")
    cli.add_config_flags(parser, cli.COMMON_FLAGS)
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.sweep`; returns the exit code."""
    options = parser().parse(arguments)
    values = cli.config_values(options, cli.COMMON_FLAGS)
    if values.get("runtime.threads", "auto") == "auto":
        values["runtime.threads"] = 1
    axes = _axes(options)
    seeds = _seeds(options.seeds)
    console = cli.stderr_console()

    from fer_ray import progress
    from fer_ray.tuning import plan as planning

    started = time.monotonic()
    space = planning.load_space(options.space)
    _check_device(values.get("runtime.device", "auto"), options.address)
    with progress.shown(console):
        plan = planning.make(space, values, axes=axes, seeds=seeds, small=options.small)
    _check_table_axes(options, plan)
    for note in plan.notes:
        console.print(note)
    for note in plan.check_leaks(options.strict):
        console.print(note)
    started = time.monotonic()
    name = options.name or _name(plan)
    root = options.storage.absolute() / name
    info = plan.info() | {
        "name": name,
        "rows": options.rows or plan.space.rows,
        "columns": options.cols or plan.space.columns,
        "command": shlex.join(["python", "-m", "fer_ray.sweep", *arguments]),
    }
    planning.check_same_design(root, info)
    finished = set() if options.again or not root.exists() else planning.finished_ids(root)
    configs = [config for config in plan.configs if plan.run_id(config) not in finished]
    from_before = len(plan.configs) - len(configs)
    if from_before:
        console.print(
            f"{from_before} of {len(plan.configs)} trials are finished already and kept (--again trains them)"
        )

    resources = _resources(options, plan.configs[0])
    if options.address is None:
        from fer_ray.tuning.search import check_local_resources

        check_local_resources(resources)
    if options.dry_run:
        from fer_ray.tuning import preflight

        _print_dry_run(plan, configs, preflight.measure(plan, configs), resources, console)
        return 0

    from fer_ray import results

    cli.writable_folder(root)
    try:
        results.write_json(root / "sweep.json", info | _made_by())
        results.write_leakage(root, plan.leak_columns())
    except OSError as error:
        raise UserError(f"cannot write {root / 'sweep.json'}: {error.strerror or error}") from error
    code = _run(plan, configs, root, resources, options, console, from_before) if configs else 0
    code = _report(root, console, code)
    num_finished = len(planning.finished_ids(root) & {plan.run_id(config) for config in plan.configs})
    print(f"{num_finished} of {len(plan.configs)} trials finished; {cli.duration(time.monotonic() - started)} in all")
    return code


def _run(
    plan: "Plan",
    configs: list[RunConfig],
    root: Path,
    resources: "Resources",
    options: Any,
    console: "Console",
    from_before: int,
) -> int:
    from fer_ray import results
    from fer_ray.tuning import preflight, search

    interrupted = False
    cells = [(plan.run_id(config), config) for config in configs]
    try:
        search.start_ray(options.address)
        resources = search.resolve(resources)
        if options.address is not None:
            search.check_resources(resources)
        if not plan.is_demo:
            cost = preflight.measure(plan, configs)
            try:
                peak_mb = preflight.rehearse(plan, configs, cost, root, results.read_json(root / "sweep.json"))
            except OSError as error:
                raise UserError(f"cannot write to {root}: {error.strerror or error}; free space there") from error
            if options.address is None and resources.gpus_per_trial == 0:
                resources = search.within_memory(resources, peak_mb)
            _print_cost(cost, len(configs), search.slots(resources), console, options.small)
        search.run_cells(cells, root, resources, console, already_finished=from_before)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        search.stop_ray()
        results.keep_best_weights(root, KEPT_WEIGHTS)
    if interrupted:
        done = sum(row["status"] == results.FINISHED for row in results.read_rows(root))
        console.print(
            f"interrupted: {done} of {len(plan.configs)} trials are finished and on disk in {root}. "
            "The same command goes on with the rest"
        )
        return cli.INTERRUPTED
    statuses = {row["id"]: row["status"] for row in results.read_rows(root)}
    failed = [run_id for run_id, _ in cells if statuses.get(run_id) != results.FINISHED]
    return cli.FAILED_TRIALS if failed else 0


def _report(root: Path, console: "Console", code: int) -> int:
    from fer_ray import results
    from fer_ray.analysis import report

    if code and not any(row["status"] == results.FINISHED for row in results.read_rows(root)):
        console.print(f"no trial finished, so there is nothing to compare; {root}/trials says why each failed")
        return code
    *_, dashboard = report.write_report(root, console=cli.stdout_console())
    print(f"dashboard: {dashboard}")
    return code


def _axes(options: Any) -> dict[str, tuple[Any, ...]]:
    axes: dict[str, tuple[Any, ...]] = {}
    if options.models is not None:
        axes["model.name"] = tuple(cli.split_list(options.models))
    if options.fractions is not None:
        try:
            axes["data.real_fraction"] = tuple(float(text) for text in cli.split_list(options.fractions))
        except ValueError:
            raise UserError(f"--fractions: got {options.fractions!r}, expected numbers such as 0,.5,1") from None
    return axes


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in cli.split_list(text))
    except ValueError:
        raise UserError(f"--seeds: got {text!r}, expected whole numbers such as 0,1,2") from None


def _made_by() -> dict[str, Any]:
    """What sweep.json says of the program and the machine."""
    from fer_ray.training.runtime import provenance
    from fer_ray.tuning.search import local_cores

    facts = provenance()
    prefix = "version_"
    return {
        "versions": {key.removeprefix(prefix): value for key, value in facts.items() if key.startswith(prefix)},
        "machine": {"host": platform.node(), "processor": facts["processor"], "cores": local_cores()},
        "git_commit": facts["git_commit"],
        "git_dirty": facts["git_dirty"],
    }


def _check_table_axes(options: Any, plan: "Plan") -> None:
    from fer_ray.errors import nearest

    known = [*plan.space.axes, "training.seed"]
    for flag, key in (("--rows", options.rows), ("--cols", options.cols)):
        if key is not None and key not in known:
            raise UserError(f"{flag}: {key!r} is no axis of this sweep{nearest(key, known)}")


def _check_device(device: str, address: str | None) -> None:
    """Raises UserError before anything starts where every trial would fail: a GPU that is there and unusable."""
    from fer_ray.training import runtime

    if device.startswith("cuda:"):
        raise UserError(f"--device {device}: Ray gives each trial its GPU; choose among them by CUDA_VISIBLE_DEVICES")
    if address is None:
        runtime.find_device(device)


def _resources(options: Any, config: RunConfig) -> "Resources":
    from fer_ray.tuning.search import Resources

    threads = config.runtime.threads
    cpus = options.cpus_per_trial or (threads if isinstance(threads, int) else 1)
    gpus = 0 if config.runtime.device == "cpu" else options.gpus_per_trial
    return Resources(cpus, gpus, options.concurrency)


def _name(plan: "Plan") -> str:
    data = "demo" if plan.is_demo else plan.experiment.real.name
    return "-".join([plan.space.name, *data.casefold().replace(".", " ").split()])


def _print_cost(cost: "Cost", count: int, num_parallel: int, console: "Console", small: bool) -> None:
    seconds = cost.wall_seconds(num_parallel)
    text = f"{count} trials, at least {cli.duration(seconds)} with {num_parallel} at once, from steps measured here"
    is_long = seconds > 3600 and not small
    console.print(text + "; --small, --epochs or --num-train-images make it shorter" if is_long else text)


def _print_dry_run(
    plan: "Plan", configs: list[RunConfig], cost: "Cost", resources: "Resources", console: "Console"
) -> None:
    from rich.table import Column, Table

    headers = (Column("trial", no_wrap=True), "training images", "epochs", "batch", "about seconds")
    table = Table(*headers, title=plan.space.question)
    for config in configs:
        run_id, training = plan.run_id(config), config.training
        size = str(config.data.num_train_images)
        table.add_row(run_id, size, str(training.epochs), str(training.batch_size), f"{cost.seconds[run_id]:.0f}")
    cli.stdout_console().print(table)
    from fer_ray.tuning import search

    here = search.resolve(resources, search.local_resources())
    _print_cost(cost, len(configs), search.slots(here, search.local_resources()), console, small=False)
    console.print(f"each trial: {here.cpus_per_trial:g} CPUs, {here.gpus_per_trial:g} GPUs; nothing was started")


if __name__ == "__main__":
    cli.main(command)
