"""What a person sees while a sweep runs: a live view on a terminal, a line per trial elsewhere."""

import time
from collections import defaultdict
from typing import Any

from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fer_ray import results
from fer_ray.cli import duration
from fer_ray.tuning.trial import write_lost


class LiveView(tune.Callback):
    """Counts trials as Tune reports them, shows them, and writes the rows of those whose worker died."""

    def __init__(self, console: Console, cells: list[dict[str, Any]], *, already_finished: int, slots: int) -> None:
        self._console = console
        self._epochs = {cell["id"]: cell["config"]["training.epochs"] for cell in cells}
        self._models = {cell["id"]: cell["config"]["model.name"] for cell in cells}
        self._epochs_done: dict[str, int] = defaultdict(int)
        self._ended: dict[str, dict[str, Any]] = {}
        self._running: dict[str, float] = {}
        self._epoch_seconds: dict[str, list[float]] = defaultdict(list)
        self._already_finished = already_finished
        self._slots = slots
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]{task.fields[label]}"), BarColumn(None), TextColumn("{task.completed}/{task.total}")
        )
        self._bar = self._progress.add_task("trials", total=len(cells), label="trials")
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
        return sum(row["status"] != results.FINISHED for row in self._ended.values())

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook: a trial got its place."""
        self._running[_cell(trial)["id"]] = time.monotonic()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Tune's hook: an epoch, or the end, of a trial."""
        run_id = _cell(trial)["id"]
        if result.get("ended"):
            self._end(run_id, result)
        else:
            self._epochs_done[run_id] = result["epoch"]
            # Wall time of an epoch with its validation, which is what the time left is made of.
            self._epoch_seconds[self._models[run_id]].append(result["time_this_iter_s"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tune's hook: the worker died."""
        cell = _cell(trial)
        error = "the trial's process died (out of memory, or killed); run the same command to try it again"
        write_lost(cell, error)
        self._end(cell["id"], {"status": results.FAILED, "error": error})

    def _end(self, run_id: str, row: dict[str, Any]) -> None:
        self._running.pop(run_id, None)
        self._ended[run_id] = row
        self._progress.update(self._bar, completed=len(self._ended))
        if row["status"] != results.FINISHED:
            self._console.print(f"failed {run_id}: {row['error']}", style="red")
        elif not self._console.is_terminal:
            self._console.print(
                f"{len(self._ended)}/{len(self._epochs)} {run_id}: validation accuracy "
                f"{row['validation_accuracy']:.3f}, macro F1 {row['validation_macro_f1']:.3f}, "
                f"{row['wall_seconds']:.0f} s; {self._time_left()}"
            )

    def _time_left(self) -> str:
        seconds = self._seconds_left()
        return "time left unknown" if seconds is None else f"about {duration(seconds)} left"

    def _seconds_left(self) -> float | None:
        known = {model: sum(values) / len(values) for model, values in self._epoch_seconds.items()}
        if not known:
            return None
        typical = sum(known.values()) / len(known)
        work = sum(
            (epochs - self._epochs_done[run_id]) * known.get(self._models[run_id], typical)
            for run_id, epochs in self._epochs.items()
            if run_id not in self._ended
        )
        return work / self._slots

    def _render(self) -> Group:
        finished = [item for item in self._ended.items() if item[1]["status"] == results.FINISHED]
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        counts = f"{len(finished)} done, {len(self._running)} running, {self.failed} failed"
        waiting = len(self._epochs) - len(self._ended) - len(self._running)
        if self._already_finished:
            counts += f", {self._already_finished} from before"
        elapsed = duration(time.monotonic() - self._started)
        table.add_row("state", f"{counts}, {waiting} waiting; {elapsed} so far, {self._time_left()}")
        if not self._running and not self._ended:
            table.add_row("running", "workers are starting")
        for run_id in self._running:
            table.add_row("running", f"{run_id}  epoch {self._epochs_done[run_id]}/{self._epochs[run_id]}")
        if finished:
            best_id, best = max(finished, key=lambda item: item[1]["validation_macro_f1"])
            accuracy, f1 = best["validation_accuracy"], best["validation_macro_f1"]
            table.add_row("best", f"{best_id}  validation accuracy {accuracy:.3f}, macro F1 {f1:.3f}", style="green")
        return Group(self._progress, table)


def _cell(trial: Any) -> dict[str, Any]:
    return trial.config["cell"]
