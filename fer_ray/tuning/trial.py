"""The Ray trainable: one cell's config in, one run, its files written by the worker."""

import traceback
from pathlib import Path
from typing import Any

from ray import tune

from fer_ray import run
from fer_ray.config import RunConfig
from fer_ray.errors import UserError


def trial(spec: dict[str, Any]) -> None:
    """Runs `spec["config"]` (flat) into `spec["root"]` and reports every epoch and the end to Tune.

    A failure of any kind is this trial's alone: it is written as a row and the sweep goes on.
    """
    cell = spec["cell"]
    config, root = RunConfig.from_flat(cell["config"]), Path(cell["root"])

    def report(row: dict[str, Any]) -> None:
        tune.report({name: row[name] for name in ("epoch", "seconds", "validation_accuracy", "validation_macro_f1")})

    try:
        row = run.execute(config, root, report=report)
    except Exception as error:  # whatever it is, the other trials must not suffer
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        row = run.write_failure(config, cell["id"], root, message, traceback.format_exc())
    names = ("status", "error", "validation_accuracy", "validation_macro_f1", "wall_seconds")
    tune.report({"epoch": row.get("epochs_run") or 0, "ended": True, **{name: row.get(name) for name in names}})


def write_lost(cell: dict[str, Any], error: str) -> None:
    """Writes the row of a trial whose worker died without a word."""
    folder = Path(cell["root"]) / "trials" / cell["id"]
    if not (folder / "row.json").exists():
        run.write_failure(RunConfig.from_flat(cell["config"]), cell["id"], Path(cell["root"]), error, error)
