"""The command that started a sweep, read from its sweep.json, to go on with it or to extend it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_ray import results
from fer_ray.config import DATA_PATHS
from fer_ray.errors import UserError, nearest
from fer_ray.proposals import read_proposals
from fer_ray.storage import open_storage, place

PATH_FLAGS = {"data.source": "--data", "data.synthetic": "--synthetic", "data.test_source": "--test-data"}


def arguments(options: Any, given: Sequence[str]) -> list[str]:
    """The arguments that go on with the sweep `--resume` or `--extend` names: its own, then those `given` now.

    A search that is extended gets `--trials` more; one that is not finished goes on to what it wanted first, so that a
    command which was interrupted can be given again.

    Raises UserError where there is no such sweep, or it cannot be extended.
    """
    name = options.resume or options.extend
    if options.space:
        raise UserError(f"--space: {name} has its own; leave it out")
    storage = open_storage(place(options.storage, name))
    storage.pull("sweep.json", "proposals")
    path = storage.folder / "sweep.json"
    if not path.exists():
        parent = Path(options.storage)
        there = [folder.parent.name for folder in parent.glob("*/sweep.json")] if not storage.is_remote else []
        raise UserError(f"{storage.location} holds no sweep{nearest(name, there)}; expected a name under --storage")
    info = results.read_json(path)
    before = shlex.split(info["command"])[3:]
    now = _without(given, "--resume", "--extend")
    if options.extend:
        now = [*_without(now, "--trials"), "--trials", str(_target(options, info, storage.folder))]
    paths = [
        argument
        for key in DATA_PATHS
        if info["fixed"].get(key) not in (None, "demo")
        for argument in (PATH_FLAGS[key], info["fixed"][key])
    ]
    return [*_without(before, "--name", "--storage"), *paths, "--name", name, "--storage", options.storage, *now]


def _target(options: Any, info: dict[str, Any], root: Path) -> int:
    if info.get("kind") != "search":
        raise UserError(
            f"--extend {options.extend}: it is no search; give more --seeds, --models or --fractions instead"
        )
    if options.trials is None:
        raise UserError("--extend: expected --trials N, how many to add")
    if info.get("scheduler") == "pbt":
        raise UserError(f"--extend {options.extend}: a population stays as large as it began; start another --name")
    trained = [p for p in read_proposals(root) if p.state != "repeated"]
    if len(trained) < info["trials"] or any(p.state == "running" for p in trained):
        return int(info["trials"])
    return len(trained) + int(options.trials)


def _without(arguments: Sequence[str], *flags: str) -> list[str]:
    """Arguments without these flags and their values."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in flags:
            skip = True
        elif argument.split("=")[0] not in flags:
            kept.append(argument)
    return kept
