"""`journal.jsonl`: what happened in a sweep and when, a line per event, by every driver that worked on it.

Events: `driver` (a command began), `start` (a trial got a worker), `epoch` (one was trained), `restored` (one came back
from a checkpoint), `worker_died`, and `end` with the trial's status.
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import tune


class Journal(tune.Callback):
    """Writes the journal from Tune's events. A full disk does not end a sweep for its sake."""

    def __init__(self, root: Path) -> None:
        self._path = root / "journal.jsonl"
        self._write(event="driver", pid=os.getpid(), host=platform.node())

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as LiveView's

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook."""
        self._write(event="start", id=_id(trial))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Tune's hook."""
        where = {"pid": result.get("pid"), "host": result.get("hostname")}
        if result.get("ended"):
            self._write(event="end", id=_id(trial), status=result["status"], **where)
        else:
            event = "restored" if result.get("is_restored") else "epoch"
            self._write(event=event, id=_id(trial), epoch=result["epoch"], **where)

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook."""
        self._write(event="worker_died", id=_id(trial))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook."""
        self._write(event="end", id=_id(trial), status="failed")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook."""
        if trial.last_result and not trial.last_result.get("ended"):
            self._write(event="end", id=_id(trial), status="stopped")

    def _write(self, **event: Any) -> None:
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            return


def _id(trial: Any) -> str:
    return str(trial.config["cell"]["id"])
