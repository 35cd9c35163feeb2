"""The Ray trainable: one cell's config in, one run, its files written by the worker."""

import json
import tempfile
import traceback
from pathlib import Path
from typing import Any, TypedDict

from ray import tune

from fer_ray import results, run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.storage import Storage, open_storage
from fer_ray.training.runtime import free_memory
from fer_ray.tuning.cluster import Shipment, check_shared

RETRIES = 1
"""How often a trial that the program itself failed is tried again, from its last checkpoint. The death of a worker or
a node does not count: see MAX_WORKER_DEATHS of `execution`."""

EPOCH_FIELDS = (
    "epoch",
    "seconds",
    "images_seen",
    "images_per_second",
    "validation_loss",
    "validation_accuracy",
    "validation_macro_f1",
    "validation_ccc",
    "validation_mae",
)
END_FIELDS = ("status", "error", "wall_seconds", "train_seconds", "parameters", "chosen_epoch", *EPOCH_FIELDS[2:])


class Cell(TypedDict):
    """What a worker is told of its run; plain values, since Tune copies and prints it.

    `location` is the sweep's place (see `fer_ray.storage`), `tags` go into the row, `pausable` says that the scheduler
    may stop the run and go on with it later, `again` that it is trained even if it is finished, and `until` after which
    epoch it waits for another cell that goes on with it.
    """

    id: str
    config: dict[str, Any]
    location: str
    tags: dict[str, Any]
    pausable: bool
    again: bool
    until: int | None


def trial(spec: dict[str, Any], shipment: Shipment | None = None) -> None:
    """Runs `spec["cell"]`, a Cell, and reports every epoch and the end to Tune.

    A failure of any kind is this trial's alone: it is written as a row and the sweep goes on. A run that is finished
    already is not started again.
    """
    cell: Cell = spec["cell"]
    storage = open_storage(cell["location"])
    checkpoints, folder = f"checkpoints/{cell['id']}", f"trials/{cell['id']}"
    storage.pull(checkpoints, folder)
    row = None if cell["again"] else finished_row(storage.folder, cell["id"])
    if row is None:
        row = _run(cell, storage, shipment)
        free_memory()  # this process may hold the next trial
        storage.push(folder)
        waits = row.get("epochs_run") == cell["until"] != cell["config"]["training.epochs"]
        if row["status"] == results.STOPPED and not waits:
            raise SystemExit(0)  # what Tune ended the function with; one that returns has to report its end
        if row["status"] != results.STOPPED:
            storage.remove(checkpoints)
    end = {"epoch": row.get("epochs_run") or 0, "ended": True, "done": True, "run": cell["id"]}
    if row["status"] == results.STOPPED:
        end["waits"] = True
    tune.report({**_known(row, END_FIELDS), **end})


def _run(cell: Cell, storage: Storage, shipment: Shipment | None) -> dict[str, Any]:
    config, reported = RunConfig.from_flat(cell["config"]), _reported_before()

    def report(row: dict[str, Any]) -> bool:
        if row["epoch"] <= reported:  # a paused trial goes on after what Tune knows
            return False
        values = _known(row, (*EPOCH_FIELDS, "is_restored")) | {"run": cell["id"]}
        try:
            _report(values, is_pausable=cell["pausable"])
        except SystemExit:  # how Tune ends a function
            return True
        return row["epoch"] == cell["until"] != config.training.epochs

    error = detail = ""
    for _ in range(1 + RETRIES):
        try:
            experiment = weights_file = None
            if shipment is not None:
                check_shared(storage)
                shipment.install()
                experiment, weights_file = shipment.experiment(config), shipment.weights_file(config)
            return run.execute(
                config,
                storage.folder,
                experiment=experiment,
                weights_file=weights_file,
                report=report,
                tags=cell["tags"],
                on_checkpoint=lambda path: storage.push(f"checkpoints/{cell['id']}"),
            )
        except UserError as failure:  # would fail again
            error, detail = str(failure), traceback.format_exc()
            break
        except Exception as failure:  # whatever it is, the other trials must not suffer
            error, detail = f"{type(failure).__name__}: {failure}", traceback.format_exc()
            free_memory()
    return run.write_failure(config, cell["id"], storage.folder, error, detail, cell["tags"])


def _known(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What a row has of these; schedulers pass over a missing value, and fail on None."""
    return {name: row[name] for name in names if row.get(name) is not None}


def _report(values: dict[str, Any], *, is_pausable: bool) -> None:
    """To pause a trial Tune wants a checkpoint; the run has its own, so that this one holds the epoch alone."""
    if not is_pausable:
        tune.report(values)
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "epoch.json").write_text(json.dumps(values["epoch"]))
        tune.report(values, checkpoint=tune.Checkpoint.from_directory(folder))


def _reported_before() -> int:
    """The last epoch that Tune was told of before it paused this trial; 0 at the first start."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return int(json.loads(Path(folder, "epoch.json").read_text()))


def finished_row(root: Path, run_id: str) -> dict[str, Any] | None:
    """The row of a run that is finished on disk, else None."""
    path = root / "trials" / run_id / "row.json"
    if not path.exists():
        return None
    row = results.read_json(path)
    return row if row["status"] == results.FINISHED else None


def write_lost(cell: Cell, root: Path, error: str) -> None:
    """Writes the row of a trial whose worker died without a word."""
    if finished_row(root, cell["id"]) is None:
        run.write_failure(RunConfig.from_flat(cell["config"]), cell["id"], root, error, error, cell["tags"])
