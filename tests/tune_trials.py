"""Stand-ins for what Ray Tune hands to callbacks and searchers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.tuning.trial import Cell


def cell(name: str, root: Path = Path("nowhere"), **values: Any) -> Cell:
    """What a worker is told of a run of four epochs."""
    config = RunConfig.from_flat({"training.epochs": 4, **values}).flat()
    return {
        "id": name,
        "config": config,
        "location": str(root),
        "tags": {"proposal": 7},
        "pausable": False,
        "again": False,
        "until": None,
    }


def as_trial(cell: Cell, last_result: dict[str, Any] | None = None) -> Any:
    """A trial of Tune's with this cell."""
    return SimpleNamespace(config={"cell": cell}, last_result=last_result)


def epoch(number: int, f1: float = 0.5, **more: Any) -> dict[str, Any]:
    """What is reported after an epoch, with what Tune adds."""
    result = {"epoch": number, "time_this_iter_s": 10.0, "images_seen": 100 * number, "validation_macro_f1": f1}
    return {**result, "pid": 1, "hostname": "here", **more}


def ended(status: str = results.FINISHED, f1: float = 0.5, error: str | None = None) -> dict[str, Any]:
    """What is reported when a run has ended, after its fourth epoch."""
    scores = {"validation_accuracy": 0.6, "validation_macro_f1": f1, "wall_seconds": 3.0}
    end = {"ended": True, "epoch": 4, "status": status, "error": error}
    return {**end, "pid": 1, "hostname": "here", **scores}
