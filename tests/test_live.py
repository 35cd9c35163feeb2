"""The view of a sweep, driven as Tune drives it."""

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tune_trials import as_trial, cell, ended, epoch

from fer_ray import results
from fer_ray.tuning.live import LiveView


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False, markup=False, color_system=None)


def view_of(console: Console, total: int, root: Path = Path("nowhere"), **more: Any) -> LiveView:
    return LiveView(console, root, **{"total": total, "already_finished": 0, "slots": 1, **more})


def end(view: LiveView, trial: Any, result: dict[str, Any]) -> None:
    """Tune reports a result, keeps it as the trial's last one, and completes the trial."""
    view.on_trial_result(0, [], trial, result)
    trial.last_result = result
    view.on_trial_complete(0, [], trial)


def shown(view: LiveView, console: Console) -> str:
    console.print(view._render())
    return console.export_text()


def test_the_view_counts_what_is_done_running_failed_and_waiting(console: Console) -> None:
    a, b, c = (as_trial(cell(name)) for name in "abc")
    finished: list[str] = []
    view = view_of(console, 4, already_finished=3, slots=2, on_finished=finished.append)
    view.on_trial_start(0, [], a)
    end(view, a, ended(f1=0.25))
    view.on_trial_start(0, [], b)
    end(view, b, ended(results.FAILED, error="loss is not finite [/at] step 7"))
    view.on_trial_start(0, [], c)
    view.on_trial_result(0, [], c, epoch(3))
    assert (view.failed, finished) == (1, ["a"])
    text = shown(view, console)
    assert "1/4 a: validation accuracy 0.600, macro F1 0.250, 3 s" in text
    assert "1 done, 1 running, 1 failed, 3 from before, 1 waiting" in text
    assert "running  c  epoch 3/4" in text
    assert "best     a  validation accuracy 0.600, macro F1 0.250" in text
    assert "failed b: loss is not finite [/at] step 7" in text
    # One epoch of c and four of another, at 10 s each, on two slots.
    assert "about 25 s left" in text


def test_a_trial_that_the_scheduler_stopped_is_told_apart_and_is_not_finished(console: Console) -> None:
    finished: list[str] = []
    view = view_of(console, 2, on_finished=finished.append)
    stopped = as_trial(cell("a"))
    view.on_trial_start(0, [], stopped)
    end(view, stopped, epoch(1, f1=0.125))
    assert finished == []
    text = shown(view, console)
    assert "a: stopped after epoch 1, validation macro F1 0.125, 0 s" in text
    assert "0 done, 0 running, 0 failed, 1 stopped early, 1 waiting" in text


def test_a_search_counts_proposals_and_the_best_is_by_its_objective(console: Console) -> None:
    view = view_of(console, 9, objective="validation_loss", is_lower_better=True, judged=lambda: 1)
    for name, loss in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        trial = as_trial(cell(name))
        view.on_trial_start(0, [], trial)
        end(view, trial, {**ended(), "validation_loss": loss})
    text = shown(view, console)
    assert "proposals" in text
    assert "1/9" in text
    assert "best   b  " in text


def test_time_left_is_unknown_before_the_first_epoch(console: Console) -> None:
    assert "time left unknown" in shown(view_of(console, 1), console)


def test_a_budget_may_end_a_sweep_before_its_trials_do(console: Console) -> None:
    view = view_of(console, 1)
    view.budget_left = lambda: 7.0
    assert "about 7 s left" in shown(view, console)


def test_time_left_knows_slow_networks_from_fast_ones(console: Console) -> None:
    models = {"a": "ResNet50", "b": "ResNet18", "c": "ResNet18"}
    a, b, c = (as_trial(cell(name, **{"model.name": model})) for name, model in models.items())
    view = view_of(console, 3)
    for trial in (a, b, c):
        view.on_trial_start(0, [], trial)
    view.on_trial_result(0, [], a, epoch(4, time_this_iter_s=100.0))
    view.on_trial_result(0, [], b, epoch(1, time_this_iter_s=2.0))
    assert "about 14 s left" in shown(view, console)


def test_epochs_that_came_back_from_a_checkpoint_cost_nothing(console: Console) -> None:
    view = view_of(console, 1)
    trial = as_trial(cell("a"))
    view.on_trial_start(0, [], trial)
    view.on_trial_result(0, [], trial, epoch(1, time_this_iter_s=0.001, is_restored=True))
    view.on_trial_result(0, [], trial, epoch(2, time_this_iter_s=10.0))
    assert "about 20 s left" in shown(view, console)


def test_a_worker_that_died_is_said_and_is_no_failure(console: Console, tmp_path: Path) -> None:
    view = view_of(console, 1, tmp_path)
    trial = as_trial(cell("lost", tmp_path))
    view.on_trial_start(0, [], trial)
    view.on_trial_recover(0, [], trial)
    assert view.failed == 0
    assert "lost: its worker died; it goes on from its last checkpoint" in console.export_text()
    assert results.read_rows(tmp_path) == []


def test_a_worker_that_died_once_too_often_leaves_a_failed_row(console: Console, tmp_path: Path) -> None:
    view = view_of(console, 1, tmp_path)
    view.on_trial_error(0, [], as_trial(cell("lost", tmp_path)))
    (row,) = results.read_rows(tmp_path)
    assert (row["id"], row["status"], row["proposal"]) == ("lost", results.FAILED, 7)
    assert "process died again and again" in row["error"]
    assert view.failed == 1


def test_paused_trials_hold_no_gpu(tmp_path: Path) -> None:
    view = LiveView(Console(file=StringIO()), tmp_path, total=3, already_finished=0, slots=2)
    view.on_step_begin(1, [SimpleNamespace(status=status, RUNNING="RUNNING") for status in ("RUNNING", "PAUSED")])
    assert view.num_running == 1
