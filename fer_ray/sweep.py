"""A sweep: every cell of a factorial design, or a search, trained through Ray Tune, then tables and a dashboard."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray import cli
from fer_ray.errors import UserError
from fer_ray.space import Search

if TYPE_CHECKING:
    from fer_ray.space import Space


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.sweep`."""
    parser = cli.Parser(
        "sweep",
        "Train every cell of a search space, or search it, and compare in tables and a dashboard. Finished trials are "
        "kept: the same command goes on where it stopped.",
        "python -m fer_ray.sweep --space ratios --data fer2013.csv --synthetic faces.parquet --small",
    )
    parser.add_argument("--space", metavar="NAME", help="a search space's name, or a .py file with one")
    parser.add_argument("--resume", metavar="NAME", help="go on with the sweep of that name as it was started")
    parser.add_argument("--extend", metavar="NAME", help="add --trials to a search of that name that is finished")
    parser.add_argument("--models", metavar="A,B,...", help="networks to compare (default: the space's)")
    parser.add_argument("--fractions", metavar="0,.5,1", help="shares of real faces (default: the space's)")
    parser.add_argument("--seeds", metavar="0,1,2", help="seeds of every cell, or to race over (default: the space's)")
    parser.add_argument("--small", action="store_true", help="the space's small form: minutes instead of hours")
    parser.add_argument("--rows", metavar="KEY", help="config key down the tables (default: the space's first axis)")
    parser.add_argument("--cols", metavar="KEY", help="config key across the tables (default: the space's second)")
    parser.add_argument("--name", help="name of the results folder (default: space and data)")
    parser.add_argument(
        "--storage",
        default="results",
        metavar="DIR",
        help="folder of results, or s3://BUCKET/PREFIX (default: results)",
    )
    cli.add_strict_flag(parser)
    parser.add_argument("--again", action="store_true", help="train finished trials anew")
    parser.add_argument("--dry-run", action="store_true", help="print trials, cost and resources; start nothing")
    _add_search_flags(parser)
    _add_budget_flags(parser)
    _add_machine_flags(parser)
    cli.add_config_flags(parser, cli.COMMON_FLAGS)
    return parser


def _add_search_flags(parser: cli.Parser) -> None:
    group = parser.add_argument_group("searches")
    group.add_argument(
        "--trials", type=cli.number(int, least=1), metavar="N", help="proposals to train (default: the space's)"
    )
    group.add_argument(
        "--sampler", choices=["tpe", "gp", "nsga2", "random"], help="who proposes (default: tpe; nsga2 for a front)"
    )
    group.add_argument(
        "--scheduler",
        choices=["none", "asha", "hyperband", "median", "pbt"],
        help="who stops early, or, pbt, gives its place to a copy of a better one (default: none)",
    )
    group.add_argument("--objectives", metavar="A,B", help="columns to optimise (default: the space's)")
    group.add_argument("--warm-start", type=Path, metavar="DIR", help="results of an earlier sweep to learn from")


def _add_budget_flags(parser: cli.Parser) -> None:
    group = parser.add_argument_group("budget: the sweep stops in order when one is spent, and can be resumed")
    group.add_argument("--time-budget", type=cli.seconds, metavar="2h30m", help="wall time")
    group.add_argument("--gpu-hours", type=cli.number(above=0), metavar="N", help="hours times GPUs held by trials")
    group.add_argument("--money", type=cli.number(above=0), metavar="N", help="with --price-per-gpu-hour")
    group.add_argument("--price-per-gpu-hour", type=cli.number(above=0), metavar="N", help="in the same currency")
    group.add_argument(
        "--image-budget", type=cli.number(int, least=1), metavar="N", help="training images over all trials"
    )


def _add_machine_flags(parser: cli.Parser) -> None:
    group = parser.add_argument_group("machines")
    group.add_argument("--address", help="a running Ray cluster, HOST:PORT or auto (default: this machine)")
    group.add_argument(
        "--cpus-per-trial", type=cli.number(above=0), metavar="N", help="CPUs of one trial (default: its threads)"
    )
    group.add_argument(
        "--gpus-per-trial",
        type=cli.number(least=0, most=1),
        metavar="SHARE",
        help="a trial uses one GPU or a part of one (default: 1 where there are GPUs, else 0)",
    )
    group.add_argument(
        "--concurrency", type=cli.number(int, least=1), metavar="N", help="trials at once (default: as many as fit)"
    )
    group.add_argument("--log", metavar="A,B", default="", help="also log to mlflow, wandb, tensorboard")


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.sweep`; returns the exit code."""
    options = parser().parse(arguments)
    if options.resume or options.extend:
        from fer_ray.tuning import recorded

        arguments = recorded.arguments(options, arguments)
        options = parser().parse(arguments)
    if not options.space:
        raise UserError("--space: expected the name of a search space, e.g. --space ratios; or --resume NAME")
    values = cli.config_values(options, cli.COMMON_FLAGS)
    if values.get("runtime.threads", "auto") == "auto":
        values["runtime.threads"] = 1
    axes, seeds = _axes(options), _seeds(options.seeds)
    console = cli.stderr_console()

    from fer_ray import progress
    from fer_ray.tuning import machines

    machines.set_environment(options.address)
    from fer_ray.tuning import loggers, planning, session, spaces

    started = time.monotonic()
    space = _with_flags(spaces.load_space(options.space), options)
    loggers.check(cli.split_list(options.log))
    _check_device(values.get("runtime.device", "auto"), options.address)
    with progress.shown(console):
        plan = planning.make(space, values, axes=axes, seeds=seeds, small=options.small)
    _check_table_axes(options, list(plan.axes()))
    for note in [*plan.notes, *plan.check_leaks(options.strict)]:
        console.print(note)
    is_file = options.space.endswith(".py")  # found again from another folder
    kept = [str(Path(text).absolute()) if is_file and text == options.space else text for text in arguments]
    line = shlex.join(["python", "-m", "fer_ray.sweep", *kept])
    return session.run(plan, options, line, console, started)


def _with_flags(space: "Space | Search", options: Any) -> "Space | Search":
    """A search with the objectives of the command line. Raises UserError for flags of the other kind of space."""
    from dataclasses import replace

    from fer_ray.tuning.samplers import check_objectives

    if isinstance(space, Search):
        if options.scheduler == "pbt":
            if "," in (options.seeds or ""):
                raise UserError(f"--seeds {options.seeds}: a population is trained with one seed")
            space = replace(space, seeds=space.seeds[:1])
        if options.objectives is None:
            return space
        objectives = tuple(dict.fromkeys(cli.split_list(options.objectives)))
        check_objectives(objectives)
        return replace(space, objectives=objectives)
    for flag in ("trials", "sampler", "scheduler", "objectives", "warm_start"):
        if getattr(options, flag) is not None:
            raise UserError(
                f"--{flag.replace('_', '-')}: space {space.name} is a factorial design, whose cells all run to their "
                "end; this flag is for searches such as hpo"
            )
    return space


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


def _check_table_axes(options: Any, axes: list[str]) -> None:
    from fer_ray.errors import nearest

    known = [*axes, "training.seed"]
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


if __name__ == "__main__":
    cli.main(command)
