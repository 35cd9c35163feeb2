"""What a person sees while a sweep runs: a live view on a terminal, a line per trial elsewhere."""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fer_ray import results
from fer_ray.cli import duration
from fer_ray.tuning.trial import Cell, write_lost


class LiveView(tune.Callback):
    """Counts trials as Tune reports them, shows them, and writes the rows of those whose worker died for good."""

    def __init__(
        self,
        console: Console,
        root: Path,
        *,
        total: int,
        already_finished: int,
        slots: int,
        objective: str = "validation_macro_f1",
        is_lower_better: bool = False,
        on_finished: Callable[[str], None] = lambda run_id: None,
        judged: Callable[[], int] | None = None,
        on_lost: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        """Shows a sweep of `total` trials, without those that were finished before; for a search that is how many
        proposals it wants, `judged` counts those that have ended, and `objective` is what it optimises. `on_finished`
        is told of every finished trial, `on_lost` of those whose worker died for good. `budget_left`, which may be set,
        tells the seconds that a budget leaves.
        """
        self._console, self._root, self._total, self._slots = console, root, total, slots
        self._objective, self._sign = objective, -1 if is_lower_better else 1
        self._on_finished, self._judged, self._on_lost = on_finished, judged, on_lost
        self.budget_left: Callable[[], float | None] = lambda: None
        self._cells: dict[str, Cell] = {}
        self._epochs_done: dict[str, int] = defaultdict(int)
        self._ended: dict[str, dict[str, Any]] = {}
        self._running: dict[str, float] = {}
        self._num_running = 0
        self._epoch_seconds: dict[str, list[float]] = defaultdict(list)
        self._already_finished = already_finished
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]{task.fields[label]}"), BarColumn(None), TextColumn("{task.completed}/{task.total}")
        )
        self._label = "trials" if judged is None else "proposals"
        self._bar = self._progress.add_task(self._label, total=total, label=self._label)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore an experiment; ours are made anew from the results on disk instead.
        return {}

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    @property
    def failed(self) -> int:
        """Trials that failed."""
        return sum(row["status"] == results.FAILED for row in self._ended.values())

    @property
    def num_running(self) -> int:
        """Trials that run now; those that a scheduler has paused are not among them."""
        return self._num_running

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Tune's hook, called all the time."""
        self._num_running = sum(trial.status == trial.RUNNING for trial in trials)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook: a trial got its place, for the first time or again."""
        cell = _cell(trial)
        self._cells[cell["id"]] = cell
        self._running[cell["id"]] = time.monotonic()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Tune's hook: an epoch, or the end, of a trial."""
        if not result.get("ended"):
            self._epochs_done[_cell(trial)["id"]] = result["epoch"]
            if not result.get("is_restored"):
                # Wall time of an epoch with its validation, which is what the time left is made of.
                self._epoch_seconds[_model(_cell(trial))].append(result["time_this_iter_s"])

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook: a trial ended, or was stopped before its end."""
        self._end(_cell(trial)["id"], {"status": results.STOPPED, **(trial.last_result or {})})

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook: a trial's worker died, and it goes on from its last checkpoint."""
        self._running.pop(_cell(trial)["id"], None)
        self._console.print(f"{_cell(trial)['id']}: its worker died; it goes on from its last checkpoint")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook: a trial's worker died once too often."""
        cell = _cell(trial)
        again = "run the same command to try it again" if cell["until"] is None else "a copy takes its place"
        error = f"the trial's process died again and again (out of memory, or killed); {again}"
        write_lost(cell, self._root, error)
        self._on_lost(cell["id"])
        self._end(cell["id"], {"status": results.FAILED, "error": error})

    def _end(self, run_id: str, row: dict[str, Any]) -> None:
        self._running.pop(run_id, None)
        self._ended[run_id] = row
        self._progress.update(self._bar, completed=self._num_done)
        if row["status"] == results.FINISHED:
            self._on_finished(run_id)
        if row["status"] == results.FAILED:
            self._console.print(f"failed {run_id}: {row.get('error')}", style="red")
        elif not self._console.is_terminal:
            verb = "waits" if row.get("waits") else "stopped"
            how = f"{verb} after epoch {row.get('epoch', 0)}, " if row["status"] == results.STOPPED else ""
            seconds = row.get("wall_seconds") or row.get("time_total_s") or 0
            self._console.print(
                f"{self._num_done}/{self._total} {run_id}: {how}{_scores(row)}, {seconds:.0f} s; {self._time_left()}"
            )

    @property
    def _num_done(self) -> int:
        return len(self._ended) if self._judged is None else self._judged() - self._already_finished

    def _time_left(self) -> str:
        known = [seconds for seconds in (self._seconds_left(), self.budget_left()) if seconds is not None]
        seconds = min(known, default=None)
        return "time left unknown" if seconds is None else f"about {duration(seconds)} left"

    def _seconds_left(self) -> float | None:
        known = {model: sum(values) / len(values) for model, values in self._epoch_seconds.items()}
        if not known or not self._cells:
            return None
        typical = sum(known.values()) / len(known)
        whole = {
            run_id: cell["config"]["training.epochs"] * known.get(_model(cell), typical)
            for run_id, cell in self._cells.items()
        }
        running = sum(
            whole[run_id] * (1 - self._epochs_done[run_id] / self._cells[run_id]["config"]["training.epochs"])
            for run_id in self._running
        )
        waiting = max(0, self._total - self._num_done - len(self._running))
        # Of a population those that wait have some epochs behind them.
        begun = [
            1 - self._epochs_done[run_id] / self._cells[run_id]["config"]["training.epochs"]
            for run_id, row in self._ended.items()
            if row.get("waits") and run_id not in self._running
        ]
        rest = min(begun, default=1.0)
        return (running + waiting * rest * sum(whole.values()) / len(whole)) / self._slots

    def _render(self) -> Group:
        by_status: dict[str, list[str]] = defaultdict(list)
        for run_id, row in self._ended.items():
            by_status[row["status"]].append(run_id)
        finished = by_status[results.FINISHED]
        stopped = [run_id for run_id in by_status[results.STOPPED] if not self._ended[run_id].get("waits")]
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        counts = f"{len(finished)} done, {len(self._running)} running, {self.failed} failed"
        if stopped:
            counts += f", {len(stopped)} stopped early"
        waiting = self._total - self._num_done - len(self._running)
        if self._already_finished:
            counts += f", {self._already_finished} from before"
        elapsed = duration(time.monotonic() - self._started)
        table.add_row("state", f"{counts}, {max(0, waiting)} waiting; {elapsed} so far, {self._time_left()}")
        if not self._running and not self._ended:
            table.add_row("running", "workers are starting")
        for run_id in self._running:
            epochs = self._cells[run_id]["config"]["training.epochs"]
            table.add_row("running", f"{run_id}  epoch {self._epochs_done[run_id]}/{epochs}")
        judged = [run_id for run_id in finished if self._ended[run_id].get(self._objective) is not None]
        if judged:
            best = max(judged, key=lambda run_id: self._sign * self._ended[run_id][self._objective])
            table.add_row("best", f"{best}  {_scores(self._ended[best])}", style="green")
        return Group(self._progress, table)


def _scores(row: dict[str, Any]) -> str:
    said = {"accuracy": "accuracy", "macro_f1": "macro F1", "ccc": "CCC"}
    found = {text: row.get(f"validation_{name}") for name, text in said.items()}
    known = ", ".join(f"{text} {value:.3f}" for text, value in found.items() if value is not None)
    return f"validation {known}" if known else "no validation yet"


def _cell(trial: Any) -> Cell:
    return trial.config["cell"]


def _model(cell: Cell) -> str:
    return str(cell["config"]["model.name"])
